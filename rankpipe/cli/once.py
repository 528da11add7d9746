"""Commands that take an option once, if it is not one that may be repeated: of two values one would be lost."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperOption

if TYPE_CHECKING:
    from collections.abc import Sequence


class Once(TyperCommand):
    """A command that refuses a second value of an option that has one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        given = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", args)]
        for option in self.params:
            if isinstance(option, TyperOption) and not option.multiple and not option.is_flag and not option.count:
                self._refuse(option.opts, given)
        return super().parse_args(ctx, args)

    def _refuse(self, names: Sequence[str], given: Sequence[str]) -> None:
        if sum(word in names for word in given) > 1:
            raise typer.BadParameter(f"{names[0]} is given twice, and takes one value")
