"""A reranker's work, kept query by query: an interrupted run goes on where it stopped, a repeated one costs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rankpipe import lines
from rankpipe.data import Hit, Ranking, Step
from rankpipe.errors import DataError
from rankpipe.progress import counting
from rankpipe.stage import Reranker

FIELDS = ("key", "hits", "steps")  # of a result


@dataclass(frozen=True, slots=True)
class Totals:
    """Rankings that were there, and those that had to be made."""

    known: int = 0
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Rankings that were given to a stage, from a file."""

    name: str
    checksum: str  # of each query and its hits with their texts, in their order

    @classmethod
    def of(cls, path: Path, rankings: Sequence[Ranking]) -> Source:
        """Those of a file."""
        keys = sorted(_key("", r) for r in rankings)
        return cls(str(path), hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12])

    def __str__(self) -> str:
        return f"{self.name} (checksum {self.checksum})"


class Kept(Reranker):
    """Does what ``inner`` does, but asks it only about rankings it has not seen before.

    What decides is content: the identity of the stage (its recipe and weights), the question, the documents in their
    order, and where the stage reads them (``reads_scores``) their scores. Each result is one line of a JSONL file; a
    line that a killed process left unfinished is dropped.

    :param identity: everything that decides what ``inner`` gives for a ranking.
    :param aside: leave the file alone, which another process writes; it has :meth:`taken` to write.
    """

    def __init__(self, inner: Reranker, path: Path, identity: str, *, aside: bool = False) -> None:
        self.inner, self.path, self.identity, self.aside = inner, path, identity, aside
        self._fresh: list[dict[str, Any]] = []
        if not aside:
            lines.mend(path)
        self.known = _load(path, "delete the file to do its work again")
        self.totals, self.counts = Totals(), inner.counts

    @property
    def name(self) -> str:
        """The inner stage's."""
        return self.inner.name

    @property
    def begun(self) -> bool:
        """Whether any result is known."""
        return bool(self.known)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Ask for what is missing, a few queries at a time, writing each answer down at once."""
        keys = [self.key(r) for r in batch]
        missing = {k: r for k, r in zip(keys, batch, strict=True) if k not in self.known}
        chunks = [list(missing.items())[i : i + self.inner.batch] for i in range(0, len(missing), self.inner.batch)]
        for chunk in chunks:
            made = self.inner.apply([r for _, r in chunk])
            self._append([_row(k, took, gave) for (k, took), gave in zip(chunk, made, strict=True)])
        known, asked = self.totals.known + len(batch) - len(missing), self.totals.asked + len(missing)
        self.totals = Totals(known, asked)
        return [_restore(self.known[k], r) for k, r in zip(keys, batch, strict=True)]

    def apply(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """As ``run``: the steps say what the work cost when it was done, not what looking it up costs."""
        with counting(f"{self.name}: {self.counts}", sum(map(self.work, batch))):
            return self.run(batch)

    def work(self, ranking: Ranking) -> int:
        """None for a ranking that is known."""
        return 0 if self.key(ranking) in self.known else self.inner.work(ranking)

    def refuse(self, ranking: Ranking) -> None:
        """As the inner stage does, what is not known."""
        if self.key(ranking) not in self.known:
            self.inner.refuse(ranking)

    def key(self, ranking: Ranking) -> str:
        """What its result is known by."""
        return _key(self.identity, ranking, [h.score for h in ranking.hits] if self.inner.reads_scores else [])

    def only(self, keys: Container[str]) -> None:
        """Forget the results of all other keys, for good: they are made again."""
        self.known = {key: row for key, row in self.known.items() if key in keys}
        if self.known:
            lines.write(self.path, self.known.values())
        else:
            self.path.unlink(missing_ok=True)

    def taken(self) -> list[dict[str, Any]]:
        """The rows that have come since the last call, and were not written."""
        rows, self._fresh = self._fresh, []
        return rows

    def _append(self, rows: list[dict[str, Any]]) -> None:
        if self.aside:
            self._fresh += rows
        else:
            lines.append(self.path, rows)
        self.known |= {row["key"]: row for row in rows}


class Replayed(Reranker):
    """Gives again what a stage gave, whatever that was.

    :param path: what :func:`note` wrote.
    """

    opens = True

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, _load(path, "rerank again with --ledger")

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Look it up.

        :raises DataError: If the stage was not given these hits for this query.
        """
        keys = [_key("", r) for r in batch]
        if other := [r.query.id for k, r in zip(keys, batch, strict=True) if k not in self.known]:
            raise DataError(f"{self.path}: nothing of query {other[0]!r} with these hits; rerank what it was made from")
        return [_restore(self.known[k], r) for k, r in zip(keys, batch, strict=True)]

    def apply(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """As ``run``: the steps say what the work cost when it was done."""
        return self.run(batch)


def note(path: Path, source: Source, took: Sequence[Ranking], gave: Sequence[Ranking]) -> None:
    """Write down what a stage gave for what it took, for :class:`Replayed`. The file is this one run's: its keys have
    no identity of the stage.
    """
    lines.write(path, [asdict(source), *(_row(_key("", t), t, g) for t, g in zip(took, gave, strict=True))])


def noted(path: Path) -> Source | None:
    """What the rankings were of which a file has what a stage gave; None if it does not say."""
    return next((Source(**row) for row in _rows(path, "") if "checksum" in row), None)


def _key(identity: str, ranking: Ranking, scores: Sequence[float] = ()) -> str:
    told = [identity, ranking.query.id, ranking.query.text]
    told += [part for h in ranking.hits for part in (h.doc.id, h.doc.contents)]
    return hashlib.sha256(json.dumps([*told, *scores]).encode()).hexdigest()[:24]


def _row(key: str, took: Ranking, gave: Ranking) -> dict[str, Any]:
    place = {h.doc.id: i for i, h in enumerate(took.hits)}
    hits = [[place[h.doc.id], h.score] for h in gave.hits]
    return {"key": key, "hits": hits, "steps": [asdict(s) for s in gave.steps[len(took.steps) :]]}


def _restore(row: dict[str, Any], took: Ranking) -> Ranking:
    hits = tuple(Hit(took.hits[i].doc, score) for i, score in row["hits"])
    return replace(took, hits=hits, steps=(*took.steps, *(Step(**s) for s in row["steps"])))


def _load(path: Path, cure: str) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in _rows(path, cure) if "key" in row}


def _rows(path: Path, cure: str) -> list[dict[str, Any]]:
    return lines.read(path, FIELDS, cure, [f.name for f in fields(Source)])
