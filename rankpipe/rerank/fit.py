"""Make a window's prompt fit into the model's context, by showing fewer words of each passage."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Self

from rankpipe.data import Doc, Query
from rankpipe.errors import ModelError
from rankpipe.lm import LM, Chat
from rankpipe.rerank.prompts import Wording

WORD = re.compile(r"\S+")
LONG = 40  # characters
SLACK = 4  # tokens
MUCH = 1000  # characters of a query that may leave no room for passages


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits."""

    chat: Chat
    size: int  # passages
    cut: tuple[int, ...]  # places in the window of those passages that were shortened
    cut_words: int  # of all passages together: words that are not shown whole
    words: int  # of each passage, at most
    tokens: int  # of the whole prompt; no fewer
    max_tokens: int  # left for the reply

    @classmethod
    def of(cls, passages: Sequence[Passage], pieces: int, max_words: int, **told: Any) -> Self:
        """Of so many pieces of each passage.

        :param told: what passages do not say.
        """
        left_out = [p.left_out(pieces) for p in passages]
        return cls(
            size=len(passages),
            cut=tuple(i for i, words in enumerate(left_out) if words),
            cut_words=sum(left_out),
            words=min(pieces, max_words),
            **told,
        )


class Passage:
    """A text that can be shortened to its first words.

    A word is what blanks enclose, as in RankLLM, whatever its length. Where there is no room for ``most`` of them, long
    ones are shortened too, by 40 characters at a time: Chinese, or base64, may have no other place for it. And that is
    how long a word may be in the mean, so that a book without a blank costs no more than a page.

    ``ends`` are the places where the text may end, the last one included.

    :param most: words that are shown at most.
    """

    def __init__(self, text: str, most: int) -> None:
        words = [m.span() for m in islice(WORD.finditer(text, 0, LONG * most), most)]
        self.text, self.ends = text, [end for first, last in words for end in (*range(first + LONG, last, LONG), last)]
        if not self.ends or not text[self.ends[-1] :].strip():  # nothing is left out: as it is
            self.ends[-1:] = [len(text)]

    def first(self, pieces: int | None = None) -> str:
        """The text up to the end of so many of its pieces, of which no word is shorter than one; all if None."""
        return self.text[: self.ends[-1 if pieces is None else min(pieces, len(self.ends)) - 1]]

    def left_out(self, pieces: int | None = None) -> int:
        """Words that are then not shown, or not to their end."""
        return len(self.text[len(self.first(pieces)) :].split())


def most_words(tokens: Callable[[int], int], room: int, max_words: int) -> int:
    """The most words for which there is room, up to ``max_words``; 0 if there is not even room for one.

    RankLLM takes words away step by step and never ends if the query alone is too long. This is a bisection: one count
    where all is well, about log2(max_words) more where it is not.

    :param tokens: how many tokens that many words make, with all that stands around them.
    """
    if tokens(max_words) <= room:
        return max_words
    if tokens(1) > room:
        return 0
    return 1 + bisect_left(range(2, max_words), True, key=lambda w: tokens(w) > room)


def most_pieces(passages: Sequence[Passage], max_words: int) -> int:
    """With so many pieces of each, all passages are shown as far as ``max_words`` go."""
    return max([max_words, *(len(p.ends) for p in passages)])


def written_tokens(lm: LM, text: str) -> int:
    """Tokens of a text, without the chat template around it."""
    empty, whole = ([{"role": "user", "content": said}] for said in ("", text))
    return lm.count(whole) - lm.count(empty)


def reply_tokens(lm: LM, text: str) -> int:
    """Tokens to leave for a given reply: a few more than counted, for its ends may join what is around them."""
    return written_tokens(lm, text) + SLACK


def choice_tokens(lm: LM, begin: str) -> int:
    """Tokens to leave for a reply of one token after ``begin``."""
    return 1 + (reply_tokens(lm, begin) if begin else 0)


def fit(
    prompt: Wording, lm: LM, query: Query, docs: Sequence[Doc], *, max_words: int, max_tokens: int, exact: bool = False
) -> Fitted:
    """The prompt with the most words per passage that fit, the same number for all.

    :param max_words: no more words of a passage than this, even if they would fit.
    :param max_tokens: room to leave for the reply.
    :param exact: whether a prompt is counted, too, that surely fits: where its tokens are paid from a budget.
    :raises ModelError: If it does not fit with one word of each passage; says the numbers.
    """
    passages = [Passage(prompt.document(doc), max_words) for doc in docs]
    room, at_most = lm.context - max_tokens, None if exact else getattr(lm, "at_most", None)

    def chat(pieces: int) -> Chat:
        return prompt.render(query.text, [p.first(pieces) for p in passages])

    @cache
    def tokens(pieces: int) -> int:
        shown = chat(pieces)
        most: int = room + 1 if at_most is None else at_most(shown)
        return most if most <= room else lm.count(shown)

    if not (pieces := most_words(tokens, room, most_pieces(passages, max_words))):
        several = len(docs) > 1
        shown, cure = (f"each of {len(docs)} passages", ", take smaller windows") if several else ("the passage", "")
        raise ModelError(
            f"query {query.id!r}: {tokens(1)} tokens with one word of {shown} "
            f"({lm.count(prompt.render(query.text, []))} without any), but of the model's {lm.context} only {room} "
            f"are left beside a reply of {max_tokens}; shorten the query{cure} or take a model "
            "with a longer context"
        )
    told = {"chat": chat(pieces), "tokens": tokens(pieces), "max_tokens": max_tokens}
    return Fitted.of(passages, pieces, max_words, **told)
