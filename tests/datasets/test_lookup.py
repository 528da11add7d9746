"""A run finds its texts, in trec_eval's order; what is missing is counted and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset, rankings
from rankpipe.errors import DataError
from rankpipe.trec import ordered, to_run


def test_texts_and_order(tiny: Dataset) -> None:
    run = {"q2": {"light-1": 1.0, "light-2": 1.0 + 1e-12, "light-3": 2.0}, "q1": {"tide-1": 0.5}}
    first, second = rankings(run, tiny)
    assert first.query.text == "how do sailors recognise a lighthouse at night"
    assert [h.doc.id for h in first.hits] == ordered(run["q2"]) == ["light-3", "light-2", "light-1"]
    assert second.hits[0].doc == next(iter(tiny.docs()))


def test_scores_that_are_alike_in_single_precision_are_ties(tiny: Dataset) -> None:
    run = {"q2": {"light-1": 1.0 + 1e-12, "light-2": 1.0, "tide-1": 1e300, "tide-2": -1e300}}
    [ranking] = rankings(run, tiny)
    assert [h.doc.id for h in ranking.hits] == ordered(run["q2"]) == ["tide-1", "light-2", "light-1", "tide-2"]
    assert ordered(to_run([ranking])["q2"]) == ordered(run["q2"])


def test_from_a_file(tiny: Dataset, tmp_path: Path) -> None:
    (tmp_path / "a.trec").write_text("q1 Q0 tide-1 1 2.5 tag\n")
    [ranking] = rankings(tmp_path / "a.trec", tiny)
    assert (ranking.hits[0].doc.title, ranking.hits[0].score) == ("Why tides rise", 2.5)


def test_missing_documents_are_counted(tiny: Dataset) -> None:
    run = {"q1": {"tide-1": 1.0, **{f"no-{n}": 0.5 for n in range(7)}}}
    with pytest.raises(DataError, match=r"7 of the run's 8 documents are not in tiny/test: 'no-0', .*'no-4', \.\.\.;"):
        rankings(run, tiny)


def test_missing_queries_are_counted(tiny: Dataset) -> None:
    with pytest.raises(DataError, match="1 of the run's 2 queries are not in tiny/test: 'q77'; is the run over this"):
        rankings({"q1": {}, "q77": {"tide-1": 1.0}}, tiny)


def test_corpus_is_read_once() -> None:
    class Counted:
        place, path, count, starts = "counted", None, 2, 0

        def docs(self):  # type: ignore[no-untyped-def]
            self.starts += 1
            yield from (Doc("a", "x"), Doc("b", "y"))

        def checksum(self) -> str:
            return ""

    from rankpipe.data import Query

    corpus = Counted()
    data = Dataset("counted", corpus, (Query("1", "x"), Query("2", "y")))
    assert len(rankings({"1": {"a": 1.0}, "2": {"b": 1.0, "a": 0.5}}, data)) == 2
    assert corpus.starts == 1
