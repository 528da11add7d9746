"""The documents of an index that is damaged elsewhere: texts are stored as such, and need no other file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankpipe.data import Doc
from rankpipe.disk import damage
from rankpipe.errors import ArtefactError, RankpipeError
from rankpipe.manifest import Manifest
from rankpipe.retrieve.docs import parsed
from rankpipe.retrieve.passages import joined
from rankpipe.retrieve.segment import DEAD
from rankpipe.store import TEXTS, read_manifest


def rescued(folder: Path, error: RankpipeError) -> Iterator[Doc]:
    """All documents that are alive, as :meth:`Living.documents` has them, of an index that cannot be opened, be it
    damaged or of an earlier format.

    :param error: why it cannot be; raised again if there is nothing to be had.
    :raises ArtefactError: If the manifest is damaged, or one of the files that have the texts or say which are alive;
        if there are none, as in Lucene's indexes, which keep texts among the rest; at the end, if there were fewer or
        more documents than the manifest says.
    """
    try:
        manifest = read_manifest(folder)
    except ArtefactError:
        raise error from None
    if not (segments := sorted(path.parent for path in manifest.paths if path.name == TEXTS)):
        raise error
    if faults := damaged_texts(manifest):
        raise ArtefactError(f"{folder}: its documents are damaged: {'; '.join(faults)}; bring back a copy") from error
    kept = (doc for segment in segments for doc in _living(segment))
    return _all_of(folder, joined(kept) if manifest.recipe.get("passages") else kept, manifest.facts["documents"])


def damaged_texts(manifest: Manifest) -> list[str]:
    """What is wrong with the files of an index that have its texts, or say which are alive; all of them are read."""
    needed = {path: known for path, known in manifest.paths.items() if path.name in (TEXTS, DEAD)}
    return [fault for path, known in needed.items() if (fault := damage(path, *known, True))]


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
