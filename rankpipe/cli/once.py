"""Commands that take an option once, if it is not one that may be repeated: of two values one would be lost."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption


class Once(TyperCommand):
    """A command that refuses a second value of an option that has one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        given = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", args)]
        for option in self.params:
            alone = isinstance(option, TyperOption) and not (option.multiple or option.is_flag or option.count)
            if alone and sum(word in option.opts for word in given) > 1:
                raise typer.BadParameter(f"{option.opts[0]} is given twice, and takes one value")
        return super().parse_args(ctx, args)
