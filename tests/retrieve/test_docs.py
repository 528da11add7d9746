"""Texts of an index: as they were, found by position, ties as trec_eval breaks them."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.data import Doc
from rankpipe.errors import DataError
from rankpipe.retrieve.docs import Docs, best, write_docs
from rankpipe.retrieve.hits import hits
from rankpipe.retrieve.parts import Part
from rankpipe.trec import ordered

ODD = [
    Doc("plain", "some text", "A title"),
    Doc("with space", "two\nlines\r\nand \u2028 more"),
    Doc("日本 é", "Ünïcode 🙂 \x00 text"),
    Doc("empty", ""),
    Doc("blank", " \n"),
    Doc("long", "word " * 200_000),
    Doc(" ", "a blank for an id"),
]


def written(docs: list[Doc], folder: Path) -> Part:
    draft = Part(folder)
    assert list(write_docs(iter(docs), draft)) == docs  # passed through
    return draft


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    draft = written(ODD, tmp_path)
    docs = Docs(tmp_path)
    assert [docs[i] for i in reversed(range(len(docs)))] == ODD[::-1]
    assert list(docs) == ODD
    assert list(docs.ids) == [d.id for d in ODD]
    assert docs.find([d.id for d in reversed(ODD)]) == {d.id: place for place, d in enumerate(ODD)}
    assert docs.find([" ", "", "absent", "half \ud83d"]) == {" ": 6}
    assert draft.facts == {"documents": 7, "empty_texts": 2, "ids_with_white_space": 3}


def test_a_document_is_parsed_once_while_there_is_room(tmp_path: Path) -> None:
    many = [Doc(str(i), "x" * 1000) for i in range(20)]
    written(many, tmp_path)
    roomy, narrow = Docs(tmp_path), Docs(tmp_path, cache_bytes=3000)
    first = [roomy[i] for i in range(20)]
    assert all(roomy[i] is doc for i, doc in enumerate(first))
    for docs in (roomy, narrow):
        assert [docs[i % 20] for i in range(60)] == many * 3
    assert len(narrow._ready) <= 2


@pytest.mark.parametrize(
    ("docs", "said"),
    [
        ([], "the corpus is empty"),
        ([Doc("a", "1"), Doc("b", "2"), Doc("a", "3")], "document 3: the id 'a' is there twice"),
        ([Doc("a", "1"), Doc("", "2")], "document 2: its id is empty"),
        ([Doc("a", "1"), Doc("b", "half \ud83d")], r"document 2 \('b'\): '\\ud83d' is half a character"),
    ],
)
def test_bad_corpora_are_refused(docs: list[Doc], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        list(write_docs(docs, Part(tmp_path)))


@given(st.dictionaries(st.text(max_size=3), st.sampled_from([0.0, 0.5, 1.0, 2.5]), min_size=1), st.integers(1, 12))
def test_best_is_the_head_of_trec_evals_order(scores: dict[str, float], k: int) -> None:
    scores = {i: s for i, s in scores.items() if i.isprintable()} or {"a": 1.0}
    ids = list(scores)
    falling = sorted(ids, reverse=True)
    precedence = np.array([falling.index(i) for i in ids], np.int32)
    top = best(np.array(list(scores.values()), np.float32), precedence, k)
    assert [ids[i] for i in top] == ordered(scores)[:k]


def test_precedence_on_disk_is_ids_falling(tmp_path: Path) -> None:
    written(ODD, tmp_path)
    docs = Docs(tmp_path)
    assert [docs.ids[i] for i in np.argsort(docs.precedence)] == sorted((d.id for d in ODD), reverse=True)


def test_a_stored_document_is_read_when_it_is_looked_at(tmp_path: Path) -> None:
    written(ODD, tmp_path)
    docs = Docs(tmp_path)
    found = hits(docs, np.array([2, 0]), np.array([2, 1], np.float32))
    assert [h.doc.id for h in found] == ["日本 é", "plain"]
    assert not docs._ready
    stored = found[1].doc
    assert (stored, hash(stored), repr(stored)) == (ODD[0], hash(ODD[0]), repr(ODD[0]))
    assert stored.contents == "A title some text"
    assert list(docs._ready) == [0]
    assert type(pickle.loads(pickle.dumps(stored))) is Doc
    assert replace(stored, title="") == Doc("plain", "some text")
    assert stored != ODD[1]
