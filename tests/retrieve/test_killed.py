"""kill -9 at 200 random moments of random changes: the index opens to the state before the batch or after it."""

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from rankpipe import store
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.retrieve import approximate, embedded, late, living
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.index import Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.milvus import Milvus
from rankpipe.retrieve.sparse import SparseIndex
from tests.retrieve.runs import skip_unless_there

KILLS = 200
DRAWN, VARIED, DIRECTIONS = ("tests.retrieve." + name for name in ("fakes:Drawn", "models:Varied", "models:Directions"))
CUT = {"passages": {"max": 12, "overlap": 3}}
BOTH = {"model": DRAWN, "sparse": VARIED}
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # how built, and how otherwise to be exact
    "bm25": (BM25, {}, {}),
    "bm25, passages": (BM25, CUT, {}),
    "dense": (Dense, {"model": DRAWN}, {}),
    "dense, passages, int8": (Dense, {"model": DRAWN, "store": "int8", **CUT}, {}),
    "dense, binary": (Dense, {"model": DRAWN, "store": "binary"}, {}),
    "hnsw": (Dense, {"model": DRAWN, "factory": "HNSW8"}, {"factory": "exact"}),
    "ivf": (Dense, {"model": DRAWN, "factory": "IVF2,Flat"}, {"factory": "exact"}),
    "sparse": (SparseIndex, {"model": VARIED}, {}),
    "sparse, passages": (SparseIndex, {"model": VARIED, **CUT}, {}),
    "colbert": (ColBERT, {"model": DIRECTIONS, "bits": 16}, {}),
    "colbert, compressed": (ColBERT, {"model": DIRECTIONS, "bits": 4}, {"bits": 16}),
    "lucene": (Lucene, {}, {}),
    "lucene, passages": (Lucene, CUT, {}),
    "milvus": (Milvus, BOTH, {}),
    "milvus, passages": (Milvus, {"model": DRAWN, **CUT}, {}),
    "milvus, server": (Milvus, BOTH, {}),
}
ROUNDED = {"lucene": 1e-6, "milvus": 1e-5}  # of scores, relative
CHANGES = ["add", "update", "delete", "compact", "build"]
WORDS = ["fox", "dog", "sleeps", "runs", "over", "lazy", "quick", "brown", "hedge", "zebra"]
WHERE = "foxes > 2 and first in (fox, dog, over, lazy, quick)"
State = dict[str, Doc]  # by id


def doc(name: str, text: str) -> Doc:
    words = text.split()
    return Doc(name, text, fields={"foxes": words.count("fox"), "first": words[0]})


def planned(chance: random.Random, state: State) -> Iterator[tuple[str, list[Doc], State]]:
    """Random changes for ever: which it is, of which documents, and what is there after it."""
    while True:
        ids = {f"d{chance.randrange(60)}" for _ in range(chance.randint(1, 20))}
        some = {i: doc(i, " ".join(chance.choices(WORDS, k=30))) for i in sorted(ids)}
        change = chance.choice(CHANGES)
        if change == "add":
            some = {i: d for i, d in some.items() if i not in state}
        after = {i: d for i, d in state.items() if i not in some} if change == "delete" else state | some
        if change == "compact" or not some or not after:
            change, after = "compact", state
        yield change, [*(after if change == "build" else some).values()], after
        state = after


def changing(told: Connection, kind: str, build: Any, folder: Path, state: State, seed: int) -> None:
    """Change an index for ever; each change is told when it begins, and that it has been done."""
    often()
    index = KINDS[kind][0](folder)
    for change, docs, _ in planned(random.Random(seed), state):
        told.send_bytes(change.encode())
        if change == "build":
            with store.replacing():
                build(Dataset.of(docs), folder)
        elif change == "compact":
            index.compact()
        elif change == "delete":
            index.delete([d.id for d in docs])
        else:
            (index.add if change == "add" else index.update)(docs)
        told.send_bytes(b"done")


def killed(kind: str, build: Any, index: Index, state: State, seed: int, most: float) -> tuple[str, list[State]]:
    """Amid which change a process was killed that changed the index (or "done"), and in which states it may be now.

    :param most: seconds that it lives after its first change began, at most.
    """
    context = multiprocessing.get_context("spawn" if index.kind in ROUNDED else "fork")  # no JVM, no gRPC survives that
    there, told = context.Pipe(duplex=False)
    child = context.Process(target=changing, args=(told, kind, build, index.folder, state, seed))
    child.start()
    told.close()
    heard = [there.recv_bytes()]
    time.sleep(random.Random(seed).uniform(0, most))
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with suppress(EOFError):
        while True:
            heard.append(there.recv_bytes())
    begun = islice(planned(random.Random(seed), state), (len(heard) + 1) // 2)
    states = [state, *(after for _, _, after in begun)]
    return heard[-1].decode(), states[-2:] if len(heard) % 2 else states[-1:]


def often() -> None:
    """So that merges, FAISS and centroids have part in most changes, and builds of BM25 several segments, which they
    merge in the end; a child has none of its parent's threads.
    """
    living.FAN, embedded.LEAST, late.LEAST, approximate.cores = 3, 8, 200, lambda: 1  # type: ignore[misc]
    BM25.portion = 16


def alike(index: Index, fresh: Index, exactly: dict[str, Any]) -> None:
    """Whether it finds what an index does that was built of the documents that are left."""
    for a, b in ((index, fresh), (index.filtered(WHERE), fresh.filtered(WHERE))):
        found, sought = ({h.doc.id: h.score for h in one.search("quick zebra").hits} for one in (a, b))
        if not exactly:
            assert found == (pytest.approx(sought, rel=ROUNDED[index.kind]) if index.kind in ROUNDED else sought)
            assert index.kind in ROUNDED or [*found] == [*sought]
        else:  # FAISS finds fewer, with their exact scores; compressed vectors have other ones
            assert len(found) > len(sought) / 3 or len(sought) < 6
            assert found == pytest.approx(
                {i: sought[i] for i in found if i in sought}, abs=0.3 if "bits" in exactly else 0
            )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_before_or_after(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    opened, arguments, exactly = KINDS[kind]
    skip_unless_there(opened.kind)
    for module, name in (
        (living, "FAN"), (embedded, "LEAST"), (late, "LEAST"), (approximate, "cores"), (BM25, "portion")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(module, name))  # is put back
    often()
    there = {"uri": request.getfixturevalue("uri")} if "server" in kind else {}
    build = partial(opened.build, **arguments, **there)
    exact = partial(opened.build, **{**arguments, **exactly, **there})
    state: State = {f"d{i}": doc(f"d{i}", WORDS[i % 10]) for i in range(20)}
    index = build(Dataset.of([*state.values()]), tmp_path / "index")
    took = []
    for _ in range(5):
        began = time.monotonic()
        index.update([state["d0"]])
        took.append(time.monotonic() - began)
    most = (12 if opened.kind in ROUNDED else 3) * min(took)  # so that some changes are done; a new JVM is slower
    amidst, learned = Counter[str](), 0
    for seed in range(KILLS):
        change, may = killed(kind, build, index, state, seed, most)
        index = opened(tmp_path / "index")
        assert store.damages(index.manifest) == []
        state = {d.id: d for d in index.documents()}
        assert state in may
        amidst[change] += 1
        learned += any(file.name in ("faiss.index", "codec.npz") for file in index.manifest.paths)
        if seed % 10 == 0:
            alike(index, exact(Dataset.of([*state.values()]), tmp_path / "fresh"), exactly)
            index.compact()
            assert [p.name for p in (tmp_path / "index" / "made").iterdir()] == [index.manifest.build]
            if isinstance(index, Milvus) and "passages" not in arguments:  # what the one killed has left is gone
                assert index.collection.count(first=0) == len(state)
    assert min(amidst[change] for change in CHANGES) > KILLS // 40, amidst
    assert learned > KILLS / 2 if exactly else not learned, learned
