"""MonoT5 and DuoT5: a tiny random model against a plain loop, one input at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.rerank import ledger
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.t5 import T5, DuoT5, MonoT5
from tests.lm.tiny import BOS

TEXTS = ["a cat", "", "the dog sat on the mat", "true or false?", "a cat", "naïve café [1] </s>"]
SHOWN = [*TEXTS[:5], "naïve café (1) < /s>"]  # clean() has seen them


def ranking(*texts: str, question: str = "which pet") -> Ranking:
    return Ranking(Query("7", question), tuple(Hit(Doc(f"d{i}", text), -float(i)) for i, text in enumerate(texts)))


def by_id(made: Ranking) -> dict[str, float]:
    return {h.doc.id: h.score for h in made.hits}


def plain(folder: Path, text: str) -> float:
    """P(true) against P(false) as the first token of the decoder, unbatched and unpadded."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer, model = AutoTokenizer.from_pretrained(folder), T5ForConditionalGeneration.from_pretrained(folder)
    with torch.inference_mode():
        out = model(**tokenizer(text, return_tensors="pt"), decoder_input_ids=torch.tensor([[BOS]]))
    pair = out.logits[0, 0, [tokenizer.convert_tokens_to_ids(w) for w in ("true", "false")]].double()
    return float(pair.log_softmax(-1)[0])


def mono(folder: Path, **options: Any) -> MonoT5:
    return MonoT5(str(folder), **options)


def duo(folder: Path, **options: Any) -> DuoT5:
    return DuoT5(str(folder), **options)


def test_monot5_as_a_plain_loop_says(tiny_t5: Path) -> None:
    [made] = mono(tiny_t5, batch_tokens=300).apply([ranking(*TEXTS)])
    for i, text in enumerate(SHOWN):
        expected = plain(tiny_t5, f"Query: which pet Document: {text} Relevant:")
        assert by_id(made)[f"d{i}"] == pytest.approx(expected, abs=1e-5)
    scores = [h.score for h in made.hits]
    assert scores == sorted(scores, reverse=True)
    assert len({round(s, 4) for s in scores}) == 5
    [step] = made.steps
    assert (step.stage, step.calls, step.tokens_out, step.cut) == ("MonoT5", 6, 6, 0)
    assert step.tokens_in > 6 * len("Query: which pet Document:  Relevant:")


def test_duot5_as_a_plain_loop_says(tiny_t5: Path) -> None:
    shown = SHOWN[:4]
    [made] = duo(tiny_t5, depth=4, batch_tokens=300).apply([ranking(*TEXTS)])
    p = {
        (i, j): exp(plain(tiny_t5, f"Query: which pet Document0: {shown[i]} Document1: {shown[j]} Relevant:"))
        for i in range(4)
        for j in range(4)
        if i != j
    }
    for i in range(4):
        expected = sum(p[i, j] + 1 - p[j, i] for j in range(4) if j != i)
        assert by_id(made)[f"d{i}"] == pytest.approx(expected, abs=1e-5)
    assert [h.doc.id for h in made.hits[4:]] == ["d4", "d5"]
    last = made.hits[3].score
    assert [h.score for h in made.hits[4:]] == [last - 1, last - 2]
    assert (made.steps[0].calls, made.steps[0].stage) == (12, "DuoT5")


@pytest.mark.parametrize("kind", [MonoT5, DuoT5])
def test_order_and_company_change_nothing(tiny_t5: Path, kind: type[MonoT5 | DuoT5]) -> None:
    given = ranking(*TEXTS[:4])
    turned = replace(given, hits=tuple(Hit(h.doc, float(i)) for i, h in enumerate(given.hits))[::-1])
    stage: T5 = kind(str(tiny_t5))
    here, there = by_id(stage.apply([given])[0]), by_id(stage.apply([ranking("x" * 300), turned])[1])
    assert there == pytest.approx(here, abs=1e-5)
    if kind is MonoT5:
        alone = {h.doc.id: stage.apply([replace(given, hits=(h,))])[0].hits[0].score for h in given.hits}
        assert here == pytest.approx(alone, abs=1e-5)


def test_batches_change_nothing(tiny_t5: Path) -> None:
    one, many = (by_id(mono(tiny_t5, batch_tokens=n).apply([ranking(*TEXTS)])[0]) for n in (1, 100_000))
    assert one == pytest.approx(many, abs=1e-5)


def test_long_passages_keep_the_end_of_the_input(tiny_t5: Path) -> None:
    stage, word = mono(tiny_t5, max_length=80), "word "
    [made] = stage.apply([ranking(word * 100, "short")])
    head, tail = "Query: which pet Document: ", " Relevant:"
    most = max(n for n in range(1, 20) if len(head + (word * n).strip() + tail) + 1 <= 80)
    expected = plain(tiny_t5, head + (word * most).strip() + tail)
    assert by_id(made)["d0"] == pytest.approx(expected, abs=1e-5)
    assert made.steps[0].cut == 1


def test_two_long_passages_are_cut_alike_and_counted_once(tiny_t5: Path) -> None:
    [made] = duo(tiny_t5, max_length=100).apply([ranking("word " * 100, "dear " * 100, "short")])
    assert made.steps[0].cut == 2
    assert made.steps[0].tokens_in <= 6 * 100


def test_a_megabyte(tiny_t5: Path) -> None:
    start = time.perf_counter()
    [made] = mono(tiny_t5).apply([ranking("word " * 200_000, "字" * 300_000)])
    assert time.perf_counter() - start < 20
    assert made.steps[0].cut == 2


def test_a_query_that_is_too_long_says_the_numbers(tiny_t5: Path) -> None:
    with pytest.raises(
        ModelError, match=r"query '7': 3[0-9]+ tokens with one word of a passage, but max_length is 100;"
    ):
        mono(tiny_t5, max_length=100).apply([ranking("a b", question="long " * 60)])


@pytest.mark.parametrize("calls", [0, 1, 4, 6, 7])
def test_a_budget_of_passages(tiny_t5: Path, calls: int) -> None:
    given = ranking(*TEXTS)
    [whole], [made] = (mono(tiny_t5, budget=b).apply([given]) for b in (Budget(), Budget(calls=calls)))
    n = min(calls, 6)
    assert (made.steps[0].calls, made.steps[0].skipped) == (n, 6 - n)
    assert [h.doc.id for h in made.hits[n:]] == [f"d{i}" for i in range(n, 6)]
    assert {d: s for d, s in by_id(made).items() if d in {f"d{i}" for i in range(n)}} == pytest.approx(
        {f"d{i}": by_id(whole)[f"d{i}"] for i in range(n)}, abs=1e-5
    )


def test_a_budget_of_tokens(tiny_t5: Path) -> None:
    [whole] = mono(tiny_t5).apply([ranking(*TEXTS)])
    used = whole.steps[0].tokens_in + whole.steps[0].tokens_out
    for most in (0, used // 2, used - 1, used):
        [step] = mono(tiny_t5, budget=Budget(tokens=most)).apply([ranking(*TEXTS)])[0].steps
        assert step.tokens_in + step.tokens_out <= most
        assert step.calls + step.skipped == 6
        assert (step.skipped == 0) == (most == used)


def test_a_budget_of_comparisons(tiny_t5: Path) -> None:
    """Of d0 before d1, d2, d3 only the first two: the others are half won, and d3 was never compared."""
    p = [exp(plain(tiny_t5, f"Query: which pet Document0: a cat Document1: {text} Relevant:")) for text in SHOWN[1:3]]
    ended: list[ledger.Ended] = []
    with ledger.written(lambda _: None, ended.append):
        [made] = duo(tiny_t5, depth=4, budget=Budget(calls=2)).apply([ranking(*TEXTS[:4])])
    assert ended == [ledger.Ended("7", 10)]
    assert (made.steps[0].calls, made.steps[0].skipped) == (2, 10)
    expected = {"d0": sum(p) + 2, "d1": 1 - p[0] + 2.5, "d2": 1 - p[1] + 2.5}
    assert {d: s for d, s in by_id(made).items() if d != "d3"} == pytest.approx(expected, abs=1e-5)
    assert made.hits[-1].doc.id == "d3"


def test_every_input_is_noted(tiny_t5: Path) -> None:
    noted: list[ledger.Entry] = []
    with ledger.written(noted.append):
        [one] = mono(tiny_t5, max_length=60).apply([ranking("a cat", "word " * 50)])
        duo(tiny_t5).apply([ranking("a cat", "a dog")])
    assert [(e.docs, e.order, e.kind, e.cut) for e in noted[:2]] == [
        (("d0",), ("d0",), "ok", 0), (("d1",), ("d1",), "ok", 1),
    ]  # fmt: skip
    assert noted[0].messages == [{"role": "input", "content": "Query: which pet Document: a cat Relevant:"}]
    assert noted[1].messages[0]["content"].endswith("word Relevant:")
    assert noted[1].cut_words == 50 - noted[1].messages[0]["content"].count("word")
    assert noted[0].reply == f"true {exp(by_id(one)['d0']):.6g}"
    assert [e.tokens_in for e in noted[:2]] == [one.steps[0].tokens_in - noted[1].tokens_in, noted[1].tokens_in]
    pairs = {e.docs: e for e in noted[2:]}
    assert set(pairs) == {("d0", "d1"), ("d1", "d0")}
    for (first, second), entry in pairs.items():
        assert entry.order == ((first, second) if float(entry.reply.split()[1]) >= 0.5 else (second, first))


def test_few_hits_or_none(tiny_t5: Path) -> None:
    none, one = duo(tiny_t5).apply([ranking(), ranking("a")])
    assert (none.hits, by_id(one), one.steps[0].calls) == ((), {"d0": 0.0}, 0)
    none, one = mono(tiny_t5).apply([ranking(), ranking("a")])
    assert (none.hits, len(one.hits), none.steps[0].calls) == ((), 1, 0)


def test_ties_fall_as_trec_eval_breaks_them(tiny_t5: Path) -> None:
    [made] = mono(tiny_t5, batch_tokens=1).apply([ranking("a cat", "a cat", "a cat")])
    assert [h.doc.id for h in made.hits] == ["d2", "d1", "d0"]


def test_the_words_are_tokens(tiny_t5: Path) -> None:
    with pytest.raises(ModelError, match="'sim' is 3 tokens, expected one"):
        mono(tiny_t5, true="sim").apply([ranking("a")])


def test_what_is_no_t5(tiny_lm: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="AutoModelForSeq2SeqLM cannot load it"):
        MonoT5(str(tiny_lm)).apply([ranking("a")])
    with pytest.raises(RecipeError, match=r"depth: 0; expected 1 or more\n.*batch_tokens: 0"):
        DuoT5(depth=0, batch_tokens=0)


def test_construction_and_empty_rankings_import_nothing() -> None:
    code = (
        "import sys; from rankpipe.rerank.t5 import MonoT5, DuoT5; from rankpipe.data import Query, Ranking;"
        "[s.apply([Ranking(Query('1', 'q'))]) for s in (MonoT5(), DuoT5())];"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
