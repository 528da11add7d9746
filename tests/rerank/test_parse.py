"""The parser: what it mends, and how it tells. RankLLM's behaviour: test_cases.py. Real replies: test_recorded.py."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.rerank.parse import Reply, parse


@pytest.mark.parametrize(
    ("text", "n", "reply"),
    [
        ("[3] > [1] > [2]", 3, Reply((2, 0, 1))),
        (" [3] > [1] > [2]\n", 3, Reply((2, 0, 1))),
        ("<think>hm 3</think>\n\n[3] > [1] > [2]", 3, Reply((2, 0, 1))),
        ("<think>2?</think>[1] > [2]<think>[2] > [1]", 2, Reply((0, 1))),
        ("<think>[2] > [1]", 2, Reply((0, 1), missing=2, wrong_format=True)),
        ("[3]>[1]>[2]", 3, Reply((2, 0, 1), wrong_format=True)),
        ("[3] > [1] > [2].", 3, Reply((2, 0, 1), wrong_format=True)),
        ("[1] > [2]", 3, Reply((0, 1, 2), missing=1)),
        ("[1] > [2] > [2]", 3, Reply((0, 1, 2), missing=1, repeated=1)),
        ("[1] > [2] > [3] > [1]", 3, Reply((0, 1, 2), repeated=1)),
        ("[1] > [2] > [4]", 3, Reply((0, 1, 2), missing=1, foreign=1)),
        ("[0] > [2] > [1]", 2, Reply((1, 0), foreign=1)),
        ("[1] > [4] > [5] > [4]", 3, Reply((0, 1, 2), missing=2, repeated=1, foreign=2)),
        ("so 2 it is, not 1.</think>\n[1] > [2]", 2, Reply((0, 1))),
        ("[00] > [02]", 2, Reply((1, 0), missing=1, foreign=1)),
        ("", 2, Reply((0, 1), missing=2, wrong_format=True)),
    ],
)
def test_what_was_mended(text: str, n: int, reply: Reply) -> None:
    assert parse(text, n) == reply
    assert reply.mended == bool(reply.missing or reply.repeated or reply.foreign)
    assert reply.told == n - reply.missing


@pytest.mark.parametrize(
    ("text", "order", "missing", "foreign"),
    [("B", (1, 0, 2), 0, 0), ("Passage C is best", (2, 0, 1), 0, 0), ("B, then A", (1, 0, 2), 0, 0),
     ("none", (0, 1, 2), 1, 0), ("Z", (0, 1, 2), 1, 1), ("Z or B", (1, 0, 2), 0, 0)],
)  # fmt: skip
def test_the_best_only(text: str, order: tuple[int, ...], missing: int, foreign: int) -> None:
    reply = parse(text, 3, "letters", "best")
    assert (reply.order, reply.missing, reply.foreign, reply.told) == (order, missing, foreign, 1 - missing)


def test_digits_of_other_scripts() -> None:
    assert parse("[٣] > [２] > [½]", 3).order == (2, 1, 0)
    assert parse("[１２] > [１０] > [⑪]", 12).order[:3] == (11, 9, 10)


@pytest.mark.parametrize("word", ["五", "Ⅴ", "½", "x"])
def test_number_words_are_no_names(word: str) -> None:
    assert parse(f"第{word} [2] > [1]", 9) == Reply((1, 0, *range(2, 9)), missing=7, wrong_format=True)


def test_letters_beyond_the_window_are_foreign() -> None:
    assert parse("[B] > [Z] > [A]", 2, "letters") == Reply((1, 0), foreign=1)


def test_small_letters_are_names_in_a_window_of_more_than_26() -> None:
    assert parse("[b] > [a] > [Z]", 27, "letters").order[:2] == (26, 25)
    assert parse("[b] > [a] > [Z]", 27, "letters").foreign == 1
    small = parse("[b] > [a] > [Z]", 26, "letters")
    assert small == Reply((25, *range(25)), missing=25, wrong_format=True)  # they are words there


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
