"""Make a window's prompt fit into the model's context, by showing fewer words of each passage."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from rankpipe.data import Doc, Query
from rankpipe.errors import ModelError
from rankpipe.lm import LM, Chat
from rankpipe.rerank.prompts import Wording

WORD = re.compile(r"\S{1,40}")
SLACK = 4  # tokens


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits."""

    chat: Chat
    cut: tuple[int, ...]  # places in the window of those passages that were shortened
    words: int  # of each passage, at most
    tokens: int  # of the whole prompt


class Passage:
    """A text that can be shortened to its first words.

    A word is what blanks enclose, as in RankLLM; of more than 40 characters without a blank every 40 are one, so that
    Chinese or base64 can be shortened too.
    """

    def __init__(self, text: str, most: int) -> None:
        self.text, self.ends = text, [m.end() for m in islice(WORD.finditer(text), most + 1)]

    def first(self, words: int) -> str:
        """The text's first words, at most ``most``."""
        return self.text[: self.ends[words - 1]] if len(self.ends) > words else self.text


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


def fit(prompt: Wording, lm: LM, query: Query, docs: Sequence[Doc], *, max_words: int, max_tokens: int) -> Fitted:
    """The prompt with the most words per passage that fit, the same number for all.

    :param max_words: no more words of a passage than this, even if they would fit.
    :param max_tokens: room to leave for the reply.
    :raises ModelError: If it does not fit with one word of each passage; says the numbers.
    """
    passages = [Passage(prompt.document(doc), max_words) for doc in docs]
    room = lm.context - max_tokens

    def chat(words: int) -> Chat:
        return prompt.render(query.text, [p.first(words) for p in passages])

    @cache
    def tokens(words: int) -> int:
        return lm.count(chat(words))

    if not (words := most_words(tokens, room, max_words)):
        several = len(docs) > 1
        shown, cure = (f"each of {len(docs)} passages", ", take smaller windows") if several else ("the passage", "")
        raise ModelError(
            f"query {query.id!r}: {tokens(1)} tokens with one word of {shown} "
            f"({lm.count(prompt.render(query.text, []))} without any), but of the model's {lm.context} only {room} "
            f"are left beside a reply of {max_tokens}; shorten the query{cure} or take a model "
            "with a longer context"
        )
    cut = tuple(i for i, p in enumerate(passages) if len(p.ends) > words)
    return Fitted(chat(words), cut, words, tokens(words))
