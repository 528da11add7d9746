"""No text is encoded twice, by whatever kind of index: what older segments have of it is taken, and is what it was."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankpipe.data import Doc, Ranking
from rankpipe.datasets import Dataset
from rankpipe.retrieve import embed, late, reads, sparse
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.grown import Grown
from rankpipe.retrieve.late import ColBERT
from rankpipe.retrieve.postings import Postings, Spill, turned
from rankpipe.retrieve.sparse import SparseIndex
from tests.retrieve.fakes import Hashed
from tests.retrieve.models import Directions, Weights

WORDS = [f"w{i}" for i in range(40)]
KINDS: dict[str, tuple[Any, dict[str, Any], list[str], dict[str, Any]]] = {  # how built, who counts, another way
    "dense": (Dense, {"model": "tests.retrieve.fakes:Drawn"}, Hashed.encoded, {"store": "int8"}),
    "sparse": (SparseIndex, {"model": "tests.retrieve.models:Varied"}, Weights.encoded, {"steps": 50}),
    "steps": (SparseIndex, {"model": "tests.retrieve.models:Varied", "steps": 100}, Weights.encoded, {"steps": 50}),
    "whole": (ColBERT, {"model": "tests.retrieve.models:Directions", "bits": 16}, Directions.encoded, {"bits": 4}),
    "compressed": (ColBERT, {"model": "tests.retrieve.models:Directions", "bits": 4}, Directions.encoded, {"bits": 2}),
}


class Kind:
    """A kind of index, and what it encodes."""

    def __init__(self, name: str) -> None:
        self.kind, self.options, self._encoded, self.other = KINDS[name]
        self._seen = len(self._encoded)

    def build(self, docs: list[Doc], folder: Path, **options: Any) -> Any:
        return self.kind.build(Dataset.of(docs), folder, **{**self.options, **options})

    def encoded(self) -> list[str]:
        """Since it was last asked."""
        new, self._seen = self._encoded[self._seen :], len(self._encoded)
        return new


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    for module in (sparse, late, reads):
        monkeypatch.setattr(module, "SHARD", 8)
    monkeypatch.setattr(late, "LEAST", 300)  # vectors that are compressed
    return Kind(request.param)


def collection(size: int, seed: int = 0) -> list[Doc]:
    chance = random.Random(seed)
    return [Doc(f"d{seed}-{i}", f"own{seed}-{i} " + " ".join(chance.choices(WORDS, k=12))) for i in range(size)]


def ranked(ranking: Ranking) -> list[tuple[str, float]]:
    return [(hit.doc.id, hit.score) for hit in ranking.hits]


def test_only_what_changed(kind: Kind, tmp_path: Path) -> None:
    docs = [*collection(60), Doc("empty", "")]
    index = kind.build(docs, tmp_path / "index")
    assert len(kind.encoded()) == 61
    head, _, tail = docs[2].text.partition(" ")
    index.compact()
    chance, kept = random.Random(1), [*docs[5:40], Doc("titled", tail, title=head), docs[60]]
    changed = [*kept, Doc("one", "w1 w2 w3"), Doc("twice", docs[7].text), Doc("other", "w4 w4 w5")]
    chance.shuffle(changed)
    again = kind.build(changed, tmp_path / "index")
    assert sorted(kind.encoded()) == ["w1 w2 w3", "w4 w4 w5"]
    assert again.manifest.facts["reused_vectors"] == len(changed) - 2
    assert "reused_vectors" not in kind.build(changed, tmp_path / "fresh").manifest.facts
    assert len(kind.encoded()) == len(changed)
    fresh = kind.kind(tmp_path / "fresh")
    if "codec.npz" not in {Path(name).name for name in fresh.manifest.files}:
        for text in ("w1 w2 w3", "w4", docs[7].text):
            assert ranked(again.search(text)) == ranked(fresh.search(text))
        return
    [old], [new] = index.segments, again.segments  # the old one is still open
    assert new.codec.like(old.codec)
    for doc in kept[:35]:
        [before], [after] = old.find([doc.id]).values(), new.find([doc.id]).values()
        for name in ("codes", "residuals"):
            rows = [s.columns[name][s.rows(np.array([place]))[0]] for s, place in ((old, before), (new, after))]
            assert np.array_equal(*rows)


def test_changes_of_an_index(kind: Kind, tmp_path: Path) -> None:
    docs = collection(20)
    index = kind.build(docs, tmp_path)
    kind.encoded()
    # texts that are there already, under another id or title too
    head, _, tail = docs[4].text.partition(" ")
    index.update([docs[1], Doc(docs[2].id, "changed"), Doc("new", docs[3].text), Doc("newer", tail, title=head)])
    assert kind.encoded() == ["changed"]
    assert index.manifest.facts["reused_vectors"] == 3
    index.delete([docs[5].id])
    index.add([docs[5], Doc("more", "changed")])  # not yet merged away; and from the second segment
    assert kind.encoded() == []
    index.compact()
    index.update([docs[6]])  # what merging put together
    assert kind.encoded() == []
    fresh = kind.build([*index.documents()], tmp_path / "fresh")
    for text in ("w1 w2 w3", docs[5].text):
        assert ranked(index.search(text)) == ranked(fresh.search(text))


def test_another_way(kind: Kind, tmp_path: Path) -> None:
    docs = collection(30)
    kind.build(docs, tmp_path)
    kind.encoded()
    for other in (kind.other, {"max_length": 7}):
        kind.build(docs, tmp_path, **other)
        assert len(kind.encoded()) == 30
        kind.build([*docs, Doc("one", "more")], tmp_path, **other)
        assert kind.encoded() == ["more"]


def test_of_an_index_that_is_damaged_nothing(kind: Kind, tmp_path: Path) -> None:
    docs = collection(30)
    index = kind.build(docs, tmp_path)
    kind.encoded()
    path = index.manifest.path / "000000" / "hashes.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    kind.build(docs, tmp_path)
    assert len(kind.encoded()) == 30


@pytest.mark.parametrize("harmed", [False, True])
def test_a_build_that_is_interrupted_goes_on(
    kind: Kind, harmed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where most is taken from the index before; and where that can give no more by then."""
    docs, before = collection(40), collection(40)[:30]
    random.Random(2).shuffle(docs)
    for name in ("torn", "whole"):
        kind.build(before, tmp_path / name)
    kind.encoded()
    torn = kind.kind(tmp_path / "torn")
    kind.build(docs, tmp_path / "whole")
    assert len(kind.encoded()) == 10
    appended = Grown.append

    def dies(self: Grown, *told: Any, **more: Any) -> None:
        appended(self, *told, **more)
        if self.folder.name == "000000" and self.documents >= 24:
            raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(embed, "SHARD", 8)
        m.setattr(Grown, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            kind.build(docs, tmp_path / "torn")
    some = kind.encoded()
    if harmed:
        with open(torn.manifest.path / "000000" / "hashes.npy", "ab") as f:
            f.write(b"?")
    monkeypatch.setattr(embed, "SHARD", 8)
    again = kind.build(docs, tmp_path / "torn")
    assert len(some) + len(kind.encoded()) == (10 if not harmed else len(some) + 16)
    whole = kind.kind(tmp_path / "whole")
    off = 0.15 if harmed and kind.options.get("bits") == 4 else 0  # the sample's vectors were rounded before
    for text in ("w1 w2 w3", docs[0].text):
        assert dict(ranked(again.search(text))) == pytest.approx(dict(ranked(whole.search(text))), abs=off)


def test_a_few_texts_are_not_worth_reading_all_postings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind("sparse")
    monkeypatch.setattr(sparse, "WORTH", 10)
    first, second = collection(60), collection(6, seed=1)
    index = kind.build(first, tmp_path)
    index.add(second)
    kind.encoded()
    same = [Doc("a", first[0].text), *(Doc(f"b{i}", doc.text) for i, doc in enumerate([*second, first[0], second[0]]))]
    monkeypatch.setattr(sparse, "WORTH", sum(s.postings.docs.size for s in index.segments[1:]) // 6)
    index.add(same)
    assert kind.encoded() == [first[0].text] * 2  # of the large segment there are two
    fresh = kind.build([*index.documents()], tmp_path / "fresh")
    assert ranked(index.search(first[0].text)) == ranked(fresh.search(first[0].text))


def test_turned_postings(tmp_path: Path) -> None:
    chance = random.Random(3)
    rows = [{w: float(chance.randint(1, 99)) for w in chance.sample(WORDS, chance.randint(0, 9))} for _ in range(50)]
    spill = Spill(tmp_path / "spill.bin", np.float32, block=7)
    spill.fill(rows)
    spill.invert(tmp_path)
    postings, some = Postings(tmp_path), np.array([0, 3, 4, 30, 49])
    (tmp_path / "turned").mkdir()
    told = turned(postings, some, 50, tmp_path / "turned", block=11)
    for number, place in enumerate(some.tolist()):
        lies = told.of(number)
        words = [postings.terms[term] for term in told.docs[lies].tolist()]
        assert words == sorted(rows[place])
        assert dict(zip(words, told.values[lies].tolist(), strict=True)) == rows[place]
