"""Fitting a prompt: the most words that go in, quickly, or an error with the numbers."""

from __future__ import annotations

import time

import pytest

from rankpipe.data import Doc, Query
from rankpipe.errors import ModelError
from rankpipe.lm import Chat
from rankpipe.lm.fake import Scripted
from rankpipe.rerank.fit import Passage, fit
from rankpipe.rerank.prompts import clean, named

PROMPT = named("rank_zephyr")
QUERY = Query("q7", "how long")


class Counting(Scripted):
    """Counts how often it counts."""

    counts = 0

    def count(self, chat: Chat) -> int:
        self.counts += 1
        return super().count(chat)


def docs(*lengths: int) -> list[Doc]:
    return [Doc(str(i), " ".join(f"w{j}" for j in range(n))) for i, n in enumerate(lengths)]


def test_one_count_where_all_fits() -> None:
    lm = Counting([])
    fitted = fit(PROMPT, lm, QUERY, docs(10, 60, 0), max_words=300, max_tokens=20)
    assert (lm.counts, fitted.cut) == (1, ())
    assert "[3] \n" in fitted.chat[1]["content"]


def test_more_than_max_words_is_cut_and_told() -> None:
    fitted = fit(PROMPT, Counting([]), QUERY, docs(299, 300, 301), max_words=300, max_tokens=20)
    assert fitted.cut == (2,)
    assert "w300" not in fitted.chat[1]["content"]


@pytest.mark.parametrize("context", range(200, 1000, 37))
def test_the_most_words_that_fit(context: int) -> None:
    passages = docs(5, 200, 90)

    def tokens(words: int) -> int:
        return lm.count(PROMPT.render(QUERY.text, [" ".join(d.text.split()[:words]) for d in passages]))

    lm = Counting([], context)
    best = max(w for w in range(1, 121) if tokens(w) <= context - 20)
    lm.counts = 0
    fitted = fit(PROMPT, lm, QUERY, passages, max_words=120, max_tokens=20)
    assert lm.counts <= 9
    assert lm.count(fitted.chat) == tokens(best)
    assert fitted.cut == tuple(i for i, n in enumerate((5, 200, 90)) if n > best)


@pytest.mark.parametrize("words", [1, 2, 119, 120])
def test_it_may_fit_to_the_last_token(words: int) -> None:
    [doc] = docs(120)
    whole = PROMPT.render(QUERY.text, [" ".join(doc.text.split()[:words])])
    lm = Counting([])
    for context, shown in ((lm.count(whole) + 20, words), (lm.count(whole) + 19, words - 1)):
        if shown:
            fitted = fit(PROMPT, Counting([], context), QUERY, [doc], max_words=120, max_tokens=20)
            assert fitted.chat[1]["content"].count("w") == whole[1]["content"].count("w") - (words - shown)
            assert fitted.cut == ((0,) if shown < 120 else ())
        else:
            with pytest.raises(
                ModelError, match=f"{lm.count(whole)} tokens with one word .* only {lm.count(whole) - 1}"
            ):
                fit(PROMPT, Counting([], context), QUERY, [doc], max_words=120, max_tokens=20)


@pytest.mark.parametrize(("query", "context"), [("word " * 5_000, 4096), ("short", 100), ("short", 10)])
def test_a_hopeless_prompt_ends_in_an_error(query: str, context: int) -> None:
    start = time.process_time()
    with pytest.raises(
        ModelError, match=rf"query 'q9': \d+ tokens with one word .* of the model's {context} only .* longer context$"
    ):
        fit(PROMPT, Counting([], context), Query("q9", query), docs(*[50] * 20), max_words=300, max_tokens=80)
    assert time.process_time() - start < 1


def test_100_kilobytes_a_passage() -> None:
    long = [Doc(str(i), "word " * 20_000) for i in range(10)] + [Doc(str(i), "漢字" * 17_000) for i in range(10, 20)]
    start = time.process_time()
    lm = Counting([], 2048)
    fitted = fit(PROMPT, lm, QUERY, long, max_words=300, max_tokens=80)
    assert time.process_time() - start < 2
    assert fitted.cut == tuple(range(20))
    assert lm.count(fitted.chat) <= 2048 - 80


def test_a_word_is_what_blanks_enclose() -> None:
    """As in RankLLM, however long it is; but it can be shortened where there is no room for the whole."""
    url = "https://example.org/" + "a" * 180
    passage = Passage(f"see {url} for more b c d e f g h", most=10)
    assert passage.first() == f"see {url} for more b c d e f g"
    assert passage.left_out() == 1
    assert [len(passage.first(n)) for n in (1, 2, 3, 6, 7, 8)] == [3, 44, 84, 204, 208, 213]
    assert [passage.left_out(n) for n in (1, 2, 5, 6, 7)] == [10, 10, 10, 9, 8]  # the URL's end is missing, up to 6
    fitted = fit(PROMPT, Counting([]), QUERY, [Doc("1", f"{url} b c d e f g h i j k")], max_words=10, max_tokens=20)
    assert f"[1] {url} b c d e f g h i j\n" in fitted.chat[1]["content"]
    assert (fitted.cut, fitted.cut_words, fitted.words) == ((0,), 1, 10)


def test_text_without_blanks_can_be_cut_every_40_characters() -> None:
    text = clean("漢" * 100 + " ab  c")
    passage = Passage(text, most=300)
    assert [len(passage.first(n)) for n in (1, 2, 3, 4, 5, 9)] == [40, 80, 100, 103, 105, 105]
    assert passage.first(3) == "漢" * 100
    assert [passage.left_out(n) for n in (1, 2, 3, 4, 5, 9)] == [3, 3, 2, 1, 0, 0]
    assert Passage("", most=3).first(1) == ""
    assert Passage("a b ", most=3).first(2) == "a b "  # not shortened, so as it is
    assert Passage("a b ", most=1).first() == "a"


def test_a_book_without_blanks_is_a_page() -> None:
    passage = Passage("字" * 1_000_000, most=300)
    assert passage.first() == "字" * 300 * 40
    assert passage.left_out() == 1


def test_words_that_are_not_shown_are_counted() -> None:
    fitted = fit(PROMPT, Counting([]), QUERY, docs(299, 300, 301, 450), max_words=300, max_tokens=20)
    assert (fitted.cut, fitted.cut_words) == ((2, 3), 1 + 150)
    fitted = fit(PROMPT, Counting([], 420), QUERY, docs(50, 300, 301), max_words=300, max_tokens=20)
    assert fitted.cut == (1, 2)
    assert fitted.cut_words == 300 + 301 - 2 * fitted.words
