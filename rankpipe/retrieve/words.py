"""Text to words, for BM25."""

from __future__ import annotations

import re

from rankpipe.catalog import near, need
from rankpipe.errors import RecipeError

WORD = re.compile(r"\b\w\w+\b")


class Words:
    """Runs of two or more word characters, lower-cased; stop words left out, the others stemmed.

    :param stemmer: an algorithm of PyStemmer's ("english" is Snowball's, also called Porter 2), or "none".
    :param stopwords: one of bm25s's lists ("english" is Lucene's, of 33 words), or "none".
    :raises RecipeError: If there is no such stemmer or list; says the nearest names.
    """

    def __init__(self, stemmer: str = "english", stopwords: str = "english") -> None:
        self._stem = None if stemmer == "none" else _stemmer(stemmer)
        self._stop = frozenset[str]() if stopwords == "none" else _stopwords(stopwords)

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        words = [w for w in WORD.findall(text.lower()) if w not in self._stop]
        return self._stem.stemWords(words) if self._stem else words  # type: ignore[no-any-return]  # an untyped package


def _stemmer(name: str):  # type: ignore[no-untyped-def]  # an untyped package
    package = need("Stemmer", name="BM25", extra="all")
    known = package.algorithms()
    if name not in known:
        raise RecipeError([f"stemmer: no algorithm {name!r}{near(name, [*known, 'none'])}"])
    return package.Stemmer(name)


def _stopwords(name: str) -> frozenset[str]:
    tokenization = need("bm25s.tokenization", name="BM25", extra="all")
    try:
        return frozenset(tokenization.Tokenizer(stopwords=name).stopwords)
    except ValueError as error:
        raise RecipeError([f"stopwords: no list {name!r}; bm25s says: {error}"]) from None
