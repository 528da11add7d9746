"""Listwise reranking as a whole, with models that need no weights, and once with a real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets import Dataset
from rankpipe.errors import DataError, ModelError, RecipeError
from rankpipe.journal import Kept
from rankpipe.lm.fake import Noisy, Oracle, Scripted
from rankpipe.recipe import build, check
from rankpipe.rerank import ledger
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import MultiPass, Planner, SetwiseHeap, Single, Sliding, Tournament
from rankpipe.rerank.pointwise import Pointwise
from rankpipe.trec import to_run


def ranking(n: int, query: str = "1") -> Ranking:
    """``n`` documents whose text is their worth, in no order."""
    worths = list(range(n))
    Random(f"{query} {n}").shuffle(worths)
    hits = (Hit(Doc(f"d{i}", f"{worth:03}"), float(n - i)) for i, worth in enumerate(worths))
    return Ranking(Query(query, "what is it worth"), tuple(hits))


def worths(r: Ranking) -> list[int]:
    return [int(h.doc.text) for h in r.hits]


def test_a_perfect_judge_sorts_one_window() -> None:
    [out] = Listwise(Oracle(float)).apply([ranking(20)])
    assert worths(out) == list(range(20))[::-1]
    assert [h.score for h in out.hits] == [1 / r for r in range(1, 21)]
    [step] = out.steps
    assert step.stage == "Listwise"
    assert (step.calls, step.repaired, step.cut) == (1, 0, 0)
    assert step.tokens_in > 100
    assert step.tokens_out == 20 * 3 + 19
    assert step.seconds > 0


@pytest.mark.parametrize("plan", [Sliding(), Tournament()])
def test_the_best_come_to_the_top(plan: Sliding | Tournament) -> None:
    for out in Listwise(Oracle(float), plan).apply([ranking(100, str(q)) for q in range(4)]):
        assert worths(out)[:10] == list(range(90, 100))[::-1]
        assert sorted(worths(out)) == list(range(100))


def test_all_queries_windows_are_one_batch() -> None:
    lm = Oracle(float)
    Listwise(lm).apply([ranking(100, str(q)) for q in range(8)])
    assert lm.batches == [8] * 9


def test_no_reply_depends_on_what_else_is_asked() -> None:
    inputs = [ranking(n, str(n)) for n in (100, 0, 1, 10, 25, 21, 2, 20)]
    together = Listwise(Noisy(noise=1, malformed=0.5)).apply(inputs)
    alone = [out for r in inputs for out in Listwise(Noisy(noise=1, malformed=0.5)).apply([r])]
    assert [replace(s, seconds=0) for out in together for s in out.steps] == [
        replace(s, seconds=0) for out in alone for s in out.steps
    ]
    assert to_run(together) == to_run(alone)


def test_ten_candidates_are_reranked() -> None:
    """RankLLM, with its defaults, leaves exactly ten as they are."""
    [out] = Listwise(Oracle(float)).apply([ranking(10)])
    assert worths(out) == list(range(10))[::-1]


def test_nothing_and_one_cost_no_call() -> None:
    lm = Oracle(float)
    none, one = Listwise(lm).apply([ranking(0), ranking(1)])
    assert (lm.batches, len(none.hits), len(one.hits)) == ([], 0, 1)
    assert none.steps[0].calls == one.steps[0].calls == 0


def test_what_lies_deeper_stays() -> None:
    before = ranking(50)
    [out] = Listwise(Oracle(float), depth=30).apply([before])
    assert worths(out)[30:] == worths(before)[30:]
    assert worths(out)[:10] == sorted(worths(before)[:30])[:-11:-1]


def test_repairs_and_cuts_are_counted_by_query() -> None:
    replies = ["[3] > [1] > [2]", "[2]", "3, 2, 1"]
    inputs = [ranking(3, str(q)) for q in range(3)]
    long = Doc("long", "word " * 301)
    inputs[2] = replace(inputs[2], hits=(Hit(long, 9.0), *inputs[2].hits[1:]))
    out = Listwise(Scripted(replies)).apply(inputs)
    assert [r.steps[0].repaired for r in out] == [0, 1, 0]
    assert [r.steps[0].cut for r in out] == [0, 0, 1]
    assert [h.doc.id for h in out[0].hits] == ["d2", "d0", "d1"]
    assert [h.doc.id for h in out[1].hits] == ["d1", "d0", "d2"]
    assert [h.doc.id for h in out[2].hits] == ["d2", "d1", "long"]


def test_a_passage_cut_in_two_windows_counts_once() -> None:
    docs = [Doc(f"d{i}", "word " * 400) for i in range(25)]
    [out] = Listwise(Noisy()).apply([Ranking.scored(Query("1", "word"), [Hit(d, 1.0) for d in docs])])
    assert (out.steps[0].calls, out.steps[0].cut) == (2, 25)


def test_an_endless_query_ends_the_run() -> None:
    hopeless = Ranking(Query("q9", "word " * 5000), ranking(20).hits)
    with pytest.raises(ModelError, match="query 'q9'"):
        Listwise(Noisy()).apply([ranking(20), hopeless])


def test_malformed_replies_lose_nothing(tiny: Dataset) -> None:
    docs = list(tiny.docs())
    inputs = [Ranking.scored(q, [Hit(d, 1.0) for d in docs]) for q in tiny.queries]
    out = Listwise(Noisy(malformed=1.0, seed=3), Sliding(10, 5)).apply(inputs)
    assert 0 < sum(r.steps[0].repaired for r in out) < sum(r.steps[0].calls for r in out)  # some only look otherwise
    assert all({h.doc.id for h in r.hits} == {d.id for d in docs} for r in out)


@pytest.mark.parametrize("wrong", [{"max_words": 0}, {"depth": 0}])
def test_bad_arguments(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="must be 1 or more"):
        Listwise(Noisy(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no prompt 'x'"):
        Listwise(Noisy(), prompt="x")


@pytest.mark.parametrize("plan", [Sliding(), Tournament(), MultiPass(Single())])
def test_a_prompt_for_the_best_does_not_go_with_a_plan_for_orders(plan: Planner) -> None:
    """Its replies would leave all but the best where they were. First rates every label, so that any plan will do."""
    with pytest.raises(
        RecipeError, match=r"'setwise' asks for the best passage only, but \w+\(.* needs whole orders; "
    ):
        Listwise(Noisy(), plan, "setwise")
    assert First(Noisy(), plan, "setwise").plan == plan
    assert Listwise(Noisy(), SetwiseHeap()).prompt.answer == "order"


def test_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        'passage: "[{label}] {passage}\\n"\nmessages: [{user: "query: {query}\\n{passages}"}]'
    )
    node = {
        "use": "listwise",
        "lm": {"use": "fake", "noise": 0},
        "plan": {"use": "tournament", "size": 8, "keep": 3},
        "prompt": {"use": "prompt", "file": "mine.yaml"},
    }
    assert check(node, root=tmp_path) == []
    [out] = build(node, tmp_path).apply([ranking(30)])
    assert out.steps[0].calls == 3 + 1 + 1 + 1
    assert (
        len(check({"use": "listwise", "lm": {"use": "hf", "dtype": "int8"}, "plan": {"use": "sliding", "sise": 9}}))
        == 2
    )


@pytest.mark.slow
def test_a_real_model(tiny: Dataset) -> None:
    """SmolLM2 is far too small to rank well; what it says is mended, counted, and a whole ranking."""
    pytest.importorskip("torch")
    from rankpipe.lm.hf import HF

    docs = list(tiny.docs())[:8]
    inputs = [Ranking.scored(q, [Hit(d, 1.0 / i) for i, d in enumerate(docs, 1)]) for q in tiny.queries[:3]]
    out = Listwise(HF("smollm2"), Single(8)).apply(inputs)
    steps = [r.steps[0] for r in out]
    assert all(sorted(h.doc.id for h in r.hits) == sorted(d.id for d in docs) for r in out)
    assert all(s.calls == 1 and s.tokens_in > 300 and 0 < s.tokens_out <= 50 for s in steps)
    assert any(s.repaired for s in steps)


@pytest.mark.parametrize("kind", [Listwise, First, Pointwise])
def test_a_query_that_is_too_long_is_refused_before_the_others_are_asked(
    kind: type[Listwise | First | Pointwise], tmp_path: Path
) -> None:
    """It comes in the second batch, of which the first knows nothing."""
    reranker = kind(Noisy(context=900))
    reranker.batch = 2
    given = [ranking(5, str(q)) for q in range(3)]
    long = replace(given[-1], query=Query("long", "a word " * 500))
    for asked in (reranker, Kept(reranker, tmp_path / "k.jsonl", "it")):
        with ledger.written(lambda entry: pytest.fail(f"asked: {entry}")), pytest.raises(ModelError, match="'long': "):
            asked.through([*given, long], "it")
    assert len(reranker.through(given, "it")) == 3
