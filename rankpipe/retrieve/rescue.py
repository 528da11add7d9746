"""The documents of an index that is damaged elsewhere: texts are stored as such, and need no other file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankpipe import seen
from rankpipe.data import Doc
from rankpipe.errors import ArtefactError
from rankpipe.retrieve.docs import parsed
from rankpipe.retrieve.passages import joined
from rankpipe.store import TEXTS, read_manifest

DEAD = "dead.npy"


def rescued(folder: Path) -> Iterator[Doc]:
    """All documents that are alive, in the order in which they came, of an index that cannot be opened, be it damaged
    or of an earlier format.

    :raises ArtefactError: If the manifest is damaged, or one of the files that have the texts or say which are alive;
        if there are none, as in Lucene's indexes, which keep texts among the rest; at the end, if there were fewer or
        more documents than the manifest says.
    """
    manifest = read_manifest(folder)
    needed = {path: told for path, told in manifest.paths.items() if path.name in (TEXTS, DEAD)}
    if not (segments := sorted(path.parent for path in needed if path.name == TEXTS)):
        raise ArtefactError(f"{folder}: documents of a {manifest.kind!r} can be had of a whole one only")
    if faults := seen.damages(folder, needed, all_of_them=True):
        raise ArtefactError(f"{folder}: its documents are damaged, too: {'; '.join(faults)}")
    kept = (doc for segment in segments for doc in _living(segment))
    return _all_of(folder, joined(kept) if manifest.recipe.get("passages") else kept, manifest.facts["documents"])


def _living(segment: Path) -> Iterator[Doc]:
    dead = {*np.load(segment / DEAD).tolist()} if (segment / DEAD).exists() else set[int]()
    with open(segment / TEXTS, "rb") as lines:
        yield from (parsed(line) for place, line in enumerate(lines) if place not in dead)


def _all_of(folder: Path, docs: Iterator[Doc], expected: int) -> Iterator[Doc]:
    found = 0
    for doc in docs:
        found += 1
        yield doc
    if found != expected:
        raise ArtefactError(f"{folder}: {found} documents were found, and the manifest says {expected}")
