"""FIRST: passages ordered by how likely their label is as the next token; the cases of section 2.7 of the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log
from pathlib import Path

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import DataError
from rankpipe.lm import Chat, Choice
from rankpipe.lm.fake import Oracle
from rankpipe.lm.hf import HF
from rankpipe.rerank import ledger
from rankpipe.rerank.first import First, by_likelihood
from rankpipe.rerank.plans import AllPairs, Single, Sliding
from rankpipe.rerank.prompts import Prompt
from rankpipe.rerank.template import Said
from tests.rerank.test_listwise import ranking, worths


@pytest.mark.parametrize(
    ("logprobs", "order", "rated"),
    [
        ((-1.0, -2.0, -0.1), (2, 0, 1), 3),  # {C -0.1, A -1, B -2}: [C]>[A]>[B]
        ((-1.0, -2.0, -inf), (0, 1, 2), 2),  # {c, " C", Z (window 20), A -1, B -2}: [A]>[B], the rest appended
        ((-inf, -inf, -inf), (0, 1, 2), 0),
        ((-1.0, -1.0, -0.5), (2, 0, 1), 3),  # equal: in their old order
        ((), (), 0),
    ],
)
def test_order(logprobs: tuple[float, ...], order: tuple[int, ...], rated: int) -> None:
    assert by_likelihood(logprobs) == (order, rated)


def test_a_perfect_judge_and_one_token_a_window() -> None:
    [out] = First(Oracle(float)).apply([ranking(100)])
    assert worths(out)[:10] == list(range(90, 100))[::-1]
    [step] = out.steps
    assert (step.calls, step.tokens_out, step.repaired) == (9, 9, 0)


def test_letters_beyond_26() -> None:
    [out] = First(Oracle(float), Single(52)).apply([ranking(52)])
    assert worths(out) == list(range(52))[::-1]
    with pytest.raises(DataError, match="a window of 53 passages, but there are 52 letters"):
        First(Oracle(float), Single(53)).apply([ranking(53)])


def test_all_queries_windows_are_one_batch() -> None:
    lm = Oracle(float)
    First(lm, Sliding()).apply([ranking(100, str(q)) for q in range(4)])
    assert lm.batches == [4] * 9


def test_choices_are_probabilities() -> None:
    [choice] = Oracle(float).choose([[{"role": "user", "content": "[A] 1\n[B] 2"}]], ["A", "B"])
    assert choice.logprobs == (log(1 / 3), log(2 / 3))


def test_no_context_is_overrun(tiny_lm: Path) -> None:
    """What the reply begins with takes room too."""
    prompt = Prompt("short", (Said("user", "{query} {passages}"),), passage="[{label}] {passage} ", labels="letters")
    for context in range(60, 70):
        lm = HF(str(tiny_lm), dtype="float32", context=context)
        hits = tuple(Hit(Doc(str(i), "a b c d e f g h i j k l m n o p"), -float(i)) for i in range(2))
        [out] = First(lm, Single(2), prompt).apply([Ranking(Query("1", "q"), hits)])
        assert out.steps[0].cut == 2


def test_a_label_after_a_word_is_a_token_with_its_blank(embedded: Callable[[str], Path]) -> None:
    """PRP's reply begins with "Passage A": that letter is a token only with the blank before it."""
    pytest.importorskip("transformers")
    lm = HF(str(embedded("smollm2")))
    assert not lm.is_token("A", begin="Passage ")
    asked: list[tuple[Sequence[str], str]] = []

    class Judge(Oracle):
        def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
            asked.append((choices, begin))
            assert all(lm.is_token(choice, begin=begin) for choice in choices)
            return super().choose(chats, choices, begin=begin)

    [out] = First(Judge(float), AllPairs(), "pairwise").apply([ranking(5)])
    assert worths(out) == [4, 3, 2, 1, 0]
    assert asked == [([" A", " B"], "Passage")]
    First(Judge(float)).apply([ranking(20)])
    assert asked[1] == ([*"ABCDEFGHIJKLMNOPQRST"], "[")


@pytest.mark.slow
def test_smollm2_rates_pairs(embedded: Callable[[str], Path]) -> None:
    texts = ["Bananas are yellow.", "Paris is the capital of France.", "Cats sleep a lot."]
    hits = tuple(Hit(Doc(str(i), text), -float(i)) for i, text in enumerate(texts))
    asked = Ranking(Query("1", "What is the capital of France?"), hits)
    noted: list[ledger.Entry] = []
    with ledger.written(noted.append):
        [out] = First(HF(str(embedded("smollm2"))), AllPairs(), "pairwise").apply([asked])
    assert (out.steps[0].calls, out.steps[0].repaired) == (6, 0)
    assert all(entry.reply[0] in "AB" and " > " in entry.reply for entry in noted)
