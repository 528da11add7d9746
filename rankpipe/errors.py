"""Everything rankpipe raises on purpose.

RankpipeError            1
├── CommandError         2  the command line asks for what cannot be; lists every fault
├── RecipeError          3  a recipe cannot be built; lists every fault, each with its place
├── DataError            4  a file or record is not what it should be; says where and what was expected
├── MissingExtra         5  a component needs a package that is not installed; says the one command
├── MissingWeights       5  a model's files are not here and cannot be fetched; says how to get them
├── ArtefactError        6  an index or result is absent, damaged, stale or foreign; says the cure
│   └── Busy            11  another process is writing there; try again when it is done
├── ModelError           7  a language model could not do what was asked
├── DiskError            8  a file could not be written; nothing was changed
└── ClusterError         9  machines that were to do the work cannot be reached, or cannot do it

The numbers are the exit codes of the command line. 10 is a regression found by ``compare``, 130 an interruption by the
user.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self


class RankpipeError(Exception):
    """Base of all errors raised on purpose; catch this to catch them all."""

    exit_code: ClassVar[int] = 1


class _Faulty(RankpipeError):
    """One that is made of its faults, in another process, too."""

    faults: list[str]

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.faults,)


class CommandError(_Faulty):
    """The command line is wrong. ``faults`` holds every fault."""

    exit_code = 2

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(_listed(self.faults, "in the command line") if len(self.faults) > 1 else self.faults[0])


class RecipeError(_Faulty):
    """A recipe cannot be built. ``faults`` holds every fault, each with its place; ``where`` is the recipe."""

    exit_code = 3

    def __init__(self, faults: Sequence[str], where: str = "the recipe") -> None:
        self.faults, self.where = list(faults), where
        super().__init__(_listed(self.faults, f"in {where}"))

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.faults, self.where)


class DataError(RankpipeError):
    """A file or record is not what it should be."""

    exit_code = 4


class MissingExtra(RankpipeError):
    """A component needs a package that is not installed."""

    exit_code = 5

    @classmethod
    def of(cls, name: str, module: str, extra: str) -> Self:
        """Of a component that needs this module, which the extra brings."""
        return cls(f"{name} needs {module!r}, which is not installed: pip install 'rankpipe[{extra}]'")


class MissingWeights(RankpipeError):
    """A model's files are not here and cannot be fetched."""

    exit_code = 5


class ArtefactError(RankpipeError):
    """An index or result is absent, damaged, stale or foreign."""

    exit_code = 6


class Busy(ArtefactError):
    """Another process is writing there."""

    exit_code = 11


class ModelError(RankpipeError):
    """A language model could not do what was asked."""

    exit_code = 7


class DiskError(RankpipeError):
    """A file could not be written. What was there before is still there."""

    exit_code = 8


class ClusterError(RankpipeError):
    """Machines that were to do the work cannot be reached, or cannot do it."""

    exit_code = 9


class Fault(str):
    """What is wrong with a recipe, where it is no error of the recipe's own."""

    kind: type[RankpipeError]

    def __new__(cls, said: str, kind: type[RankpipeError]) -> Self:
        """Of the kind of that error."""
        made = super().__new__(cls, said)
        made.kind = kind
        return made


def several(count: int, one: str, more: str = "") -> str:
    """``1 query``, ``2 queries``."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def placed(place: str, faults: Iterable[str]) -> list[str]:
    """The faults, each with its place."""
    said = ((f"{place}: {fault}", fault) for fault in faults)
    return [Fault(text, fault.kind) if isinstance(fault, Fault) else text for text, fault in said]


def refuse(faults: Sequence[str], where: str = "the recipe") -> None:
    """Refuse a recipe that has faults.

    :param where: it is.
    :raises RankpipeError: Of the kind that they are, if it is one kind: MissingExtra, ...
    :raises RecipeError: If they are the recipe's own, or of several kinds.
    """
    kinds = {fault.kind if isinstance(fault, Fault) else RecipeError for fault in faults}
    if len(kinds) == 1 and (kind := kinds.pop()) is not RecipeError:
        raise kind("\n".join(faults))
    if faults:
        raise RecipeError(faults, where)


def _listed(faults: Sequence[str], where: str) -> str:
    some = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{some} {where}:\n" + "\n".join(f"  - {fault}" for fault in faults)


def faults_of(place: str, call: Callable[[], Any]) -> list[str]:
    """What a call finds wrong, each fault with its place.

    :raises MissingExtra: If the call does.
    """
    try:
        call()
    except RecipeError as error:
        return placed(place, error.faults) if place else list(error.faults)
    except MissingExtra:
        raise
    except RankpipeError as error:
        return [f"{place}: {error}" if place else str(error)]
    return []
