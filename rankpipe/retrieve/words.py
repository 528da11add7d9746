"""Text to words, for BM25."""

from __future__ import annotations

import re
from collections.abc import Callable

from rankpipe.catalog import near
from rankpipe.errors import RecipeError

WORD = re.compile(r"\b\w\w+\b")


class Words:
    """Runs of two or more word characters, lower-cased; stop words left out, the others stemmed.

    :param stemmer: an algorithm of PyStemmer's ("english" is Snowball's, also called Porter 2), or "none".
    :param stopwords: one of bm25s's lists ("english" is Lucene's, of 33 words), or "none".
    :raises RecipeError: If there is no such stemmer or list; says the nearest names.
    """

    def __init__(self, stemmer: str = "english", stopwords: str = "english") -> None:
        self._stem = list if stemmer == "none" else _stemmer(stemmer)
        self._stop = frozenset[str]() if stopwords == "none" else _stopwords(stopwords)

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        return self._stem([w for w in WORD.findall(text.lower()) if w not in self._stop])


def _stemmer(name: str) -> Callable[[list[str]], list[str]]:
    import Stemmer

    known = Stemmer.algorithms()
    if name not in known:
        raise RecipeError([f"stemmer: no algorithm {name!r}{near(name, [*known, 'none'])}"])
    stem: Callable[[list[str]], list[str]] = Stemmer.Stemmer(name).stemWords
    return stem


def _stopwords(name: str) -> frozenset[str]:
    from bm25s.tokenization import Tokenizer

    try:
        return frozenset(Tokenizer(stopwords=name).stopwords)
    except ValueError as error:
        raise RecipeError([f"stopwords: no list {name!r}; bm25s says: {error}"]) from None
