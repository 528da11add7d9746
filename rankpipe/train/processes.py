"""A training in several processes: ``accelerate launch`` or ``torchrun`` starts the whole command in each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from rankpipe.catalog import need
from rankpipe.disk import lock
from rankpipe.progress import listening


def first() -> bool:
    """Whether this is the process that speaks and writes; the only one is."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"


def load_whole() -> None:
    """Have each process load the weights itself, also where FSDP would hand out those of the first one: what puts a
    head or an adapter on a model looks at them.
    """
    need("accelerate.utils", name="training", extra="train").disable_fsdp_ram_efficient_loading()


def one_training(folder: Path) -> AbstractContextManager[None]:
    """Inside, no other training makes anything in this folder.

    :raises Busy: If one does.
    """
    return lock(folder) if first() else nullcontext()


@contextmanager
def one_voice() -> Iterator[None]:
    """Inside, only the first process tells how it stands."""
    with nullcontext() if first() else listening(None):
        yield
