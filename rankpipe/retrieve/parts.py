"""Segments being written: each in a folder of its own in a draft of the index, numbered as they come."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankpipe.errors import ArtefactError
from rankpipe.retrieve.docs import write_docs
from rankpipe.store import Draft, damages, read_manifest

if TYPE_CHECKING:
    from rankpipe.retrieve.living import Segment


@dataclass
class Part(Draft):
    """A segment being written.

    :param home: the folder of the index.
    :param first: whether a build makes it; otherwise it comes to others, or takes their place.
    :param known: what :meth:`older` gives, if that is known.
    """

    home: Path = Path()
    first: bool = False
    known: Sequence[Path] | None = None

    def older(self) -> Sequence[Path]:
        """Folders of segments whose work may serve again: the others of the index; for a first one, those of the index
        that the build will replace, unless a byte of it is wrong.
        """
        if self.known is not None:
            return self.known
        if not self.first:
            return [f for f in folders(self.folder.parent) if f != self.folder]
        try:
            replaced = read_manifest(self.home)
        except ArtefactError:
            return []
        return [] if damages(replaced) else folders(replaced.path)


@contextmanager
def new_part(draft: Draft, home: Path, *, first: bool = False, resume: bool = False) -> Iterator[Part]:
    """A new segment in a draft; its facts are kept in it."""
    numbers = [int(f.name) for f in folders(draft.folder)]
    folder = draft.folder / f"{0 if resume else max(numbers, default=-1) + 1:06}"
    folder.mkdir(exist_ok=resume)
    made = Part(folder, home=home, first=first)
    yield made
    (folder / "facts.json").write_text(json.dumps(made.facts))


def folders(index: Path) -> list[Path]:
    """Of the segments of an index, or of a draft of it, in the order in which they came."""
    return sorted(f for f in index.iterdir() if f.is_dir())


def moved(segments: Sequence[Segment], draft: Draft) -> list[NDArray[np.int64]]:
    """Keep the documents that are alive in several; of each segment's documents the new places, -1 where it is dead."""
    deque(write_docs((s.docs[place] for s in segments for place in s.living.tolist()), draft), maxlen=0)
    places, start = [], 0
    for s in segments:
        place = np.full(len(s.docs), -1, np.int64)
        place[s.living] = np.arange(start, start + len(s))
        places.append(place)
        start += len(s)
    return places
