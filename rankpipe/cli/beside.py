"""What lies beside a run: hidden while it is being made, so that a killed one goes on; with a ledger, for good."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankpipe import disk, journal
from rankpipe.cli import show
from rankpipe.data import Ranking
from rankpipe.errors import ArtefactError, CommandError, DataError, DiskError, ModelError
from rankpipe.journal import Source
from rankpipe.stage import Reranker

OTHERS = {".csv", ".tsv", ".json", ".parquet"}  # what no run is
RUN = "run"  # what says, among the answers, how they were asked for
SQLITE = ("", "-wal", "-shm")  # a file of SQLite's, and what it may have beside it


class Work:
    """What is kept while a run is being made.

    :raises DiskError: If the run could not be written in the end.
    """

    def __init__(self, out: Path) -> None:
        writable(out)
        self.out = out
        self.answers = out.with_name(f".{out.name}.answers.sqlite")  # of a language model
        self.rankings = out.with_name(f".{out.name}.kept.jsonl")  # of any other
        self.windows = out.with_name(f".{out.name}.ledger")

    def keeping(self, node: dict[str, Any]) -> dict[str, Any]:
        """The same reranker, the answers of its language model kept."""
        return {**node, "lm": {"use": "cache", "lm": node["lm"], "path": str(self.answers)}}

    def kept(self, reranker: Reranker, identity: str, *, ledger: bool) -> journal.Kept:
        """The same reranker, what it gives kept.

        :param ledger: whether what was given without its windows is asked for again.
        """
        from rankpipe.rerank.ledger import noted

        kept = journal.Kept(reranker, self.rankings, f"{identity} ledger" if ledger else identity)
        if ledger:
            kept.only(noted(self.windows))  # another run may have begun a draft of its own meanwhile
        return kept

    def answered(self, node: dict[str, Any], source: Source, lm: Any) -> None:
        """The run is written; its windows stay, and the answers: all that :func:`replayed` needs.

        :param source: what was reranked.
        :param lm: what ``keeping`` made of the node's; it answers no more.
        """
        from rankpipe.lm.book import Row
        from rankpipe.lm.cache import Cached

        told = {"node": node, "identity": lm.identity, "source": asdict(source)}
        lm.book.write([Row(RUN, "", RUN, told)], again=True)
        while isinstance(lm, Cached):
            lm.book.close()
            lm = lm.lm  # one inside may have this very run's answers open
        self._ledgered()  # first: the answers would give it again
        with disk.disk_errors(self.out):
            _remove(answers(self.out))
            os.replace(self.answers, answers(self.out))
            scores(self.out).unlink(missing_ok=True)
            self._clear()

    def scored(self, source: Source, took: Sequence[Ranking], gave: Sequence[Ranking]) -> None:
        """The run is written; its windows stay, and of a reranker without a language model what it gave."""
        journal.note(scores(self.out), source, took, gave)
        self._ledgered()
        with disk.disk_errors(self.out):
            _remove(answers(self.out))
            self._clear()

    def _ledgered(self) -> None:
        from rankpipe.rerank.ledger import publish

        publish(self.windows, ledger(self.out))
        show.remark(f"to make it again without the model: --replay {self.out}")

    def done(self) -> None:
        """The run is written, and nothing stays beside it."""
        for path in (answers(self.out), scores(self.out), ledger(self.out)):
            if path.exists():
                show.warn(f"{path}: of the run that was here before")
        self._clear()

    def _clear(self) -> None:
        _remove(self.answers)
        for path in (self.rankings, self.windows):
            path.unlink(missing_ok=True)


def writable(out: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    :raises DiskError: If it is a folder, or is to lie where nothing can be written.
    :raises CommandError: If its name is that of another format.
    """
    if out is None:
        return
    if out.suffix in OTHERS:
        raise CommandError([f"--out {out}: a run is no {out.suffix}; name it .trec, or .jsonl to have texts in it"])
    if out.is_dir():
        raise DiskError(f"{out}: a folder; name a file in it")
    disk.writable(out)


def ledger(out: Path) -> Path:
    """Where the windows of a run are."""
    return out.with_name(f"{out.name}.ledger.jsonl")


def answers(out: Path) -> Path:
    """Where its model's answers are."""
    return out.with_name(f"{out.name}.answers.sqlite")


def scores(out: Path) -> Path:
    """Where the scores are that a reranker without a language model gave."""
    return out.with_name(f"{out.name}.scores.jsonl")


def replayed(run: Path) -> dict[str, Any]:
    """The reranker that makes a run again from the answers or scores beside it. Its model need not be here, nor what
    runs it.

    :raises ArtefactError: If there are none.
    :raises DataError: If there is no such run.
    """
    if scores(run).exists():
        return {"use": "rankpipe.journal:Replayed", "path": str(scores(run))}
    if not (told := _told(run)):
        raise ArtefactError(f"{run}: no answers were kept of it, to make it again from. {_why(run)}")
    absent = {"use": "rankpipe.lm.cache:Absent", "identity": told["identity"]}
    return {**told["node"], "lm": {"use": "cache", "lm": absent, "path": str(answers(run)), "offline": True}}


@contextmanager
def replaying(run: Path, source: Callable[[], Source]) -> Iterator[None]:
    """Inside, a run is made again; an error says so if it was made from something else than is given.

    :param source: says what is given.
    :raises DataError: If it was.
    """
    try:
        yield
    except (DataError, ModelError) as error:
        was, given = journal.noted(scores(run)), source()
        if was is None and (told := _told(run).get("source")):
            was = Source(**told)
        if was is None or was.checksum == given.checksum:
            raise
        raise DataError(f"{run} was made from {was}, but {given} is given; give it the same") from error


def windows(run: Path) -> Path:
    """Where the windows of a run are.

    :raises DataError: If there are none, or no such run.
    """
    if not ledger(run).exists():
        raise DataError(f"{run}: no windows were kept of it. {_why(run)}")
    return ledger(run)


def _told(run: Path) -> dict[str, Any]:
    """How a run was asked for, by the answers beside it; {} if there are none."""
    from rankpipe.lm.book import Book

    path = answers(run)
    return dict(Book(path, read_only=True).read([RUN]).get(RUN, {})) if path.exists() else {}


def _why(run: Path) -> str:
    """Why nothing lies beside a run, and what to do.

    :raises DataError: If there is no such run.
    """
    from rankpipe.catalog import CATALOG, find

    if not run.exists():
        raise DataError(f"{run}: no such file")
    found = {name: find(name) for name, entry in CATALOG.items() if entry.target.startswith("rankpipe.rerank.")}
    silent = [n for n, c in found.items() if isinstance(c, type) and issubclass(c, Reranker) and not c.tells]
    return (
        f"A reranker whose model is shown passages and replies keeps them with: rankpipe rerank --ledger --out {run}. "
        f"Others ({', '.join(silent)}) have none: all that they say of a passage is its score, and that is in the run"
    )


def _remove(path: Path) -> None:
    for ending in SQLITE:
        path.with_name(path.name + ending).unlink(missing_ok=True)
