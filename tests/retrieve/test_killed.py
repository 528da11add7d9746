"""kill -9 at 200 random moments of random changes: the index opens to the state before the batch or after it."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.retrieve import approximate, embedded, late, living
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.sparse import SparseIndex

KILLS = 200
DRAWN, VARIED, DIRECTIONS = ("tests.retrieve." + name for name in ("fakes:Drawn", "models:Varied", "models:Directions"))
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # how built, and how otherwise to be exact
    "bm25": (BM25, {}, {}),
    "dense": (Dense, {"model": DRAWN}, {}),
    "hnsw": (Dense, {"model": DRAWN, "factory": "HNSW8"}, {"factory": "exact"}),
    "ivf": (Dense, {"model": DRAWN, "factory": "IVF2,Flat"}, {"factory": "exact"}),
    "sparse": (SparseIndex, {"model": VARIED}, {}),
    "colbert": (ColBERT, {"model": DIRECTIONS, "bits": 16}, {}),
    "colbert, compressed": (ColBERT, {"model": DIRECTIONS, "bits": 4}, {"bits": 16}),
}
CHANGES = ["add", "update", "delete", "compact", "build"]
WORDS = ["fox", "dog", "sleeps", "runs", "over", "lazy", "quick", "brown", "hedge", "zebra"]
State = dict[str, str]  # id: text


class Build(Protocol):
    """Makes an index of documents."""

    def __call__(self, data: Dataset, folder: Path, /) -> Living: ...


def changes(chance: random.Random, state: State, index: Living, build: Build) -> Iterator[tuple[str, State]]:
    """Random changes for ever: which it is and what will be is given before it is done, and what is, after it."""
    while True:
        some = {f"d{chance.randrange(60)}": " ".join(chance.choices(WORDS, k=30)) for _ in range(chance.randint(1, 20))}
        kind = chance.choice(CHANGES)
        if kind == "add":
            some = {i: t for i, t in some.items() if i not in state}
        after = {i: t for i, t in state.items() if i not in some} if kind == "delete" else state | some
        if kind == "compact" or not some or not after:
            kind, after = "compact", state
        yield kind, after
        docs = [Doc(i, t) for i, t in (after if kind == "build" else some).items()]
        if kind == "build":
            build(Dataset.of(docs), index.folder)
        elif kind == "compact":
            index.compact()
        elif kind == "delete":
            index.delete(some)
        else:
            (index.add if kind == "add" else index.update)(docs)
        state = after
        yield "", state


def killed(state: State, index: Living, build: Build, seed: int, most: float) -> tuple[str, list[State]]:
    """Amid which change a process was killed that changed the index (or none), and in which states it may be now.

    :param most: seconds that it lives, at most.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        for said in changes(random.Random(seed), state, index, build):
            os.write(write, json.dumps(said).encode() + b"\n")
    os.close(write)
    with os.fdopen(read, "rb") as told:
        first = told.readline()
        time.sleep(random.Random(seed).uniform(0, most))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines = (first + told.read()).split(b"\n")[:-1]
    states = [("", state), *map(json.loads, lines)]
    done = states[(len(states) - 1) // 2 * 2]  # before, (what will be, what is)...
    return states[-1][0], [done[1], states[-1][1]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_before_or_after(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    monkeypatch.setattr(embedded, "LEAST", 8)  # so that FAISS and centroids have part in most changes
    monkeypatch.setattr(late, "LEAST", 200)
    monkeypatch.setattr(approximate, "cores", lambda: 1)  # a child has none of its parent's threads
    opened, arguments, exactly = KINDS[kind]
    build: Build = partial(opened.build, **arguments)
    exact: Build = partial(opened.build, **{**arguments, **exactly})
    state: State = {f"d{i}": WORDS[i % 10] for i in range(20)}
    index = build(Dataset.of([Doc(i, t) for i, t in state.items()]), tmp_path / "index")
    took = []
    for _ in range(5):
        began = time.monotonic()
        index.update([Doc("d0", state["d0"])])
        took.append(time.monotonic() - began)
    most = 3 * min(took)  # so that some changes are done, and others are not
    amidst, learned = Counter[str](), 0
    for seed in range(KILLS):
        change, may = killed(state, index, build, seed, most)
        index = opened(tmp_path / "index")
        state = {d.id: d.text for d in index.documents()}
        assert state in may
        amidst[change] += 1
        learned += any(file.name in ("faiss.index", "codec.npz") for file in index.manifest.paths)
        if seed % 10 == 0:
            fresh = exact(Dataset.of([Doc(i, t) for i, t in state.items()]), tmp_path / "fresh")
            a, b = ({h.doc.id: h.score for h in one.search("quick zebra").hits} for one in (index, fresh))
            if exactly:  # FAISS finds fewer, with their exact scores; compressed vectors have other ones
                assert len(a) > len(b) / 3
                assert a == pytest.approx({i: b[i] for i in a}, abs=0.3 if "bits" in exactly else 0)
            else:
                assert [*a.items()] == [*b.items()]
            index.compact()
            assert [p.name for p in (tmp_path / "index" / "made").iterdir()] == [index.manifest.build]
    assert min(amidst[change] for change in CHANGES) > KILLS // 40, amidst
    assert learned > KILLS / 2 if exactly else not learned, learned
