"""On a cluster of two machines, of which workers are killed in the middle of their work: the same bytes at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from rankpipe import __version__, store
from rankpipe.colbert import Read
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset, open_dataset
from rankpipe.engine import Ray
from rankpipe.errors import ClusterError, RecipeError
from rankpipe.measure.experiment import Experiment
from rankpipe.retrieve import shards, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.fuse import Fuse
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.parts import Part
from rankpipe.retrieve.shards import Spread
from rankpipe.stage import Reranker
from rankpipe.trec import write_run
from tests.retrieve.fakes import Drawn
from tests.retrieve.models import Directions

pytest.importorskip("ray", reason="Ray is not installed here: make test-ray")
pytestmark = pytest.mark.slow
OURS = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # the environment of commands
OMENS = "RANKPIPE_TEST_OMENS"  # a folder; workers get settings of this name


def omen(kind: str) -> None:
    """End this process if there is such a file, which that uses up; or wait for somebody to end it."""
    folder = Path(os.environ[OMENS])
    try:
        (folder / kind).rename(folder / f"{kind}.used")
    except FileNotFoundError:
        return
    if kind != "wait":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "waiting").write_text(str(os.getpid()))
    time.sleep(300)


class Mortal(Living):
    """May die in the middle of a segment, and after a search."""

    @classmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:
        def passing() -> Iterator[Doc]:
            for number, doc in enumerate(docs):
                if number == 20:
                    omen("build")
                    omen("wait")
                yield doc

        super().fill(passing(), draft, recipe)  # type: ignore[safe-super]

    def find(self, queries: Sequence[Query], k: int) -> Iterable[Iterable[Sequence[Hit]]]:
        found = [[*hits] for hits in super().find(queries, k)]  # type: ignore[safe-super]
        omen("search")
        return found


class MortalWords(Mortal, BM25):
    """BM25."""


class MortalVectors(Mortal, Dense):
    """Vectors."""


class MortalTokens(Mortal, ColBERT):
    """Token vectors."""


class Dying(Drawn):
    """May die while it encodes."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        omen("encode")
        return super().encode_docs(texts)


class DyingTokens(Directions):
    """The same."""

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        omen("encode")
        return super().docs(texts)


class Deadly(Reranker):
    """Turns rankings round, and may die of it."""

    batch = 4

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        omen("rerank")
        return [r.reordered(range(len(r.hits))[::-1]) for r in batch]


class Hopeless(BM25):
    """Dies at once, always."""

    @classmethod
    def fill(cls, docs: Iterable[Doc], draft: Part, recipe: dict[str, Any]) -> None:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"127.0.0.1:1: no Ray cluster answers \(.*refused"):
        Ray("127.0.0.1:1", timeout_s=5).sees(tmp_path)
    with pytest.raises(ClusterError, match="head:x: no Ray cluster answers"):
        _ = Ray("head:x").workers
    with pytest.raises(RecipeError, match="cpus=0"):
        Ray(cpus=0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    """Two nodes with a core each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(OMENS, str(tmp_path_factory.mktemp("omens")))
        node = {"num_cpus": 1, "object_store_memory": 100 << 20}
        made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            made.add_node(**node)
            yield Ray(made.address, timeout_s=300)
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def omens(cluster: Ray) -> Path:
    folder = Path(os.environ[OMENS])
    for left in folder.iterdir():
        left.unlink()
    return folder


@pytest.fixture(scope="module")
def data(data_root: Path) -> Dataset:
    """Some of SciFact, with all its questions."""
    whole = open_dataset(data_root / "scifact")
    docs = [doc for _, doc in zip(range(400), whole.docs(), strict=False)]
    return Dataset.of(docs, whole.queries[:70])


def ran(rankings: Iterable[Ranking], path: Path) -> bytes:
    write_run(path, list(rankings), tag="t")
    return path.read_bytes()


def killed(folder: Path) -> Thread:
    """Somebody who ends, from outside, the first worker that waits for that."""

    def kill() -> None:
        for _ in range(600):
            if (waiting := folder / "waiting").exists() and (pid := waiting.read_text()):
                os.kill(int(pid), signal.SIGKILL)
                waiting.rename(folder / "was killed")
                return
            time.sleep(0.5)

    thread = Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("kind", "mortal", "told"),
    [
        (BM25, MortalWords, {"use": "bm25"}),
        (Dense, MortalVectors, {"use": "dense", "model": f"{__name__}:Dying"}),
        (ColBERT, MortalTokens, {"use": "colbert", "model": f"{__name__}:DyingTokens"}),
    ],
)
def test_workers_are_killed_while_an_index_is_built_and_searched(
    kind: Any, mortal: Any, told: dict[str, Any], cluster: Ray, omens: Path, data: Dataset, tmp_path: Path
) -> None:
    ends = ["build", "wait", *(["encode"] if "model" in told else [])]
    for end in ends:
        (omens / end).touch()
    outside = killed(omens)
    shards.build(mortal, data, tmp_path / "cut", shelf.full(kind, told), cluster, 64)
    outside.join()
    assert {path.name for path in omens.iterdir()} == {*(f"{end}.used" for end in ends), "was killed"}
    shelf.build(data, tmp_path / "here", told, shard=64)
    made, here = (store.read_manifest(tmp_path / name).files for name in ("cut", "here"))
    timed = {name for name in made if name.endswith("facts.json") and "model" in told}  # has texts a second
    assert {n: f for n, f in made.items() if n not in timed} == {n: f for n, f in here.items() if n not in timed}
    expected = ran(kind(tmp_path / "here", k=100)(data.queries), tmp_path / "run")
    if kind is not ColBERT:  # whose vectors are compressed where a segment has many
        shelf.build(data, tmp_path / "alone", told)
        assert ran(kind(tmp_path / "alone", k=100)(data.queries), tmp_path / "run") == expected
    assert store.damages(store.read_manifest(tmp_path / "cut")) == []
    (omens / "search").touch()
    spread = Spread(mortal(tmp_path / "cut", k=100), cluster)
    assert ran(spread(data.queries), tmp_path / "run") == expected
    assert (omens / "search.used").exists()
    index = kind(tmp_path / "cut", k=100)
    assert ran(index(data.queries), tmp_path / "run") == expected
    texts = [hit.doc.text for r in spread(data.queries[:3]) for hit in r.hits]
    assert texts == [hit.doc.text for r in index.run(data.queries[:3]) for hit in r.hits]


@pytest.mark.parametrize(("model", "alone"), [("minilm", 32), ("bge-small", None)])
def test_a_real_encoder(
    cluster: Ray, data: Dataset, tmp_path: Path, embedded: Callable[[str], Path], model: str, alone: int | None
) -> None:
    """Torch's vectors depend on their batches, so on the cut; ONNX's do not."""
    few = Dataset.of([*data.docs()][:60], data.queries[:10])
    embedded(model)
    node = {"use": "dense", "model": model}
    shelf.build(few, tmp_path / "alone", node, shard=alone)
    shelf.build(few, tmp_path / "cut", node, engine=cluster, shard=32)
    cut: Living = Dense(tmp_path / "cut", k=20)
    expected = ran(Dense(tmp_path / "alone", k=20)(few.queries), tmp_path / "run")
    assert [len(s) for s in cut.segments] == [32, 28]
    assert ran(cut(few.queries), tmp_path / "run") == expected
    assert ran(Spread(cut, cluster)(few.queries), tmp_path / "run") == expected


def test_a_recipe(cluster: Ray, omens: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in it are relative to the folder that the program runs in."""
    monkeypatch.chdir(tmp_path)
    bm25 = {"use": "bm25", "index": "words"}
    index = {"data": str(tiny_path), "index": {"use": "bm25"}}
    systems = {"bm25": [bm25], "round": [bm25, {"use": "tests.retrieve.test_ray:Deadly"}]}
    for name, tree in (("words", index), ("one", {}), ("other", {})):
        (tmp_path / name).mkdir()
        written = tree or {"data": str(tiny_path), "systems": systems}
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(written))
    alone = Experiment(Path("one"))
    result, _ = alone.measure(alone.run())
    (omens / "rerank").touch()
    there = Experiment(Path("other"))
    spread, _ = there.measure(there.run(engine=cluster, block=3))
    assert (omens / "rerank.used").exists()
    for run in ("bm25.trec", "round.trec"):
        files = [store.read_manifest(tmp_path / name).path / run for name in ("one", "other")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert {n: s.values for n, s in spread.systems.items()} == {n: s.values for n, s in result.systems.items()}
    kept = [sorted(next((tmp_path / name / "kept").iterdir()).read_text().splitlines()) for name in ("one", "other")]
    assert len(kept[0]) == len(kept[1]) == 8
    (omens / "rerank").touch()
    Experiment(Path("other")).run(engine=cluster)
    assert (omens / "rerank").exists(), "all was kept"


def test_from_the_command_line(cluster: Ray, tiny_path: Path, tmp_path: Path) -> None:
    def rankpipe(*words: object) -> None:
        command = [sys.executable, "-c", "from rankpipe.cli import main; main()", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=OURS)
        assert done.returncode == 0, done.stderr[-3000:]

    there = ("--engine", "ray", "--address", cluster.address)
    rankpipe("index", "build", "alone", "--data", tiny_path)
    rankpipe("index", "build", "cut", "--data", tiny_path, "--shard", 6, *there)
    rankpipe("search", "alone", "--data", tiny_path, "--out", "alone.trec")
    rankpipe("search", "cut", "--data", tiny_path, "--out", "cut.trec", *there)
    assert store.read_manifest(tmp_path / "cut").facts["segments"] == 4
    assert (tmp_path / "cut.trec").read_bytes() == (tmp_path / "alone.trec").read_bytes()


def test_several_indexes_are_fused(cluster: Ray, data: Dataset, tmp_path: Path) -> None:
    """Each wants all workers, and there are no more than two; somebody else may have one of them."""
    import ray

    for name, k1 in (("a", 0.9), ("b", 2.0)):
        shelf.build(data, tmp_path / name, {"use": "bm25", "k1": k1}, shard=100)
    indexes = [BM25(tmp_path / name, k=100) for name in "ab"]
    expected = ran(Fuse(*indexes, k=100)(data.queries), tmp_path / "run")
    fused = Fuse(*(Spread(index, cluster) for index in indexes), k=100)
    assert ran(fused(data.queries), tmp_path / "run") == expected
    del fused
    others = [ray.remote(num_cpus=1)(Idle).remote() for _ in range(2)]
    ray.get(others[0].ready.remote())
    with pytest.raises(ClusterError, match="Ray started no worker within 5 s"):
        ray.get(others[1].ready.remote())
        Spread(indexes[0], Ray(cluster.address, timeout_s=5)).run(data.queries[:1])
    others.pop()
    with pytest.raises(ClusterError, match=r"10\.9\.8\.7:6379: this program has joined another cluster"):
        _ = Ray("10.9.8.7:6379").workers
    patient = Ray(cluster.address, timeout_s=20)
    assert ran(Fuse(*(Spread(i, patient) for i in indexes), k=100)(data.queries), tmp_path / "run") == expected


class Idle:
    """Has a core, and does nothing."""

    def ready(self) -> None:
        """It is."""


def test_what_goes_wrong_there(cluster: Ray, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = shelf.full(BM25, {"use": "bm25"})
    with pytest.raises(ClusterError, match=r"a worker died, and so did those that took its place \(1\)"):
        shards.build(Hopeless, data, tmp_path / "cut", recipe, Ray(cluster.address, replacements=1), 200)
    assert not (tmp_path / "cut" / "manifest.json").exists()
    with pytest.raises(ClusterError, match="a worker is to have 2 CPU and 7 GPU, but Ray has 2 CPU, 0 GPU"):
        _ = Ray(cluster.address, cpus=2, gpus=7).workers
    shelf.build(data, tmp_path / "cut", {"use": "bm25"}, shard=200)
    spread = Spread(BM25(tmp_path / "cut"), cluster)
    before = spread.index.run(data.queries[:1])
    BM25(tmp_path / "cut").delete([next(iter(data.docs())).id])
    assert spread.run(data.queries[:1]) == before
    monkeypatch.setattr("rankpipe.engine._look", blind)
    with pytest.raises(ClusterError, match=f"^{tmp_path}: not seen by .*; it must be on a file system"):
        cluster.sees(tmp_path)
    monkeypatch.setattr("rankpipe.engine._look", old)
    with pytest.raises(ClusterError, match=r"but \S+ has 0.0.1, \S+ has 0.0.1; install the same"):
        cluster.sees(tmp_path)


def blind(paths: Sequence[str]) -> tuple[list[str], str]:
    return paths[1:], __version__


def old(paths: Sequence[str]) -> tuple[list[str], str]:
    return [], "0.0.1"
