"""Everything rankpipe raises on purpose.

RankpipeError            1
├── CommandError         2  the command line asks for what cannot be; lists every fault
├── RecipeError          3  a recipe cannot be built; lists every fault, each with its place
├── DataError            4  a file or record is not what it should be; says where and what was expected
├── MissingExtra         5  a component needs a package that is not installed; says the one command
├── MissingWeights       5  a model's files are not here and cannot be fetched; says how to get them
├── ArtefactError        6  an index or result is absent, damaged, stale or foreign; says the cure
├── ModelError           7  a language model could not do what was asked
├── DiskError            8  a file could not be written; nothing was changed
└── ClusterError         9  machines that were to do the work cannot be reached, or cannot do it

The numbers are the exit codes of the command line. 10 is a regression found by ``compare``.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar


class RankpipeError(Exception):
    """Base of all errors raised on purpose; catch this to catch them all."""

    exit_code: ClassVar[int] = 1


class CommandError(RankpipeError):
    """The command line is wrong. ``faults`` holds every fault."""

    exit_code = 2

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(_listed(self.faults, "in the command line") if len(self.faults) > 1 else self.faults[0])


class RecipeError(RankpipeError):
    """A recipe cannot be built. ``faults`` holds every fault, each with its place."""

    exit_code = 3

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(_listed(self.faults, "in the recipe"))


class DataError(RankpipeError):
    """A file or record is not what it should be."""

    exit_code = 4


class MissingExtra(RankpipeError):
    """A component needs a package that is not installed."""

    exit_code = 5

    def __init__(self, name: str, module: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{name} needs {module!r}, which is not installed: pip install 'rankpipe[{extra}]'")


class MissingExtras(MissingExtra):
    """Components of a recipe need packages that are not installed. ``faults`` says each with its place."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        RankpipeError.__init__(self, "\n".join(self.faults))


class MissingWeights(RankpipeError):
    """A model's files are not here and cannot be fetched."""

    exit_code = 5


class ArtefactError(RankpipeError):
    """An index or result is absent, damaged, stale or foreign."""

    exit_code = 6


class ModelError(RankpipeError):
    """A language model could not do what was asked."""

    exit_code = 7


class DiskError(RankpipeError):
    """A file could not be written. What was there before is still there."""

    exit_code = 8


class ClusterError(RankpipeError):
    """Machines that were to do the work cannot be reached, or cannot do it."""

    exit_code = 9


class Lacking(str):
    """A fault of a recipe that installing an extra mends."""


def placed(place: str, faults: Iterable[str]) -> list[str]:
    """The faults, each with its place, and of the kind that it is."""
    return [type(fault)(f"{place}: {fault}") for fault in faults]


def refuse(faults: Sequence[str]) -> None:
    """Refuse a recipe that has faults.

    :raises MissingExtras: If all of them are extras that are not installed.
    :raises RecipeError: If there are others.
    """
    if faults and all(isinstance(fault, Lacking) for fault in faults):
        raise MissingExtras(faults)
    if faults:
        raise RecipeError(faults)


def _listed(faults: Sequence[str], where: str) -> str:
    some = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{some} {where}:\n" + "\n".join(f"  - {fault}" for fault in faults)
