"""The ledger holds what was shown and said, window by window."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.lm.fake import Noisy, Oracle, Scripted
from rankpipe.rerank import ledger
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.pointwise import Pointwise
from rankpipe.stage import Reranker
from tests.rerank.test_listwise import ranking


def test_every_window_is_there() -> None:
    entries: list[ledger.Entry] = []
    with ledger.written(entries.append):
        out = Listwise(Oracle(float)).apply([ranking(100, "1"), ranking(25, "2")])
    Listwise(Oracle(float)).apply([ranking(100)])  # nobody listens
    assert [e.query for e in entries] == ["1", "2"] * 2 + ["1"] * 7
    first = entries[0]
    assert (len(first.docs), first.kind, first.words) == (20, "ok", 300)
    assert first.docs[0] == "d80"
    assert sorted(first.order) == sorted(first.docs)
    assert first.messages[0]["role"] == "system"
    for r in out:
        mine = [e for e in entries if e.query == r.query.id]
        assert sum(e.tokens_in for e in mine) == r.steps[0].tokens_in
        assert sum(e.tokens_out for e in mine) == r.steps[0].tokens_out
    assert entries[-1].order == tuple(h.doc.id for h in out[0].hits[:20])


def test_what_had_to_be_mended() -> None:
    entries: list[ledger.Entry] = []
    with ledger.written(entries.append):
        Listwise(Scripted(["[2] > [2] > [9]"])).apply([ranking(3)])
    [entry] = entries
    assert (entry.reply, entry.kind, entry.missing, entry.repeated, entry.foreign) == (
        "[2] > [2] > [9]", "repetition", 2, 1, 1,
    )  # fmt: skip


def test_words_that_were_not_shown() -> None:
    entries: list[ledger.Entry] = []
    hits = tuple(Hit(Doc(str(n), "word " * n), -float(n)) for n in (3, 301, 350))
    with ledger.written(entries.append):
        [out] = Listwise(Noisy()).apply([Ranking(Query("1", "word"), hits)])
    assert (entries[0].cut, entries[0].cut_words, entries[0].words) == (2, 1 + 50, 300)
    assert out.steps[0].cut == 2


def test_first_tells_probabilities() -> None:
    entries: list[ledger.Entry] = []
    with ledger.written(entries.append):
        First(Oracle(float)).apply([ranking(2)])
    assert entries[0].reply.count("0.667") == 1


@pytest.mark.parametrize(
    ("reranker", "skipped"),
    [
        (Listwise(Oracle(float), budget=Budget(calls=2)), [7, 0]),
        (Listwise(Oracle(float), budget=Budget(calls=0)), [9, 2]),
        (Pointwise(Noisy(), budget=Budget(calls=9)), [91, 16]),
        (Listwise(Oracle(float)), [0, 0]),
    ],
)
def test_queries_that_a_budget_ended(reranker: Reranker, skipped: list[int], tmp_path: Path) -> None:
    with ledger.kept(tmp_path / "l.draft"):
        made = reranker.apply([ranking(100, "1"), ranking(25, "2")])
    ledger.publish(tmp_path / "l.draft", tmp_path / "l.jsonl")
    assert [r.steps[0].skipped for r in made] == skipped
    assert ledger.ended(tmp_path / "l.jsonl") == {q: n for q, n in zip("12", skipped, strict=True) if n}
    windows = Counter(e.query for e in ledger.read(tmp_path / "l.jsonl"))
    assert [windows[r.query.id] for r in made] == [r.steps[0].calls for r in made]


def test_a_file_of_windows(tmp_path: Path) -> None:
    draft, path = tmp_path / "l.draft", tmp_path / "l.jsonl"
    keys = {"1": "one", "2": "two"}
    entries: list[ledger.Entry] = []
    with ledger.written(entries.append):
        Listwise(Oracle(float)).apply([ranking(25, "1"), ranking(30, "2")])
    with ledger.kept(draft, keys):
        Listwise(Oracle(float)).apply([ranking(25, "1"), ranking(30, "2")])
    copy(draft, tmp_path / "copy")
    assert ledger.noted(draft) == {"one", "two"}
    ledger.publish(draft, path)
    read = ledger.read(path)
    assert [replace(e, seconds=0) for e in read] == [replace(e, seconds=0) for e in entries]
    assert ledger.kinds(read) == {"ok": 4, "wrong_format": 0, "repetition": 0, "missing_documents": 0}
    assert not draft.exists()

    copy(tmp_path / "copy", draft)
    with open(draft, "ab") as f:
        f.write('three {"query": "ä'.encode()[:-1])  # killed
    assert ledger.noted(draft) == {"one", "two"}
    with ledger.kept(draft, {**keys, "1": "other"}, {"two", "other"}):  # 1 is asked by another model
        Listwise(Oracle(float)).apply([ranking(25, "1")])
    assert ledger.noted(draft) == {"two", "other"}
    ledger.publish(draft, path)
    again = ledger.read(path)
    assert [e.query for e in again] == ["2", "2", "1", "1"]
    assert again[:2] == [e for e in read if e.query == "2"]
    assert ledger.noted(draft) == set()
    assert ledger.read(tmp_path / "none.jsonl") == []
