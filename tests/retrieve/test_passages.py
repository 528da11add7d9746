"""Passages lose nothing of a text; the documents found by them are those that scoring every passage would find."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Doc, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import DataError, RecipeError
from rankpipe.retrieve import passages, shelf
from rankpipe.retrieve.bm25 import BM25
from rankpipe.retrieve.living import Living
from rankpipe.retrieve.passages import Passages, joined
from tests.retrieve.test_living import KINDS, WORDS

WHOLE = [name for name in KINDS if "passages" not in name]
ALPHABET = st.text(st.sampled_from("ab.!? \n狗。é🙂#"), max_size=60)
SIZES = st.integers(1, 6)


def words(text: str) -> int:
    return len(passages.WORD.findall(text))


@given(st.lists(ALPHABET, min_size=1, max_size=4), SIZES, SIZES, st.booleans())
def test_nothing_is_lost(texts: list[str], most: int, overlap: int, sentences: bool) -> None:
    cut = Passages(most, min(overlap, most) - 1, sentences)
    docs = [Doc(f"d#{i}", text, f"title {i}") for i, text in enumerate(texts)]
    made = [*cut.split(docs)]
    assert [*joined(made)] == docs
    assert len({p.id for p in made}) == len(made)
    for doc in docs:
        spans = [*cut.spans(doc.text)]
        assert spans[0][0] == 0
        assert spans[-1][1] == len(doc.text)
        for (start, end), (later, last) in pairwise(spans):
            assert start < later <= end < last  # it goes on, and skips nothing
            assert words(doc.text[later:end]) <= cut.overlap
        assert all(words(doc.text[start:end]) <= most for start, end in spans)


def test_by_words() -> None:
    text = "one two three four five six seven"
    assert [text[a:b] for a, b in Passages(3).spans(text)] == ["one two three ", "four five six ", "seven"]
    with_overlap = Passages(3, overlap=1).spans(text)
    assert [text[a:b] for a, b in with_overlap] == ["one two three ", "three four five ", "five six seven"]
    assert [*Passages(3).spans("")] == [(0, 0)]
    assert [*Passages(2, sentences=False).spans("狗在睡觉")] == [(0, 2), (2, 4)]


def test_by_sentences() -> None:
    text = 'It rains. "Really?" I ask. Nobody says a word about it or about me.\n\nNext day'
    made = [text[a:b] for a, b in Passages(6).spans(text)]
    assert made == ['It rains. "Really?" I ask. ', "Nobody says a word about it ", "or about me.\n\nNext day"]
    text = "It rains a lot. I ask. Nobody knows why."
    made = [text[a:b] for a, b in Passages(6, overlap=3).spans(text)]
    assert made == ["It rains a lot. I ask. ", "I ask. Nobody knows why."]  # not three words: a sentence


def test_by_tokens(embedded: Callable[[str], Path]) -> None:
    text = "Transcendentalists unhesitatingly overemphasise. Idiosyncrasies notwithstanding, they do. " * 5
    embedded("bge-small")
    tokenizer = passages._tokenizer("bge-small")
    assert "".join(text[a:b] for a, b in Passages(1, tokens="bge-small").spans(text)) == text  # words are cut
    for most in (2, 3, 7):  # a word may be more than what is left beside the overlap
        spans = [*Passages(most, most - 1, tokens="bge-small").spans(text)]
        assert all(a < b <= end < last for (a, end), (b, last) in pairwise(spans))
        assert spans[-1][1] == len(text)
    for most in (5, 20):
        made = [text[a:b] for a, b in Passages(most, tokens="bge-small").spans(text)]
        assert "".join(made) == text
        counts = [len(tokenizer.encode(passage, add_special_tokens=False).ids) for passage in made]
        assert most / 2 < max(counts) <= most


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"max": 0}, "passages.max: 0; expected 1 or more"),
        ({"max": 5, "overlap": 5}, "passages.overlap: 5; expected 0 or more, less than max"),
        ({"score": "sum"}, "passages.score: 'sum' is not one of max, first"),
        ({"maximum": 5}, "passages: no 'maximum'; did you mean max?"),
        ({"max": "5"}, "passages.max: '5'; expected int"),
        (150, "passages: 150; expected arguments, such as passages.max=150"),
    ],
)
def test_what_is_refused(said: object, fault: str, tiny: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        BM25.build(tiny, tmp_path / "index", passages=said)  # type: ignore[arg-type]
    assert error.value.faults == [fault]
    assert shelf.check({"data": "x", "index": {"use": "bm25", "passages": said}}) == [f"index: {fault}"]


def test_current_however_it_is_said(tiny: Dataset, tmp_path: Path) -> None:
    assert shelf.build(tiny, tmp_path / "index", {"use": "bm25", "passages": {"max": 9}})
    assert shelf.build(tiny, tmp_path / "index", {"use": "bm25", "passages": {"overlap": 0, "max": 9}}) is None
    why = shelf.build(tiny, tmp_path / "index", {"use": "bm25", "passages": {"max": 8}})
    assert why
    assert "passages changed" in why


LONG = [Doc(f"d{i}", " ".join(WORDS[i * j % 7 % 5 + j % 3] for j in range(i % 9 * 3)), "the") for i in range(30)]
QUERIES = [Query("a", "quick fox"), Query("b", "the dog sleeps over a hedge"), Query("c", "zebra"), Query("d", "the")]


def brute(every: Living, score: str, k: int) -> list[Ranking]:
    """All passages, indexed as documents; each document by its best or first one."""
    made = []
    for ranking in every.run(QUERIES):
        counted: dict[str, list[tuple[float, int]]] = {}
        for hit in ranking.hits:
            document, start = hit.doc.id.rsplit("#", 1)
            if score == "max" or start == "0":
                counted.setdefault(document, []).append((hit.score, -int(start)))
        order = sorted(counted, reverse=True)
        order.sort(key=lambda d: -max(counted[d])[0])
        made.append([(d, *max(counted[d])) for d in order[:k]])
    return made  # type: ignore[return-value]


@pytest.mark.parametrize("score", ["max", "first"])
@pytest.mark.parametrize("name", WHOLE)
def test_equals_brute_force(name: str, score: str, tmp_path: Path) -> None:
    cut = Passages(max=3, overlap=1, score=score)  # type: ignore[arg-type]
    every = KINDS[name](Dataset.of([*cut.split(LONG)]), tmp_path / "every")
    index = KINDS[name](Dataset.of(LONG[:20]), tmp_path / "index", passages=cut)  # type: ignore[call-arg]
    index.add(LONG[20:])  # to another segment
    texts = {p.id: p.text for p in cut.split(LONG)}
    for k in (1, 2, 3, 7, 1000):
        index.k = k
        for made, truth in zip(index.run(QUERIES), brute(every, score, k), strict=True):
            assert [(h.doc.id, h.score) for h in made.hits] == [(d, s) for d, s, _ in truth]  # type: ignore[attr-defined]
            assert [h.doc.text for h in made.hits] == [texts[f"{d}#{-at}"] for d, _, at in truth]  # type: ignore[attr-defined]


def test_documents_outside(tmp_path: Path) -> None:
    index = BM25.build(Dataset.of(LONG), tmp_path / "index", passages=Passages(max=3))
    assert [*index.documents()] == LONG
    assert len(index) == 30
    assert index.manifest.facts["passages"] > 60
    with pytest.raises(DataError, match="1 of 2 documents are there already"):
        index.add([Doc("d1", "x"), Doc("d1#0", "y")])
    index.add([Doc("d1#0", "y " * 9)])  # the id of a passage may be that of a document
    assert index.delete(["d1", "d8", "d8#0"]).absent == ("d8#0",)
    assert [d.id for d in index.documents()] == [*(d.id for d in LONG if d.id not in ("d1", "d8")), "d1#0"]
    assert "d8" not in [h.doc.id for h in index.search("the").hits]
