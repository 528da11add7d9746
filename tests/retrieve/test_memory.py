"""An index that is made in little memory holds no more, is the same index, and goes on where it was interrupted."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np
import pytest
from numpy.typing import NDArray

from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.datasets.dataset import Held, digest
from rankpipe.errors import RecipeError
from rankpipe.progress import listening
from rankpipe.retrieve import embed, memory, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.memory import size_bytes
from rankpipe.store import damages
from tests.heard import Heard
from tests.retrieve.fakes import Hashed
from tests.retrieve.test_living import KINDS, QUERIES, WORDS, listed

LITTLE = 20_000  # bytes: segments of some dozen documents
DOCS = [Doc(f"d{i}", " ".join(WORDS[i * j % 7 % 5 + j % 3] for j in range(1 + i % 9))) for i in range(80)]


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST", 1)


class Tracked(Doc):
    """A document that can be seen to die."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True)
class Made:
    """A corpus that is nowhere: documents are made when they are asked for."""

    count: int
    texts: str = "word{0} of{1} common"
    fields: Callable[[int], dict[str, Any]] = lambda _: {}
    place: str = "made"
    path: None = None
    alive: ClassVar[WeakSet[Doc]] = WeakSet()
    most: ClassVar[list[int]] = []

    def docs(self) -> Iterator[Doc]:
        Made.most.clear()
        for i in range(self.count):
            doc = Tracked(f"{i}", self.texts.format(i, i % 100), fields=self.fields(i))
            self.alive.add(doc)
            self.most.append(len(self.alive))
            yield doc

    def checksum(self) -> str:
        return digest(self.docs())


class Quiet(Hashed):
    """Remembers nothing."""

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.cut = [False] * len(texts)
        return np.ones((len(texts), self.dimension), np.float32)


MADE, WITH_URLS = Made(6000), Made(6000, fields=lambda i: {"url": f"{i:0400}"})
WITH_FLAGS = Made(6000, fields=lambda _: {f"flag{j}": True for j in range(50)})
LONG = Made(2000, "word{1} " + 200 * "common ")


def peak(build: object, folder: Path, made: Made = MADE, **how: object) -> int:
    """Bytes that the build held at once, at most."""
    build(Dataset("few", Made(5)), folder / "few", **how)  # type: ignore[operator]  # what is imported stays
    data = Dataset("made", made)
    tracemalloc.start()
    build(data, folder / "many", **how)  # type: ignore[operator]
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def test_words_are_counted_in_bounded_memory(tmp_path: Path) -> None:
    most = 2 << 20
    assert peak(BM25.build, tmp_path / "little", memory=most) < most
    assert peak(BM25.build, tmp_path / "whole") > 1.5 * most  # else there is nothing to see here


def test_vectors_are_made_in_bounded_memory(tmp_path: Path) -> None:
    most, model = 2 << 20, "tests.retrieve.test_memory:Quiet"
    assert peak(Dense.build, tmp_path / "little", memory=most, model=model) < most
    assert peak(Dense.build, tmp_path / "whole", model=model) > 1.5 * most


@pytest.mark.parametrize(("kind", "how"), [(BM25, {}), (Dense, {"model": "tests.retrieve.test_memory:Quiet"})])
def test_fields_are_kept_in_bounded_memory(kind: type[Living], how: dict[str, str], tmp_path: Path) -> None:
    """While segments are made, and when they would be merged."""
    most = 4 << 20
    assert peak(kind.build, tmp_path / "little", WITH_URLS, memory=most, **how) < most  # type: ignore[attr-defined]
    index = kind(tmp_path / "little" / "many")
    tracemalloc.start()
    index.update(Made(10).docs())
    index.compact()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < most
    assert sum(s.fields.held for s in index.segments) > most
    assert peak(kind.build, tmp_path / "whole", WITH_URLS, **how) > 1.5 * most  # type: ignore[attr-defined]


def test_fields_are_dealt_out_in_bounded_memory(tmp_path: Path) -> None:
    most = 6 << 20
    assert peak(BM25.build, tmp_path / "little", WITH_FLAGS, memory=most) < most
    assert peak(BM25.build, tmp_path / "whole", WITH_FLAGS) > 1.5 * most


def test_no_text_stays_when_segments_are_merged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(BM25, "portion", 500)
    assert peak(BM25.build, tmp_path, LONG) < LONG.count * len(LONG.texts) / 1.5
    assert len(BM25(tmp_path / "many").segments) == 1


def test_long_texts_make_short_shards() -> None:
    docs = [Doc(f"d{i}", "x" * length) for i, length in enumerate([10, 10, 500, 10, 10, 10])]
    shards = [(first, len(part)) for first, part in embed._shards(docs, most=820, row=40)]
    assert shards == [(0, 3), (3, 3)]


@pytest.mark.parametrize("name", KINDS)
def test_documents_do_not_stay(name: str, tmp_path: Path) -> None:
    """However many there are: those of a shard live, and no others."""
    made = []
    for count in (150, 300):
        data = Dataset("made", Made(count, "fox {1}"))
        index = KINDS[name](data, tmp_path / f"{count}", memory=LITTLE)  # type: ignore[call-arg]
        assert len(index.segments) > 3
        made.append(max(Made.most))
    assert made[1] == made[0] <= 40


@pytest.mark.parametrize("name", KINDS)
def test_is_the_same_index(name: str, tmp_path: Path) -> None:
    build = KINDS[name]
    whole, little = build(Dataset.of(DOCS), tmp_path / "whole"), build(Dataset.of(DOCS), tmp_path / "l", memory=LITTLE)  # type: ignore[call-arg]
    assert len(whole.segments) == 1
    assert 2 < len(little.segments) < 40
    assert little.manifest.facts["documents"] == len(little) == 80
    assert listed(list(little(QUERIES))) == listed(list(whole(QUERIES)))
    more = [Doc(f"new{i}", "quick fox runs") for i in range(40)]
    assert little.add(more) == whole.add(more)
    gone = [d.id for d in DOCS[::2]]
    assert little.delete(gone) == whole.delete(gone)
    before = len(little.segments)
    little.compact()
    assert before >= len(little.segments) > 1  # what fits in
    assert not sum(len(s.dead) for s in little.segments)
    assert listed(list(little(QUERIES))) == listed(list(whole(QUERIES)))
    assert {d.id for d in little.documents()} == {d.id for d in whole.documents()}


def test_ids_that_come_twice_in_different_segments(tmp_path: Path) -> None:
    index = BM25.build(Dataset.of(DOCS), tmp_path / "index", memory=LITTLE)
    more = [Doc(f"new{i}", "x") for i in range(90)]
    with pytest.raises(Exception, match="the id 'new3' is there twice"):
        index.update([*more, more[3]])
    assert len(type(index)(index.folder)) == 80


@dataclass(frozen=True)
class Torn(Held):
    """Is interrupted at its sixtieth document, the first time."""

    times: ClassVar[list[int]] = []

    def docs(self) -> Iterator[Doc]:
        for i, doc in enumerate(super().docs()):
            if i == 60 and not self.times:
                self.times.append(i)
                raise KeyboardInterrupt
            yield doc


@pytest.mark.parametrize("name", KINDS)
def test_goes_on_after_the_last_whole_segment(name: str, tmp_path: Path) -> None:
    def inodes() -> list[int]:
        segments = (tmp_path / "index" / "made").glob("*/*")
        return sorted((s / "docs.jsonl").stat().st_ino for s in segments if (s / "facts.json").exists())

    Torn.times.clear()
    data = Dataset("docs", Torn(tuple(DOCS)))
    with pytest.raises(KeyboardInterrupt):
        KINDS[name](data, tmp_path / "index", memory=LITTLE)  # type: ignore[call-arg]
    before = inodes()
    index = KINDS[name](data, tmp_path / "index", memory=LITTLE)  # type: ignore[call-arg]
    assert before
    assert {*before} < {*inodes()}
    assert {d.id: d.text for d in index.documents()} == {d.id: d.text for d in DOCS}
    assert listed(list(index(QUERIES))) == listed(list(KINDS[name](Dataset.of(DOCS), tmp_path / "whole")(QUERIES)))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("harmed", [0, -1])
def test_goes_on_before_a_segment_that_was_harmed(name: str, harmed: int, tmp_path: Path) -> None:
    Torn.times.clear()
    data, heard = Dataset("docs", Torn(tuple(DOCS))), Heard()
    with pytest.raises(KeyboardInterrupt):
        KINDS[name](data, tmp_path / "index", memory=LITTLE)  # type: ignore[call-arg]
    [work] = (tmp_path / "index" / "made").glob(".work-*")
    segments = sorted(path.parent for path in work.glob("*/facts.json"))
    path = segments[harmed] / "docs.jsonl"
    path.write_bytes(path.read_bytes().replace(b"d", b"x", 1))
    with listening(heard):
        index = KINDS[name](data, tmp_path / "index", memory=LITTLE)  # type: ignore[call-arg]
    [said] = [text for text in heard.notices if "harmed" in text]
    assert (
        said == f"{path} was harmed since it was written; segment {path.parent.name} and those after it are built again"
    )
    assert [*index.documents()] == DOCS
    assert damages(index.manifest) == []
    assert listed(list(index(QUERIES))) == listed(list(KINDS[name](Dataset.of(DOCS), tmp_path / "whole")(QUERIES)))


def test_portions_without_a_limit_become_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(BM25, "portion", 30)
    index = BM25.build(Dataset.of(DOCS), tmp_path / "index")
    assert len(index.segments) == 1
    assert shelf.changes(index.folder) == 0
    assert [*index.documents()] == DOCS


def test_memory_is_no_part_of_the_recipe(tiny: Dataset, tmp_path: Path) -> None:
    assert shelf.build(tiny, tmp_path / "index", {"use": "bm25"}, memory="1GB")
    assert shelf.build(tiny, tmp_path / "index", {"use": "bm25"}, memory="2GB") is None
    with pytest.raises(RecipeError, match="no argument 'memory'"):
        shelf.ensure(_recipe(tmp_path, tmp_path))


def _recipe(folder: Path, data: Path) -> Path:
    (folder / "recipe.yaml").write_text(f"data: {data}\nindex: {{use: bm25, memory: 1GB}}\n")
    return folder


@pytest.mark.parametrize(
    ("said", "bytes"), [("1GB", 1 << 30), ("1.5 gib", 3 << 29), ("512M", 1 << 29), (12345, 12345), ("12345", 12345)]
)
def test_sizes(said: str | int, bytes: int) -> None:
    assert size_bytes(said) == bytes


@pytest.mark.parametrize("said", ["much", "1XB", "", "-1GB", 0, "1.2.3GB"])
def test_what_is_no_size(said: str | int) -> None:
    with pytest.raises(RecipeError, match=r"memory: .*; expected"):
        size_bytes(said)
