"""What lies beside a run: hidden while it is being made, so that a killed one goes on; with a ledger, for good."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from rankpipe import disk
from rankpipe.cli import show
from rankpipe.errors import ArtefactError, DiskError

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

    def keeping(self, node: dict[str, Any]) -> dict[str, Any]:
        """The same reranker, the answers of its language model kept."""
        return {**node, "lm": {"use": "cache", "lm": node["lm"], "path": str(self.answers)}}

    def publish(self, node: dict[str, Any], lm: Any) -> None:
        """The run is written, and the answers stay: all that :func:`replayed` needs.

        :param lm: what ``keeping`` made of the node's; it answers no more.
        """
        from rankpipe.lm.book import Row
        from rankpipe.lm.cache import Cached

        lm.book.write([Row(RUN, "", RUN, {"node": node, "identity": lm.identity})], again=True)
        while isinstance(lm, Cached):
            lm.book.close()
            lm = lm.lm  # one inside may have this very run's answers open
        with disk.disk_errors(self.out):
            _remove(answers(self.out))
            os.replace(self.answers, answers(self.out))
        show.remark(f"to make it again without the model: --replay {self.out}")

    def done(self, ledgered: bool) -> None:
        """The run is written, and no answers stay.

        :param ledgered: whether its windows do.
        """
        for path in (answers(self.out), ledger(self.out))[: 1 if ledgered else 2]:
            if path.exists():
                show.warn(f"{path}: of the run that was here before")
        _remove(self.answers)
        self.rankings.unlink(missing_ok=True)


def writable(out: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    :raises DiskError: If it is a folder, or is to lie where nothing can be written.
    """
    if out is None:
        return
    if out.is_dir():
        raise DiskError(f"{out}: a folder; name a file in it")
    with disk.disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out.parent):
            pass


def ledger(out: Path) -> Path:
    """Where the windows of a run are."""
    return out.with_name(f"{out.name}.ledger.jsonl")


def answers(out: Path) -> Path:
    """Where its model's answers are."""
    return out.with_name(f"{out.name}.answers.sqlite")


def replayed(run: Path) -> dict[str, Any]:
    """The reranker that makes a run again from the answers beside it. Its model need not be here, nor what runs it.

    :raises ArtefactError: If there are none.
    """
    from rankpipe.lm.book import Book

    path = answers(run)
    told = Book(path, read_only=True).read([RUN]) if path.exists() else {}
    if not told:
        raise ArtefactError(f"{path}: no answers of a run; make it again with: rankpipe rerank --ledger --out {run}")
    absent = {"use": "rankpipe.lm.cache:Absent", "identity": told[RUN]["identity"]}
    return {**told[RUN]["node"], "lm": {"use": "cache", "lm": absent, "path": str(path), "offline": True}}


def _remove(path: Path) -> None:
    for ending in SQLITE:
        path.with_name(path.name + ending).unlink(missing_ok=True)
