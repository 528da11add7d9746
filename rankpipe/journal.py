"""A reranker's work, kept query by query: an interrupted run goes on where it stopped, a repeated one costs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rankpipe import lines
from rankpipe.data import Hit, Ranking, Step
from rankpipe.progress import track
from rankpipe.stage import Reranker


class Kept(Reranker):
    """Does what ``inner`` does, but asks it only about rankings it has not seen before.

    What decides is content: the identity of the stage (its recipe and weights), the question, and the documents in
    their order. Each result is one line of a JSONL file; a line that a killed process left unfinished is dropped.

    :param identity: everything that decides what ``inner`` gives for a ranking.
    """

    def __init__(self, inner: Reranker, path: Path, identity: str) -> None:
        self.inner, self.path, self.identity = inner, path, identity
        self.known = _load(path)
        self.fresh = 0  # rankings that had to be made

    @property
    def name(self) -> str:
        """The inner stage's."""
        return self.inner.name

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Ask for what is missing, a few queries at a time, writing each answer down at once."""
        keys = [self._key(r) for r in batch]
        missing = {k: r for k, r in zip(keys, batch, strict=True) if k not in self.known}
        chunks = [list(missing.items())[i : i + self.inner.batch] for i in range(0, len(missing), self.inner.batch)]
        for chunk in track(chunks, f"{self.name}, {self.inner.batch} queries at a time") if chunks else ():
            made = self.inner.apply([r for _, r in chunk])
            self._append([_row(k, took, gave) for (k, took), gave in zip(chunk, made, strict=True)])
        self.fresh += len(missing)
        return [_restore(self.known[k], r) for k, r in zip(keys, batch, strict=True)]

    def apply(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """As ``run``: the steps say what the work cost when it was done, not what looking it up costs."""
        return self.run(batch)

    def _key(self, ranking: Ranking) -> str:
        told = [self.identity, ranking.query.id, ranking.query.text]
        told += [part for h in ranking.hits for part in (h.doc.id, h.doc.contents)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]

    def _append(self, rows: list[dict[str, Any]]) -> None:
        lines.append(self.path, rows)
        self.known |= {row["key"]: row for row in rows}

    def knows(self, ranking: Ranking) -> bool:
        """Whether its result is there."""
        return self._key(ranking) in self.known


def _row(key: str, took: Ranking, gave: Ranking) -> dict[str, Any]:
    place = {h.doc.id: i for i, h in enumerate(took.hits)}
    hits = [[place[h.doc.id], h.score] for h in gave.hits]
    return {"key": key, "hits": hits, "steps": [asdict(s) for s in gave.steps[len(took.steps) :]]}


def _restore(row: dict[str, Any], took: Ranking) -> Ranking:
    hits = tuple(Hit(took.hits[i].doc, score) for i, score in row["hits"])
    return replace(took, hits=hits, steps=(*took.steps, *(Step(**s) for s in row["steps"])))


def _load(path: Path) -> dict[str, dict[str, Any]]:
    lines.mend(path)
    return {
        row["key"]: row for row in lines.read(path, ("key", "hits", "steps"), "delete the file to do its work again")
    }
