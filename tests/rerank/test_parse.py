"""The parser against RankLLM's behaviour (its functions were run on each case). Recorded replies: test_recorded.py."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.rerank.parse import Labels, Reply, parse
from rankpipe.rerank.plans import Round, Single, drive

# number in listwise-behaviour 2.5, labels, reply, window, order from 1
CASES: list[tuple[int, Labels, str, int, list[int]]] = [
    (1, "numbers", "[3] > [1] > [2]", 3, [3, 1, 2]),
    (2, "numbers", "> [1] > [2] > [3] > [4] > [5", 5, [1, 2, 3, 4, 5]),
    (3, "numbers", "[2] > [2] > [1]", 3, [2, 1, 3]),
    (4, "numbers", "[4] > [9] > [0] > [1]", 4, [4, 1, 2, 3]),
    (5, "numbers", "[3]", 4, [3, 1, 2, 4]),
    (6, "numbers", "I'm sorry, I cannot rank these passages.", 3, [1, 2, 3]),
    (6, "numbers", "", 3, [1, 2, 3]),
    (7, "numbers", "<think>[1] > [2] > [3]</think>[3] > [2] > [1]", 3, [3, 2, 1]),
    (7, "numbers", "<think>1</think> or 1?</think>[3] > [2] > [1]", 3, [3, 2, 1]),  # the last one counts
    (8, "numbers", "[②] > [①] > [³]", 3, [2, 1, 3]),
    (9, "numbers", "[rankstart] [2] > [1] > [3] [rankend]", 3, [2, 1, 3]),
    (9, "numbers", "[PASSAGE2, PASSAGE1, PASSAGE3]", 3, [2, 1, 3]),
    (9, "numbers", "2,1,3", 3, [2, 1, 3]),
    (10, "numbers", "213", 3, [1, 2, 3]),
    (11, "numbers", "Passage 12 is best: [2] > [1]", 3, [2, 1, 3]),
    (12, "numbers", "[1] > [2] > [3]\nExplanation: [3] is better than [1]", 3, [1, 2, 3]),
    (13, "letters", "[C] > [A] > [B]", 3, [3, 1, 2]),
    (13, "letters", "C>A>B", 3, [3, 1, 2]),
    (14, "letters", "[c] > [a] > [b]", 3, [1, 2, 3]),
    (14, "letters", "CAB", 3, [1, 2, 3]),
    (14, "letters", "[B²] > [A1]", 3, [2, 1, 3]),  # digits part, superscript ones too
    (15, "letters", "The ranking is: [B] > [A]", 3, [2, 1, 3]),
    # RankLLM's remote client passes an error's text off as the reply. Ours raises, so this never is one.
    (16, "numbers", "Error code: 404 - model 2 not found, 3 retries", 3, [2, 3, 1]),
]


@pytest.mark.parametrize(("case", "labels", "text", "n", "order"), CASES)
def test_as_rankllm(case: int, labels: Labels, text: str, n: int, order: list[int]) -> None:
    assert [i + 1 for i in parse(text, n, labels).order] == order


def test_case_17_a_window_inside_a_list() -> None:
    def plan(n: int):  # type: ignore[no-untyped-def]
        order = list(range(n))
        [order[2:5]] = yield Round([order[2:5]], order[:])
        return order

    [order] = drive([plan(6)], lambda asked: [[w[i] for i in parse("[3] > [1] > [2]", 3).order] for _, w in asked])
    assert [f"d{i + 1}" for i in order] == ["d1", "d2", "d5", "d3", "d4", "d6"]
    assert drive([Single()(0)], lambda asked: [[]]) == [[]]


@pytest.mark.parametrize(
    ("text", "n", "reply"),
    [
        ("[3] > [1] > [2]", 3, Reply((2, 0, 1))),
        (" [3] > [1] > [2]\n", 3, Reply((2, 0, 1))),
        ("<think>hm 3</think>\n\n[3] > [1] > [2]", 3, Reply((2, 0, 1))),
        ("[3]>[1]>[2]", 3, Reply((2, 0, 1), wrong_format=True)),
        ("[3] > [1] > [2].", 3, Reply((2, 0, 1), wrong_format=True)),
        ("[1] > [2]", 3, Reply((0, 1, 2), missing=1)),
        ("[1] > [2] > [2]", 3, Reply((0, 1, 2), missing=1, repeated=1)),
        ("[1] > [2] > [3] > [1]", 3, Reply((0, 1, 2), repeated=1)),
        ("[1] > [2] > [4]", 3, Reply((0, 1, 2), missing=1, foreign=1)),
        ("[0] > [2] > [1]", 2, Reply((1, 0), foreign=1)),
        ("[00] > [02]", 2, Reply((1, 0), missing=1, foreign=1)),
        ("", 2, Reply((0, 1), missing=2, wrong_format=True)),
    ],
)
def test_what_was_mended(text: str, n: int, reply: Reply) -> None:
    assert parse(text, n) == reply
    assert reply.mended == bool(reply.missing or reply.repeated or reply.foreign)


@pytest.mark.parametrize(
    ("text", "n", "kind"),
    [
        ("[3] > [1] > [2]", 3, "ok"),
        ("[3]>[1]>[2]", 3, "wrong_format"),
        ("[1] > [2]", 3, "missing_documents"),
        ("[1] > [1]", 3, "missing_documents"),
        ("[1] > [2] > [2]", 3, "repetition"),
        ("[1] > [2] > [3] > [1]", 3, "repetition"),
        ("[1] > [2] > [4]", 3, "missing_documents"),
        ("[1] > [2] > [3].", 3, "wrong_format"),
        ("[1]", 1, "ok"),  # missing_documents in RankLLM, which counts the example in its prompt as a second passage
    ],
)
def test_kinds_are_those_of_rankllms_analysis(text: str, n: int, kind: str) -> None:
    """Section 2.8 of the reference."""
    assert parse(text, n).kind == kind


@pytest.mark.parametrize(
    ("text", "order", "missing", "foreign"),
    [("B", (1, 0, 2), 0, 0), ("Passage C is best", (2, 0, 1), 0, 0), ("B, then A", (1, 0, 2), 0, 0),
     ("none", (0, 1, 2), 1, 0), ("Z", (0, 1, 2), 1, 1), ("Z or B", (1, 0, 2), 0, 0)],
)  # fmt: skip
def test_the_best_only(text: str, order: tuple[int, ...], missing: int, foreign: int) -> None:
    reply = parse(text, 3, "letters", "best")
    assert (reply.order, reply.missing, reply.foreign) == (order, missing, foreign)


def test_where_we_deviate() -> None:
    assert parse("[⑫] > [⑪]", 12).order[:2] == (11, 10)  # dropped in RankLLM
    assert parse("AB", 20, "letters").order[0] == 0  # passage 12 in RankLLM
    assert parse("[٣] > [２] > [½]", 3).order == (2, 1, 0)
    assert parse("[１２] > [１０] > [⑪]", 12).order[:3] == (11, 9, 10)


@pytest.mark.parametrize("word", ["五", "Ⅴ", "½", "x"])
def test_number_words_are_no_names(word: str) -> None:
    assert parse(f"第{word} [2] > [1]", 9) == Reply((1, 0, *range(2, 9)), missing=7, wrong_format=True)


def test_letters_beyond_the_window_are_foreign() -> None:
    assert parse("[B] > [Z] > [A]", 2, "letters") == Reply((1, 0), foreign=1)


@given(st.text(), st.integers(0, 30), st.sampled_from(["numbers", "letters"]))
def test_any_text_is_a_whole_order(text: str, n: int, labels: Labels) -> None:
    assert sorted(parse(text, n, labels).order) == list(range(n))


@given(st.lists(st.integers(0, 9)), st.integers(0, 8))
def test_mended_unless_a_permutation(names: list[int], n: int) -> None:
    reply = parse(" > ".join(f"[{i}]" for i in names), n)
    assert reply.mended == (sorted(names) != list(range(1, n + 1)))
    assert reply.wrong_format == (not names)
    assert n - reply.missing + reply.repeated + reply.foreign == len(names)


def test_absurd_replies_are_quick() -> None:
    start = time.process_time()
    assert parse("9" * 1_000_000, 20).foreign == 1
    assert parse("[1] > " * 200_000, 20).repeated == 199_999
    assert parse("０" * 5_000 + "2", 20).order[0] == 1
    assert time.process_time() - start < 2
