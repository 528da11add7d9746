"""kill -9 at 200 random moments of random changes: the index opens to the state before the batch or after it."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankpipe.data import Doc, Query
from rankpipe.datasets import Dataset
from rankpipe.retrieve import living
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.living import Living

KILLS = 200
WORDS = ["fox", "dog", "sleeps", "runs", "over", "lazy", "quick", "brown", "hedge", "zebra"]
State = dict[str, str]  # id: text


def changes(chance: random.Random, state: State, index: Living) -> Iterator[State]:
    """Random changes for ever: what will be is given before it is done, and what is, after it."""
    while True:
        some = {f"d{chance.randrange(60)}": " ".join(chance.choices(WORDS, k=30)) for _ in range(chance.randint(1, 20))}
        kind = chance.choice(["add", "update", "delete", "compact", "build"])
        if kind == "add":
            some = {i: t for i, t in some.items() if i not in state}
        after = {i: t for i, t in state.items() if i not in some} if kind == "delete" else state | some
        if kind == "compact" or not some or not after:
            kind, after = "compact", state
        yield after
        docs = [Doc(i, t) for i, t in (after if kind == "build" else some).items()]
        if kind == "build":
            type(index).build(Dataset.of(docs), index.folder)  # type: ignore[attr-defined]
        elif kind == "compact":
            index.compact()
        elif kind == "delete":
            index.delete(some)
        else:
            (index.add if kind == "add" else index.update)(docs)
        state = after
        yield state


def killed(state: State, index: Living, seed: int) -> list[State]:
    """The states in which the index may be after a process was killed that changed it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        for said in changes(random.Random(seed), state, index):
            os.write(write, json.dumps(said).encode() + b"\n")
    os.close(write)
    with os.fdopen(read, "rb") as told:
        first = told.readline()
        time.sleep(random.Random(seed).uniform(0, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines = (first + told.read()).split(b"\n")[:-1]
    states = [state, *map(json.loads, lines)]
    done = states[(len(states) - 1) // 2 * 2]  # before, (what will be, what is)...
    return [done, states[-1]]


@pytest.mark.slow
def test_before_or_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    state: State = {"d0": "the first fox"}
    index = BM25.build(Dataset.of([Doc(i, t) for i, t in state.items()]), tmp_path / "index")
    amidst = 0
    for seed in range(KILLS):
        may = killed(state, index, seed)
        index = BM25(tmp_path / "index")
        state = {d.id: d.text for d in index.documents()}
        assert state in may
        amidst += may[0] != may[1]
        if seed % 10 == 0:
            fresh = BM25.build(Dataset.of([Doc(i, t) for i, t in state.items()]), tmp_path / "fresh")
            [a], [b] = (one.run([Query("q", "quick zebra")]) for one in (index, fresh))
            assert [(h.doc.id, h.score) for h in a.hits] == [(h.doc.id, h.score) for h in b.hits]
            index.compact()
            assert [p.name for p in (tmp_path / "index" / "made").iterdir()] == [index.manifest.build]
    assert amidst > KILLS / 3  # the others were compacting
