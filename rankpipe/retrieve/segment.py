"""A segment of an index: files that never change, and beside them which of its documents are dead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.memory import ID, ROW


class Segment:
    """One of an index: its documents and which of them are dead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docs = Docs(folder)
        dead = folder / "dead.npy"
        self.dead: NDArray[np.int32] = np.load(dead) if dead.exists() else np.empty(0, np.int32)  # places, rising
        self.alive: NDArray[np.bool_] | None = None
        if len(self.dead):
            self.alive = np.ones(len(self.docs), bool)
            self.alive[self.dead] = False

    def __len__(self) -> int:
        return len(self.docs) - len(self.dead)

    @property
    def living(self) -> NDArray[np.intp]:
        """Places of the documents that are alive, rising."""
        return np.arange(len(self.docs)) if self.alive is None else np.flatnonzero(self.alive)

    @property
    def held(self) -> int:
        """Bytes that merging it holds, about."""
        return round(len(self) * (ROW + ID * self.docs.ids.size_bytes / len(self.docs)))

    def find(self, ids: Iterable[str]) -> dict[str, int]:
        """Where the documents of these ids are, if they are alive."""
        found = self.docs.find(ids)
        return found if self.alive is None else {i: place for i, place in found.items() if self.alive[place]}
