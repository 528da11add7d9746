"""Every file of every kind of index, cut by a byte, with a bit flipped, and removed: named, refused, and the cure said.

There is no log to write ahead: the manifest is the moment of change. The dead are in ``dead.npy`` of their segments.
"""

import json
import os
import random
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rankpipe import disk, seen, store
from rankpipe.cli import app, changes
from rankpipe.cli import index as verbs
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl
from rankpipe.errors import ArtefactError
from rankpipe.retrieve import approximate, late
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.index import Index
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.milvus import Milvus
from rankpipe.retrieve.rescue import rescued
from rankpipe.retrieve.sparse import SparseIndex
from tests.retrieve.runs import skip_unless_there

assert verbs.verify  # registers it
assert changes.export
DRAWN, VARIED, DIRECTIONS = ("tests.retrieve." + name for name in ("fakes:Drawn", "models:Varied", "models:Directions"))
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bm25": (BM25, {}),
    "passages": (BM25, {"passages": {"max": 3}}),
    "exact": (Dense, {"model": DRAWN, "store": "int8"}),
    "flat": (Dense, {"model": DRAWN, "factory": "Flat"}),
    "hnsw": (Dense, {"model": DRAWN, "factory": "HNSW8"}),
    "ivf-pq": (Dense, {"model": DRAWN, "factory": "IVF2,PQ4x4"}),
    "sparse": (SparseIndex, {"model": VARIED}),
    "colbert": (ColBERT, {"model": DIRECTIONS}),
    "colbert, whole": (ColBERT, {"model": DIRECTIONS, "bits": 16}),
    "lucene": (Lucene, {}),
    "milvus": (Milvus, {"model": DRAWN, "sparse": VARIED}),
}
HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "bytes, the manifest says": lambda whole: whole[:-1],
    "is damaged": lambda whole: bytes([*whole[: (at := len(whole) // 2)], whole[at] ^ 1, *whole[at + 1 :]]),
    "is missing": lambda _: None,
}
CURE = "--force, then make its 2 batches of changes again, or bring back a copy"


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index of two segments, with fields, to which documents were added and of which some are dead."""
    kind, options = KINDS[request.param]
    skip_unless_there(kind.kind)
    monkeypatch.setattr(approximate, "cores", lambda: 1)
    monkeypatch.setattr(late, "LEAST", 40)  # vectors of a segment that centroids are made of
    chance = random.Random(0)
    docs = [Doc(f"d{i}", " ".join(chance.choices("abcdefgh", k=8)), f"t{i}", {"n": i, "l": ["x"]}) for i in range(40)]
    made: Index = kind.build(Dataset.of(docs[:24]), tmp_path / "index", **options)
    made.add(docs[24:])
    made.delete(["d1", "d30", "d31"])
    (made.folder / "recipe.yaml").write_text(f"data: nowhere\nindex: {{use: {made.kind}}}\n")
    return made


def verified(index: Index) -> str:
    done = CliRunner().invoke(app, ["index", "verify", str(index.folder)])
    assert done.exit_code == (6 if done.stderr else 0), done.output
    return " ".join(done.stderr.split())


def harmed(path: Path, content: bytes | None) -> None:
    """Another file in its place: the builds before may have the same one."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_every_file(index: Index) -> None:
    files = {name: size for name, (size, _) in index.manifest.files.items()}
    assert index.manifest.facts["documents"] == len(index) == 37
    assert len(files) >= 6
    there = [*index.documents()]
    for name, size in files.items():
        path = index.manifest.path / name
        whole = path.read_bytes()
        for said, harm in HARMS.items() if size else [("is missing", HARMS["is missing"])]:
            harmed(path, harm(whole))
            [fault] = store.damages(store.read_manifest(index.folder))
            assert fault.startswith(str(path))
            assert said in fault
            with pytest.raises(ArtefactError) as refused:
                type(index)(index.folder)
            assert str(refused.value) == f"{index.folder}: {fault}; {store.cure(index.folder, index.manifest)}"
            assert f"rankpipe index build {index.folder} {CURE}" in str(refused.value)
            assert ("rankpipe index export" in str(refused.value)) == isinstance(index, Living)
            if isinstance(index, Living) and path.name not in ("docs.jsonl", "dead.npy"):
                assert [*rescued(index.folder, refused.value)] == there
            else:
                said = re.escape(f"its documents are damaged: {fault}" if isinstance(index, Living) else fault)
                with pytest.raises(ArtefactError, match=said):
                    rescued(index.folder, refused.value)
            path.write_bytes(whole)
    harmed(path, HARMS["is damaged"](whole))
    assert str(path) in verified(index)
    assert CURE in verified(index)
    path.write_bytes(whole)
    assert verified(index) == ""
    assert len(type(index)(index.folder)) == 37


def test_documents_come_out_of_their_passages(tmp_path: Path) -> None:
    docs = [Doc(f"d{i}", "one two three. " * (i + 1), f"t{i}", {"n": i}) for i in range(5)]
    made = BM25.build(Dataset.of(docs[:3]), tmp_path / "index", passages={"max": 4, "overlap": 1})
    made.add(docs[3:])
    made.delete(["d1"])
    for path in made.manifest.path.glob("*/values.npy"):
        path.unlink()
    done = CliRunner().invoke(app, ["index", "export", str(made.folder), "--out", str(tmp_path / "kept.jsonl")])
    assert done.exit_code == 0
    assert "values.npy is missing" in " ".join(done.stderr.split())
    assert [*Jsonl(tmp_path / "kept.jsonl").docs()] == [docs[0], *docs[2:]]


def test_documents_of_an_earlier_format(tmp_path: Path) -> None:
    """They lay where an index has its segments now."""
    made = BM25.build(Dataset.of([Doc("a", "tea"), Doc("b", "wine")]), tmp_path / "index")
    there, told = made.manifest.path, json.loads((tmp_path / "index" / "manifest.json").read_text())
    for file in (there / "000000").iterdir():
        file.rename(there / file.name)
    files = {name.removeprefix("000000/"): known for name, known in told.pop("files").items()}
    del told["checksum"]
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({**told, "format": 1, "files": files}))
    with pytest.raises(ArtefactError, match="format 1, this version reads 2") as refused:
        BM25(made.folder)
    assert [doc.id for doc in rescued(made.folder, refused.value)] == ["a", "b"]
    told["facts"]["documents"] = 3
    (tmp_path / "index" / "manifest.json").write_text(json.dumps({**told, "format": 1, "files": files}))
    with pytest.raises(ArtefactError, match="2 documents were found, and the manifest says 3"):
        deque(rescued(made.folder, refused.value))


def test_what_lost_a_bit_by_itself_is_not_merged_or_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large index is opened without being read; what rests on its bytes reads them."""
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seen, "LARGE", 100)
    made = BM25.build(Dataset.of([Doc("a", "tea"), Doc("b", "wine")]), tmp_path / "index")
    made.add([Doc("c", "tea and wine")])
    path, told = made.manifest.path / "000000" / "docs.jsonl", (made.manifest.path / "000000" / "docs.jsonl").stat()
    path.write_bytes(path.read_bytes().replace(b"tea", b'te"'))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    reader = BM25(made.folder)
    with pytest.raises(ArtefactError, match=r"000000/docs\.jsonl:1: damaged; rankpipe index verify says"):
        [hit.doc.text for hit in reader.search("tea").hits]
    with pytest.raises(ArtefactError, match=r"docs\.jsonl is damaged: .*; build it again"):
        reader.compact()
    done = CliRunner().invoke(app, ["index", "export", str(made.folder), "--out", str(tmp_path / "kept.jsonl")])
    assert (done.exit_code, (tmp_path / "kept.jsonl").exists()) == (6, False)
    assert "its documents are damaged" in " ".join(done.stderr.split())
    assert store.damages(made.manifest)
    with pytest.raises(ArtefactError, match="is damaged"):  # it was seen to be
        BM25(made.folder)


def test_a_changed_index_is_not_built_over_without_its_manifest(tmp_path: Path) -> None:
    data = Dataset.of([Doc("a", "tea")])
    made = BM25.build(data, tmp_path / "index")
    (made.folder / "manifest.json").unlink()
    made = BM25.build(data, tmp_path / "index")  # nothing would be lost
    made.add([Doc("b", "wine")])
    (made.folder / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match="bring back its copy"):
        BM25.build(data, tmp_path / "index")
    with store.replacing():
        assert len(BM25.build(data, tmp_path / "index")) == 1


def test_what_lost_its_manifest_can_be_brought_back_after_a_build_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    docs = [Doc("a", "tea"), Doc("b", "wine")]
    made = BM25.build(Dataset.of(docs), tmp_path / "index")
    made.add([Doc("c", "tea and wine")])
    (made.folder / "manifest.json").unlink()
    with monkeypatch.context() as m, store.replacing(), pytest.raises(KeyboardInterrupt):
        m.setattr(BM25, "fill", dies)
        BM25.build(Dataset.of(docs), tmp_path / "index", k1=0.5)
    with pytest.raises(ArtefactError, match="bring back its copy") as refused:
        BM25(made.folder)
    subprocess.run(str(refused.value).partition("bring back its copy: ")[2], shell=True, check=True)
    assert len(BM25(made.folder)) == 3


def test_of_two_builds_no_manifest_is_brought_back(tmp_path: Path) -> None:
    made = BM25.build(Dataset.of([Doc("a", "tea")]), tmp_path / "index")
    shutil.copytree(made.manifest.path, made.manifest.path.with_name("other"))
    (tmp_path / "index" / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match="what was changed since it was built, if anything, is lost with it"):
        BM25(made.folder)


def test_the_manifest(index: Index) -> None:
    """A bit of it anywhere: what it says is true, or it is not believed."""
    path = index.folder / "manifest.json"
    whole = path.read_bytes()
    places = random.Random(1).sample(range(len(whole)), 60)
    flipped = [bytes([*whole[:at], whole[at] ^ 1 << at % 7, *whole[at + 1 :]]) for at in (len(whole) // 2, *places)]
    for content, said in (
        *((one, "damaged manifest") for one in flipped),
        *((whole[:-cut], "damaged manifest") for cut in (1, 2, len(whole) // 2, len(whole))),
        (None, "is missing, though something was built here"),
    ):
        harmed(path, content)
        with pytest.raises(ArtefactError) as refused:
            type(index)(index.folder)
        assert f"{path}{':' * (content is not None)} {said}" in str(refused.value)
        _, _, cure = str(refused.value).partition("bring back its copy: ")
        assert str(path) in verified(index)
        subprocess.run(cure, shell=True, check=True)
        assert path.read_bytes() == whole
        path.unlink()
        path.write_bytes(whole)
    path.write_text(json.dumps({k: v for k, v in json.loads(whole).items() if k != "checksum"}))  # an earlier version's
    assert len(type(index)(index.folder)) == 37


def test_a_large_index_is_read_once(index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the first decision says; and a file that was written to since is read again."""
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seen, "LARGE", 1000)
    read: list[Path] = []
    hashed = disk.sha256
    monkeypatch.setattr(disk, "sha256", lambda path: (read.append(path), hashed(path))[1])
    kind, files = type(index), index.manifest.files
    kind(index.folder)
    assert sorted(read) == sorted(index.manifest.path / name for name in files)
    read.clear()
    kind(index.folder)
    assert read == []
    path = index.manifest.path / max(files, key=lambda name: files[name][0])
    whole = path.read_bytes()
    for said, harm in HARMS.items():
        harmed(path, harm(whole))
        for _ in range(2):
            with pytest.raises(ArtefactError, match=said):
                kind(index.folder)
        assert said in verified(index)
        path.write_bytes(whole)
    read.clear()
    kind(index.folder)
    assert sorted(read) == sorted(index.manifest.path / name for name in files)  # once damaged, all are looked at
    read.clear()
    index.delete(["d2"])  # what a change leaves as it was need not be read again
    kind(index.folder)
    assert read == []
