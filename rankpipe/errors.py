"""Everything rankpipe raises on purpose.

RankpipeError            1
├── RecipeError          3  a recipe cannot be built; lists every fault, each with its place
├── DataError            4  a file or record is not what it should be; says where and what was expected
├── MissingExtra         5  a component needs a package that is not installed; says the one command
├── MissingWeights       5  a model's files are not here and cannot be fetched; says how to get them
├── ArtefactError        6  an index or result is absent, damaged, stale or foreign; says the cure
├── ModelError           7  a language model could not do what was asked
├── DiskError            8  a file could not be written; nothing was changed
└── ClusterError         9  machines that were to do the work cannot be reached, or cannot do it

The numbers are the exit codes of the command line. 2 is a wrong command line, 10 a regression found by ``compare``,
130 an interruption by the user.
"""

from collections.abc import Sequence
from typing import ClassVar


class RankpipeError(Exception):
    """Base of all errors raised on purpose; catch this to catch them all."""

    exit_code: ClassVar[int] = 1


class RecipeError(RankpipeError):
    """A recipe cannot be built. ``faults`` holds every fault, each with its place."""

    exit_code = 3

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        some = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{some} in the recipe:\n" + "\n".join(f"  - {f}" for f in self.faults))


class DataError(RankpipeError):
    """A file or record is not what it should be."""

    exit_code = 4


class MissingExtra(RankpipeError):
    """A component needs a package that is not installed."""

    exit_code = 5

    def __init__(self, name: str, module: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{name} needs {module!r}, which is not installed: pip install 'rankpipe[{extra}]'")


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
