"""What a killed build has left is looked at before it is trusted: one wrong byte anywhere, and it is made again."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankpipe.builds import SUMS
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.datasets.dataset import Held
from rankpipe.progress import listening
from rankpipe.retrieve import bm25, embed, late, living, lucene, parts, reads, sparse
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.encoded import Encoded
from rankpipe.retrieve.grown import NOTE, Grown
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.postings import FILES
from rankpipe.retrieve.sparse import SparseIndex
from rankpipe.store import damages, read_manifest
from tests.heard import Heard
from tests.retrieve.fakes import Interrupted
from tests.retrieve.runs import skip_unless_there

DRAWN, VARIED, DIRECTIONS = ("tests.retrieve." + name for name in ("fakes:Drawn", "models:Varied", "models:Directions"))
KINDS: dict[str, tuple[Any, dict[str, Any], set[str]]] = {  # how built, and what of it is trusted when half is made
    "bm25": (BM25, {}, {"spill.bin", "spill.npz"}),
    "dense": (Dense, {"model": DRAWN, "store": "int8"}, {"vectors.npy", "scales.npy", "hashes.npy", "cut.npy"}),
    "flat": (Dense, {"model": DRAWN, "factory": "Flat"}, {"vectors.npy", "hashes.npy", "cut.npy"}),
    "sparse": (SparseIndex, {"model": VARIED}, {"words.npy", "weights.npy", "lengths.npy", "hashes.npy", "cut.npy"}),
    "colbert": (ColBERT, {"model": DIRECTIONS},
                {"codes.npy", "residuals.npy", "codec.npz", "lengths.npy", "hashes.npy", "cut.npy"}),
    "colbert, whole": (ColBERT, {"model": DIRECTIONS, "bits": 16}, {"vectors.npy", "lengths.npy"}),
    "lucene": (Lucene, {}, set()),
}  # fmt: skip
HARMS = {
    "flipped": lambda whole, at: bytes([*whole[:at], whole[at] ^ 4, *whole[at + 1 :]]),
    "cut": lambda whole, at: whole[:at],
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    skip_unless_there(request.param)
    for module in (bm25, embed, sparse, late, reads, lucene):
        monkeypatch.setattr(module, "SHARD", 8)
    monkeypatch.setattr(late, "LEAST", 40)
    return str(request.param)


def collection() -> list[Doc]:
    chance = random.Random(0)
    return [Doc(f"d{i}", " ".join(chance.choices("abcdefgh", k=8)), f"t{i}", {"n": i}) for i in range(30)]


def sums(folder: Path) -> dict[str, tuple[int, str]]:
    return {name: told for name, told in read_manifest(folder).files.items() if not name.endswith("facts.json")}


def answers(index: Any) -> list[tuple[str, float]]:
    return [(hit.doc.id, hit.score) for hit in index.search("a b c t7").hits]


def harmed(torn: Path, tmp_path: Path, trusted: set[str]) -> Iterator[tuple[str, Path]]:
    """Copies of a folder with one file harmed that is trusted; and last, with all others harmed."""
    files = sorted(path.relative_to(torn) for path in torn.rglob("*") if path.is_file() and path.stat().st_size)
    alone = [
        path for path in files if not trusted or (path.name in {*trusted, NOTE, SUMS} and path.parent.name != "fields")
    ]
    jobs = [([path], how) for path in alone for how in HARMS]
    for some, how in [*jobs, ([path for path in files if path not in alone], "flipped")]:
        made = tmp_path / "harmed"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(torn, made)
        for path in some:
            whole = (torn / path).read_bytes()
            (made / path).write_bytes(HARMS[how](whole, len(whole) * 2 // 3))
        yield some[0].name if len(some) == 1 else "", made


def resumed(kind: str, torn: Path, tmp_path: Path, trusted: set[str]) -> set[str]:
    """Go on from each copy; says of which files it was noticed."""
    made, options, _ = KINDS[kind]
    data, noticed = Dataset.of(collection()), set()
    fresh = made.build(data, tmp_path / "fresh", **options)
    assert made.build(data, shutil.copytree(torn, tmp_path / "torn again"), **options).manifest.facts["documents"] == 30
    for name, folder in harmed(torn, tmp_path, trusted):
        with listening(told := Heard()):
            index = made.build(data, folder, **options)
        if kind == "lucene":
            assert answers(index) == answers(fresh), name
        else:
            assert sums(folder) == sums(tmp_path / "fresh"), name
        said = any("harmed since it was written" in text for text in told.notices)
        assert said or name not in trusted, name
        noticed |= {name} if said else set()
    return noticed


def test_between_two_shards(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, options, trusted = KINDS[kind]
    appended = Grown.append

    def dies(self: Grown, *told: Any, **more: Any) -> None:
        appended(self, *told, **more)
        if self.folder.name == "000000" and self.documents == 16:
            raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(Grown, "append", dies)
        held = Held if issubclass(made, Encoded) else Interrupted
        made.build(Dataset("docs", held(tuple(collection()))), tmp_path / "torn", **options)
    noticed = resumed(kind, tmp_path / "torn", tmp_path, trusted)
    assert trusted <= noticed
    assert noticed


TRUSTED = {
    "flat": {"faiss.index", "faiss.json", "asked.npz"},
    "sparse": {*FILES},
    "colbert": {"codec.npz", "residuals.npy"},
}


@pytest.mark.parametrize("kind", TRUSTED, indirect=True)
@pytest.mark.parametrize("end", ["checksums", "facts"])
def test_at_its_end(kind: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all is made, and the checksums of the segment are not, or its facts."""
    made, options, _ = KINDS[kind]
    written = parts.write

    def dies(path: Path, *told: Any) -> Any:
        if end == "checksums" or path.name == "facts.json":
            raise KeyboardInterrupt
        return written(path, *told)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(parts, *(("_sums", dies) if end == "checksums" else ("write", dies)))
        made.build(Dataset.of(collection()), tmp_path / "torn", **options)
    noticed = resumed(kind, tmp_path / "torn", tmp_path, TRUSTED[kind])
    assert TRUSTED[kind] <= noticed
    monkeypatch.setattr(Grown, "append", None)  # nothing is encoded again
    made.build(Dataset.of(collection()), tmp_path / "torn", **options)


def test_a_build_without_its_manifest(kind: str, tmp_path: Path) -> None:
    """It came to its end, and no checksums lie beside its segments any more."""
    made, options, _ = KINDS[kind]
    data = Dataset.of(collection())
    fresh = made.build(data, tmp_path / "fresh", **options)
    (lost := shutil.copytree(tmp_path / "fresh", tmp_path / "lost")).joinpath("manifest.json").unlink()
    for name, folder in harmed(lost, tmp_path, set()):
        with listening(told := Heard()):
            index = made.build(data, folder, **options)
        assert len(told.notices) == (name != ""), name
        assert answers(index) == answers(fresh), name
        assert sums(folder) == sums(tmp_path / "fresh") or kind == "lucene", name
        assert damages(index.manifest) == []
        assert len(list((folder / "made").iterdir())) == 1


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.npy", "facts.json"])
def test_a_build_without_its_manifest_that_is_killed_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is harmed later is noticed, too."""

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    data = Dataset.of(collection())
    made = BM25.build(data, tmp_path / "index").manifest
    (tmp_path / "index" / "manifest.json").unlink()
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(living, "go_on", dies)
        BM25.build(data, tmp_path / "index")
    [path] = (tmp_path / "index" / "made").glob(f".work-*/000000/{name}")
    path.write_bytes(HARMS["flipped"](whole := path.read_bytes(), len(whole) // 2))
    assert answers(BM25.build(data, tmp_path / "index")) == answers(BM25.build(data, tmp_path / "fresh"))
    assert read_manifest(tmp_path / "index").files == made.files
