"""Text to words, for BM25."""

from __future__ import annotations

import re
from collections.abc import Callable

from rankpipe.catalog import near
from rankpipe.errors import RecipeError

WORD = re.compile(r"\b\w\w+\b")
ENGLISH = "english"
LUCENE = """a an and are as at be but by for if in into is it no not of on or such that the their then there these they
this to was will with"""  # its stop words, which bm25s calls English, too; importing that costs a quarter of a second
REMEMBERED = 1 << 17  # words whose stems are kept ready


class Words:
    """Runs of two or more word characters, lower-cased; stop words left out, the others stemmed.

    :param stemmer: an algorithm of PyStemmer's ("english" is Snowball's, also called Porter 2), or "none".
    :param stopwords: one of bm25s's lists ("english" is Lucene's, of 33 words), or "none".
    :raises RecipeError: If there is no such stemmer or list; says the nearest names.
    """

    def __init__(self, stemmer: str = ENGLISH, stopwords: str = ENGLISH) -> None:
        stop = frozenset[str]() if stopwords == "none" else _stopwords(stopwords)
        self._stems = _Stems(str if stemmer == "none" else _stemmer(stemmer), stop)

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        if len(self._stems) > REMEMBERED:
            self._stems.clear()
        stems = self._stems
        return [stem for word in WORD.findall(text.lower()) if (stem := stems[word]) is not None]


class _Stems(dict[str, str | None]):
    """The stem of each word asked for, worked out once; None for a stop word."""

    def __init__(self, stem: Callable[[str], str], stop: frozenset[str]) -> None:
        self._stem, self._stop = stem, stop

    def __missing__(self, word: str) -> str | None:
        stem = self[word] = None if word in self._stop else self._stem(word)
        return stem


def _stemmer(name: str) -> Callable[[str], str]:
    import Stemmer

    known = Stemmer.algorithms()
    if name not in known:
        raise RecipeError([f"stemmer: no algorithm {name!r}{near(name, [*known, 'none'])}"])
    stem: Callable[[str], str] = Stemmer.Stemmer(name).stemWord
    return stem


def _stopwords(name: str) -> frozenset[str]:
    if name == ENGLISH:
        return frozenset(LUCENE.split())
    from bm25s.tokenization import Tokenizer

    try:
        return frozenset(Tokenizer(stopwords=name).stopwords)
    except ValueError as error:
        raise RecipeError([f"stopwords: no list {name!r}; bm25s says: {error}"]) from None
