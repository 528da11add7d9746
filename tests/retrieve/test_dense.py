"""Dense search equals brute force; a build may be stopped at any point and goes on to the same bytes; and no text is
encoded twice.
"""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rankpipe.cli.shown import Shown
from rankpipe.data import Doc, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import ArtefactError, DiskError, ModelError, RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import embed, living, shelf
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.encode import Said, encoder, unit
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.sparse import SparseIndex
from rankpipe.store import read_manifest, replacing
from tests.retrieve.fakes import Drawn, Hashed, Torn, file_size_limit

FAKE = "tests.retrieve.fakes:"
ROOT = Path(__file__).parents[2]
WORDS = [f"w{i}" for i in range(40)]


def collection(size: int, seed: int = 0) -> Dataset:
    chance = random.Random(seed)
    return Dataset.of([Doc(f"d{i:04}", " ".join(chance.choices(WORDS, k=12))) for i in range(size)])


def ranked(ranking: Ranking) -> list[tuple[str, float]]:
    return [(hit.doc.id, hit.score) for hit in ranking.hits]


def truth(data: Dataset, text: str, k: int) -> list[tuple[str, float]]:
    """The k best by inner product; ties by id, falling."""
    model = Hashed()
    [query] = model.encode_queries([text])
    scores = [(float(query @ model.encode_docs([d.contents])[0]), d.id) for d in data.docs()]
    return [(doc, score) for score, doc in sorted(scores, reverse=True)[:k]]


def checksums(folder: Path) -> dict[str, tuple[int, str]]:
    """Of all files but those that say how fast it went."""
    return {name: told for name, told in read_manifest(folder).files.items() if not name.endswith("facts.json")}


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight documents in each."""
    monkeypatch.setattr(embed, "SHARD", 8)


@pytest.mark.parametrize("factory", ["exact", "Flat"])
@pytest.mark.parametrize("k", [1, 7, 100, 300, 1000])
def test_equals_brute_force_with_ties_at_the_cut(factory: str, k: int, tmp_path: Path) -> None:
    data = collection(300)
    Dense.build(data, tmp_path, model=FAKE + "Hashed", factory=factory)
    index = Dense(tmp_path, k=k)
    for text in ("w1 w2 w3", "w7", "w7 w7 w8 w20 w30"):
        assert ranked(index.search(text)) == truth(data, text, k)


@pytest.mark.parametrize("store", ["float16", "int8", "binary"])
def test_smaller_numbers_find_the_same(store: Any, tmp_path: Path) -> None:
    data = collection(400)
    Dense.build(data, tmp_path / "small", model=FAKE + "Drawn", store=store)
    Dense.build(data, tmp_path / "whole", model=FAKE + "Drawn")
    small, whole = Dense(tmp_path / "small", k=10), Dense(tmp_path / "whole", k=10)
    size, full = ((i.manifest.path / "000000" / "vectors.npy").stat().st_size - 128 for i in (small, whole))
    assert (full, size) == (400 * 24 * 4, 400 * 24 * (2 if store == "float16" else 1))
    assert small.manifest.facts["store"] == store
    for text in ("w1 w2 w3", "w7", "w7 w7 w8 w20 w30"):
        found, wanted = dict(ranked(small.search(text))), dict(ranked(whole.search(text)))
        assert len(found.keys() & wanted.keys()) >= (7 if store == "binary" else 9)
        assert all(abs(found[i] - wanted[i]) < 0.02 for i in found.keys() & wanted.keys())


def test_the_first_dimensions(tmp_path: Path) -> None:
    data = collection(50)
    index = Dense.build(data, tmp_path, model=FAKE + "Drawn", dimension=8)
    [query] = unit(Drawn().encode_queries(["w1 w2"])[:, :8])
    vectors = unit(Drawn().encode_docs([d.contents for d in data.docs()])[:, :8])
    assert index.manifest.facts["dimension"] == 8
    assert dict(ranked(index.search("w1 w2"))) == pytest.approx(
        {d.id: float(v @ query) for d, v in zip(data.docs(), vectors, strict=True)}, abs=1e-6
    )
    with pytest.raises(RecipeError, match="dimension: 25; the vectors of drawn have 24"):
        Dense.build(data, tmp_path, model=FAKE + "Drawn", dimension=25)


def test_a_build_says_what_it_is_at(tmp_path: Path) -> None:
    seen = io.StringIO()
    with listening(Shown(Console(file=seen, width=200), patience_s=0.0)):
        Dense.build(collection(30), tmp_path, model=FAKE + "Hashed", factory="HNSW8")
    said = [line.split(":")[0] for line in seen.getvalue().splitlines()]
    assert said == ["dense index of docs", "FAISS index HNSW8 of 30 documents", *[f"checksums of {tmp_path}"] * 3]


def test_odd_input(tmp_path: Path) -> None:
    docs = [Doc("with space", "fox"), Doc("日本 é", "café"), Doc("empty", ""), Doc("long", "needle " * 150_000)]
    index = Dense.build(Dataset.of(docs), tmp_path, model=FAKE + "Hashed")
    assert index.search("").hits == index.search(" \n").hits == ()
    assert index.run([]) == []
    assert index.search("needle").hits[0].doc == docs[3]
    assert {h.doc for h in index.search("café 🙂").hits} == set(docs)
    batch = [q for i, text in enumerate(("fox", "", "café")) for q in [index.search(text).query]]
    assert [bool(r.hits) for r in index.run(batch)] == [True, False, True]


def test_facts(tmp_path: Path) -> None:
    docs = [Doc("a", "word " * 51), Doc("b", "word"), Doc("c d", "word " * 60), Doc("e", "")]
    index = Dense.build(Dataset.of(docs), tmp_path, model=FAKE + "Hashed")
    assert index.manifest.facts.pop("documents_per_second") > 0
    assert index.manifest.facts == {
        "documents": 4, "empty_texts": 1, "ids_with_white_space": 1, "model": "hashed", "identity": "hashed-1",
        "dimension": 16, "store": "float32", "metric": "inner product", "truncated_texts": 2, "dead": 0, "segments": 1,
    }  # fmt: skip
    index.delete(["a"])
    index.compact()
    facts = index.manifest.facts
    assert (facts["documents"], facts["truncated_texts"], facts["dimension"], facts["store"]) == (3, 1, 16, "float32")


def test_the_model_is_loaded_at_the_first_search_and_must_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from tests.retrieve.fakes import Hashed\nclass Mine(Hashed):\n    identity = 'mine-1'\n", "utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    Dense.build(collection(5), tmp_path / "index", model="mine:Mine")
    import mine  # type: ignore[import-not-found]  # written above

    made = Hashed.made
    index = Dense(tmp_path / "index")
    assert Hashed.made == made
    assert index.search("w1").hits
    assert index.search("w2").hits
    assert Hashed.made == made + 1
    mine.Mine.identity = "mine-2"
    with pytest.raises(ArtefactError, match="mine-1, but 'mine:Mine' is now mine-2"):
        Dense(tmp_path / "index").search("w1")
    with pytest.raises(ArtefactError, match="mine-1, but 'mine:Mine' is now mine-2"):
        Dense(tmp_path / "index").add([Doc("new", "w1")])
    assert len(Dense(tmp_path / "index")) == 5
    index.add([Doc("new", "w1")])  # has the model still
    assert Hashed.made == made + 3


def test_pooling_and_prompts_are_kept_in_the_recipe(embedded: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(embedded("bge-small") / name, folder)
    shutil.copy(embedded("bge-small") / "model.onnx", folder / "onnx")
    data, said = (
        collection(3),
        {"model_options": {"pooling": "cls"}, "prompts": {"query": "ask: ", "document": "tell: "}},
    )
    index = Dense.build(data, tmp_path / "index", model=str(folder), **said)  # type: ignore[arg-type]
    assert said.items() <= index.manifest.recipe.items()
    model = encoder(str(folder), said=Said(pooling="cls"))
    [asked] = model.encode_docs(["ask: w1"])
    scores = {d.id: float(asked @ model.encode_docs([f"tell: {d.text}"])[0]) for d in data.docs()}
    assert dict(ranked(Dense(tmp_path / "index").search("w1"))) == pytest.approx(scores, rel=1e-5)


def test_an_index_from_before_an_option_was_added_is_current(tmp_path: Path) -> None:
    data, recipe = collection(3), {"use": "dense", "model": FAKE + "Hashed", "factory": "exact"}
    assert shelf.build(data, tmp_path, recipe)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["checksum"]  # there was none
    for option in ("model_options", "prompts", "dimension", "recall"):
        del manifest["recipe"][option]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert shelf.build(data, tmp_path, recipe) is None
    assert Dense(tmp_path).search("w1").hits


def test_refusals(tmp_path: Path) -> None:
    data = collection(50)
    with pytest.raises(RecipeError, match=r"FAISS cannot make 'Nope' of \d+ dimensions"):
        Dense.build(data, tmp_path, model=FAKE + "Hashed", factory="Nope")
    with pytest.raises(RecipeError, match="FAISS cannot make 'IVF64,Flat' of 50 documents"):
        Dense.build(data, tmp_path, model=FAKE + "Hashed", factory="IVF64,Flat")
    with pytest.raises(RecipeError, match=r"model_options: tests.retrieve.fakes:Hashed is told max_length only"):
        Dense.build(data, tmp_path, model=FAKE + "Hashed", model_options={"pooling": "cls"})
    with pytest.raises(RecipeError) as refused:
        Dense.build(
            data, tmp_path, model=FAKE + "Hashed", store="int4", dimension=0, recall=1.1, train=0,  # type: ignore[arg-type]
            prompts={"queries": "ask: "},
        )  # fmt: skip
    assert [fault.split(":")[0] for fault in refused.value.faults] == [
        "prompts", "store", "dimension", "recall", "train",
    ]  # fmt: skip
    assert refused.value.faults[0] == "prompts: no 'queries'; did you mean query?"
    with pytest.raises(ModelError, match="the vector of document 'd0000' is not finite"):
        Dense.build(data, tmp_path, model=FAKE + "Loud", store="float16")
    with pytest.raises(ModelError, match="the vector of document 'b' is not finite"):
        Dense.build(Dataset.of([Doc("a", "x"), Doc("b", "bad")]), tmp_path, model=FAKE + "Broken")
    with pytest.raises(ArtefactError, match="has not come to its end"):
        Dense(tmp_path)


@pytest.mark.parametrize("store", ["float32", "binary"])
def test_an_interrupted_build_goes_on(store: Any, shards: None, tmp_path: Path) -> None:
    data, options = collection(50), {"model": FAKE + "Torn", "store": store}
    Torn.calls = 0
    with pytest.raises(KeyboardInterrupt):
        Dense.build(data, tmp_path / "torn", **options)
    [work] = (tmp_path / "torn" / "made").glob(".work-*/000000")
    with open(work / "vectors.npy", "ab") as f:
        f.write(b"half a shard")
    (work / ".encoded.json.123.part").write_text("torn")
    before = len(Hashed.encoded)
    index = Dense.build(data, tmp_path / "torn", **options)
    assert Hashed.encoded[before:] == [d.contents for d in data.docs()][16:]  # two shards were saved
    Dense.build(data, tmp_path / "whole", **options)
    assert checksums(tmp_path / "torn") == checksums(tmp_path / "whole")
    assert np.load(index.manifest.path / "000000" / "vectors.npy").shape == (50, 16)


@pytest.mark.parametrize("factory", ["exact", "Flat"])
def test_a_build_killed_just_before_its_manifest_loses_nothing(factory: str, tmp_path: Path) -> None:
    data = collection(50)
    Dense.build(data, tmp_path, model=FAKE + "Hashed", factory=factory)
    made = checksums(tmp_path)
    (tmp_path / "manifest.json").unlink()
    before = len(Hashed.encoded)
    Dense.build(data, tmp_path, model=FAKE + "Hashed", factory=factory)
    assert checksums(tmp_path) == made
    assert len(Hashed.encoded) == before


def test_what_is_encoded_is_not_encoded_again(shards: None, tmp_path: Path) -> None:
    index = Dense.build(
        Dataset.of([Doc(f"d{i}", f"w{i} w{i // 2}") for i in range(30)]), tmp_path, model=FAKE + "Drawn"
    )
    seen = len(Hashed.encoded)

    def encoded() -> list[str]:
        nonlocal seen
        new, seen = Hashed.encoded[seen:], len(Hashed.encoded)
        return new

    # texts that are there already, under another id or title too
    index.update([Doc("d1", "w1 w0"), Doc("d2", "changed"), Doc("new", "w9 w4"), Doc("newer", "w4", title="w9")])
    assert encoded() == ["changed"]
    assert index.manifest.facts["reused_vectors"] == 3
    index.compact()
    index.delete(["d2", "d3"])
    index.add([Doc("d3", "w3 w1")])  # not yet merged away
    assert encoded() == []
    # built again, of changed documents, into other kinds of search, in another order
    docs = [*list(index.documents())[::-1], Doc("last", "the last")]
    with replacing():  # they have its changes
        again = Dense.build(Dataset.of(docs), tmp_path, model=FAKE + "Drawn", factory="Flat")
    assert encoded() == ["the last"]
    whole = Dense.build(Dataset.of(docs), tmp_path / "whole", model=FAKE + "Drawn")
    assert ranked(again.search("w4 w9")) == ranked(whole.search("w4 w9"))
    assert encoded() == [d.contents for d in docs]
    # by another model, or as other numbers
    for other in ({"max_length": 7}, {"store": "int8"}, {"dimension": 24}):
        Dense.build(Dataset.of(docs), tmp_path, **{"model": FAKE + "Drawn", **other})
        assert len(encoded()) == len(docs)
        Dense.build(Dataset.of(docs), tmp_path, **{"model": FAKE + "Drawn", **other}, train=5)
        assert encoded() == []


def test_a_damaged_index_gives_no_vectors(tmp_path: Path) -> None:
    data = collection(20)
    index = Dense.build(data, tmp_path, model=FAKE + "Drawn")
    whole, before = ranked(index.search("w1")), len(Hashed.encoded)
    with open(index.manifest.path / "000000" / "vectors.npy", "r+b") as f:
        f.seek(300)
        f.write(b"damage")
    assert ranked(Dense.build(data, tmp_path, model=FAKE + "Drawn").search("w1")) == whole
    assert len(Hashed.encoded) == before + 20


def test_merging_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "FAN", 3)
    monkeypatch.setattr(embed, "COPIED", 7)
    data = list(collection(60).docs())
    index = Dense.build(Dataset.of(data[:20]), tmp_path / "index", model=FAKE + "Drawn")
    before = len(Hashed.encoded)
    for start in (20, 30, 40, 50):
        index.add(data[start : start + 10])
        index.delete([data[start].id])
    index.compact()
    assert Hashed.encoded[before:] == [d.contents for d in data[20:]]
    left = [d for d in data if d.id not in {"d0020", "d0030", "d0040", "d0050"}]
    fresh = Dense.build(Dataset.of(left), tmp_path / "fresh", model=FAKE + "Drawn")
    [made], [wanted] = index.segments, fresh.segments
    for name in ("vectors.npy", "hashes.npy", "cut.npy", "encoded.json"):
        assert (made.folder / name).read_bytes() == (wanted.folder / name).read_bytes()


BUILD = """
import sys
from pathlib import Path
from rankpipe.retrieve import embed
from rankpipe.retrieve.dense import Dense
from tests.retrieve.test_dense import collection
embed.SHARD = 10
Dense.build(collection(200, seed=int(sys.argv[2])), Path(sys.argv[1]), model="tests.retrieve.fakes:Slow")
"""


def building(folder: Path, seed: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", BUILD, folder, str(seed)], env=env)


@pytest.mark.slow
def test_kill_9_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "SHARD", 10)
    old = Dense.build(collection(200, seed=1), tmp_path / "index", model=FAKE + "Slow")
    answer = ranked(old.search("w1 w2"))
    new = Dense.build(collection(200, seed=2), tmp_path / "whole", model=FAKE + "Slow")
    chance, kills, saved = random.Random(), 0, [0]

    def encoded() -> int:
        found = (tmp_path / "index" / "made").glob(".work-*/*/encoded.json")
        return max([int(p.read_text().split('"documents": ')[1].split(",")[0]) for p in found], default=0)

    for _ in range(25):
        process = building(tmp_path / "index", seed=2)
        further = chance.random() < 0.7  # else before it has begun to encode
        while further and process.poll() is None and encoded() == saved[-1]:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.15)
        process.kill()
        kills += process.wait() == -9
        if (found := ranked(Dense(tmp_path / "index").search("w1 w2"))) != answer:
            assert found == ranked(new.search("w1 w2"))  # killed, if at all, when it had ended its work
            break
        saved.append(encoded())
    assert kills >= 3
    assert saved == sorted(saved)
    assert len({*saved}) > 2
    with building(tmp_path / "index", seed=2) as last:
        assert last.wait() == 0
    assert checksums(tmp_path / "index") == checksums(tmp_path / "whole")


@pytest.mark.parametrize(
    ("factory", "limit"),
    [("exact", 1000), ("exact", 13_500), ("HNSW8", 20_000)],  # texts, vectors of a late shard, the FAISS index
)
def test_a_full_disk_leaves_the_old_index(factory: str, limit: int, shards: None, tmp_path: Path) -> None:
    options = {"model": FAKE + "Hashed", "factory": factory}
    old = Dense.build(collection(20), tmp_path, **options)  # type: ignore[arg-type]
    docs = Dataset.of([Doc(f"d{i}", f"w{i % 40}") for i in range(225)])  # 10 kB of texts, 14.4 of vectors
    with file_size_limit(limit), pytest.raises(DiskError, match="no space left; nothing was changed"):
        Dense.build(docs, tmp_path, **options)  # type: ignore[arg-type]
    assert ranked(Dense(tmp_path).search("w1")) == ranked(old.search("w1"))
    assert len(Dense.build(docs, tmp_path, **options)) == 225  # type: ignore[arg-type]


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, to mount a small file system as a user")
def test_a_really_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=64k none {small} && exec {sys.executable} -c "$0" {small}/index 2'
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let users mount")
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount, BUILD.replace("collection(200", "collection(900")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "rankpipe.errors.DiskError" in done.stderr, done.stderr


def test_what_an_encoder_of_anybodys_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "others.py").write_text(
        "from tests.retrieve.fakes import Hashed\n"
        "class Bare:\n    def __init__(self, max_length=None): pass\n    def encode_docs(self, texts): pass\n"
        "class Plain(Hashed):\n    def __init__(self): super().__init__()\n"
        "class Nobody(Hashed):\n    identity = None\n"
        "class Wide(Hashed):\n    dimension = 17\n"
        "    def encode_docs(self, texts): return super().encode_docs(texts)[:, :3]\n"
        "class Uncut(Hashed):\n    def encode_docs(self, texts):\n"
        "        made = super().encode_docs(texts)\n        self.cut = []\n        return made\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, error, said in (
        ("Bare", RecipeError, "has no cut and no dimension and no encode_queries and no identity and no name; an"),
        ("Plain", RecipeError, "model: others:Plain: is made with max_length=None, which it does not take"),
        ("Nobody", RecipeError, "its identity is None; expected a text that says which numbers come out"),
        ("Wide", ModelError, r"hashed: gave numbers of shape \(20, 3\), expected \(20, 17\)"),
        ("Uncut", ModelError, "hashed: its cut has 0 values for 20 documents"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            Dense.build(collection(20), tmp_path / "index", model=f"others:{name}")
    with pytest.raises(RecipeError, match="model: a Hashed; expected a name, a folder, or 'module:Class'"):
        Dense.build(collection(20), tmp_path / "index", model=Hashed())  # type: ignore[arg-type]
    for kind, asked in ((SparseIndex, "docs, identity, queries, vocabulary"), (ColBERT, "docs, identity, query")):
        with pytest.raises(RecipeError, match=f"an encoder of this kind has {asked}: "):
            kind.build(collection(20), tmp_path / "index", model="others:Bare")


def test_what_an_encoder_of_anybodys_gives_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a build and in a search."""
    (tmp_path / "givers.py").write_text(
        "from tests.retrieve.fakes import Hashed\nfrom tests.retrieve.models import Directions, Weights\n"
        "def sparse(change):\n"
        "    class Given(Weights):\n        identity = 'given'\n"
        "        def docs(self, texts): return change(super().docs(texts))\n"
        "    return Given\n"
        "def late(change):\n"
        "    class Given(Directions):\n        identity = 'given'\n"
        "        def docs(self, texts): return change([*super().docs(texts)])\n"
        "    return Given\n"
        "Few = sparse(lambda made: made[1:])\n"
        "Plain = sparse(lambda made: [tuple(one) for one in made])\n"
        "Twice = sparse(lambda made: [one._replace(words=one.words * 0) for one in made])\n"
        "Light = sparse(lambda made: [one._replace(weights=one.weights[1:]) for one in made])\n"
        "Beyond = sparse(lambda made: [one._replace(words=one.words + 10**6) for one in made])\n"
        "Named = sparse(lambda made: [one._replace(words=one.words.astype(str)) for one in made])\n"
        "FewRead = late(lambda made: made[1:])\n"
        "Bare = late(lambda made: [one.vectors for one in made])\n"
        "Pooled = late(lambda made: [one._replace(vectors=one.vectors[0]) for one in made])\n"
        "class Silent(Weights):\n    def queries(self, texts): return []\n"
        "class Mute(Directions):\n    def query(self, text): return None\n"
        "class Lost(Hashed):\n    name = 'givers:Lost'\n"
        "    def encode_queries(self, texts): return super().encode_queries(texts) * float('nan')\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, name, said in (
        (SparseIndex, "Few", "weighed 19 texts, expected 20"),
        (SparseIndex, "Plain", r"gave a tuple for document '.+', expected a rankpipe.splade.Weighed"),
        (SparseIndex, "Twice", "document '.+' has not one weight for each word, and each word once"),
        (SparseIndex, "Light", "document '.+' has not one weight for each word, and each word once"),
        (SparseIndex, "Beyond", r"document '.+' has words that are not numbers of its vocabulary, 0 to \d+"),
        (SparseIndex, "Named", r"document '.+' has words that are not numbers of its vocabulary, 0 to \d+"),
        (ColBERT, "FewRead", "read 19 texts, expected 20"),
        (ColBERT, "Bare", "gave a ndarray for document '.+', expected a rankpipe.colbert.Read"),
        (ColBERT, "Pooled", r"document '.+' has numbers of shape \(10,\), expected a vector a token"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=f"givers:{name}: {said}"):
            kind.build(collection(20), tmp_path / "index", model=f"givers:{name}")
    for kind, name, said in (
        (SparseIndex, "Silent", "weighed 0 texts, expected 1"),
        (ColBERT, "Mute", "gave a NoneType for query 'q', expected a rankpipe.colbert.Read"),
        (Dense, "Lost", "the vector of query 'word' is not finite; try another number format"),
    ):
        index = kind.build(collection(20), tmp_path / name, model=f"givers:{name}")
        with pytest.raises(ModelError, match=f"givers:{name}: {said}"):
            index.search("word")
