"""What a learned ranker knows of a query and a hit: one function a feature, all of them in ``TABLE``.

A feature that cannot be had (no title, no word matched) is not a number: trees decide where such hits go. A function
that changes its meaning is given a new name, so that a saved ranker is refused where it would be misread.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import log1p, nan

from rankpipe.catalog import near
from rankpipe.data import Doc
from rankpipe.errors import RecipeError

K1, B = 0.9, 0.4  # of BM25; Anserini's
Tokeniser = Callable[[str], list[str]]


@dataclass(frozen=True)
class Field:
    """A title, a text or both, as words."""

    words: Sequence[str]
    mean: float  # words of such a field in the documents of the training

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word is there."""
        return Counter(self.words)


@dataclass(frozen=True)
class Candidate:
    """A query and one hit, ready to be looked at."""

    query: Sequence[str]  # words
    title: Field
    text: Field
    contents: Field  # both
    rank: int  # from 1
    score: float  # the first stage's
    best: float  # that of its first hit
    rarity: Callable[[str], float]  # idf
    cosine: float = nan  # of the sentence encoder's vectors
    cross: float = nan  # the cross-encoder's logit

    @cached_property
    def asked(self) -> frozenset[str]:
        """The query's different words."""
        return frozenset(self.query)

    @cached_property
    def places(self) -> list[int]:
        """Where in the contents a word of the query is, from 0."""
        return [i for i, word in enumerate(self.contents.words) if word in self.asked]


@dataclass(frozen=True)
class Statistics:
    """What the documents of the training were like; a word is rare if few of them have it."""

    documents: int
    frequencies: Mapping[str, int]  # of words in two documents or more; others count as being in one
    title: float  # words, on the average of those that have one
    text: float

    @classmethod
    def of(cls, docs: Iterable[Doc], words: Tokeniser) -> Statistics:
        """Count different documents."""
        frequencies, titles, texts, n = Counter[str](), list[int](), list[int](), 0
        for n, doc in enumerate(docs, 1):  # noqa: B007  counts
            title, text = words(doc.title), words(doc.text)
            titles += [len(title)] if title else []
            texts.append(len(text))
            frequencies.update({*title, *text})
        several = {word: count for word, count in sorted(frequencies.items()) if count > 1}
        return cls(n, several, sum(titles) / max(len(titles), 1), sum(texts) / max(len(texts), 1))

    def rarity(self, word: str) -> float:
        """The word's inverse document frequency, as Lucene has it."""
        frequency = self.frequencies.get(word, 1)
        return log1p(max(self.documents - frequency + 0.5, 0.5) / (frequency + 0.5))


Feature = Callable[[Candidate], float]
TABLE: dict[str, Feature] = {}
NEEDS = {"cosine": "encoder", "cross_score": "cross"}  # feature: the argument that names its model


def feature(function: Feature) -> Feature:
    """Put a function into the table, under its own name."""
    TABLE[function.__name__] = function
    return function


def chosen(names: Sequence[str] | None, models: Mapping[str, str | None]) -> tuple[str, ...]:
    """The features of these names; all that can be had if None.

    :param models: argument -> model, None where there is none.
    :raises RecipeError: If there is none of a name, or its model is not given; tells all that is wrong.
    """
    if names is None:
        return tuple(name for name in TABLE if name not in NEEDS or models[NEEDS[name]])
    known = list(TABLE)
    others = f"; there are {', '.join(known)}"
    faults = [f"features: no feature {name!r}{near(name, known) or others}" for name in unknown(names)]
    faults += [
        f"features: {n} needs {NEEDS[n]}, the name of a model" for n in names if n in NEEDS and not models[NEEDS[n]]
    ]
    if len(set(names)) < len(names) or not names:
        faults.append("features: each once, and at least one")
    if faults:
        raise RecipeError(faults)
    return tuple(names)


def described() -> dict[str, str]:
    """What each feature is, in a line."""
    return {name: inspect.cleandoc(function.__doc__ or "").replace("``", "`") for name, function in TABLE.items()}


def unknown(names: Iterable[str]) -> list[str]:
    """Those that are not in the table."""
    return [name for name in names if name not in TABLE]


@feature
def first_score(c: Candidate) -> float:
    """The first stage's score: BM25's, where the first stage is BM25."""
    return c.score


@feature
def first_rank(c: Candidate) -> float:
    """The hit's rank in the first stage, from 1."""
    return c.rank


@feature
def behind(c: Candidate) -> float:
    """By how much the first stage scores the hit lower than its first one; comparable across queries."""
    return c.best - c.score


@feature
def bm25_contents(c: Candidate) -> float:
    """BM25 of title and text together, by the rarity that words have in the training's documents."""
    return _bm25(c, c.contents)


@feature
def bm25_title(c: Candidate) -> float:
    """BM25 of the title alone, where the hit has one."""
    return _bm25(c, c.title) if c.title.words else nan


@feature
def bm25_text(c: Candidate) -> float:
    """BM25 of the text alone, where the hit has a title as well."""
    return _bm25(c, c.text) if c.title.words else nan


@feature
def cosine(c: Candidate) -> float:
    """The cosine of the vectors of query and contents (``encoder``)."""
    return c.cosine


@feature
def cross_score(c: Candidate) -> float:
    """The logit of query and contents together (``cross``)."""
    return c.cross


@feature
def query_words(c: Candidate) -> float:
    """Words of the query; stop words don't count, here and below."""
    return len(c.query)


@feature
def title_words(c: Candidate) -> float:
    """Words of the title."""
    return len(c.title.words)


@feature
def text_words(c: Candidate) -> float:
    """Words of the text."""
    return len(c.text.words)


@feature
def covered(c: Candidate) -> float:
    """The share of the query's different words that the contents have."""
    return _share(len(c.asked & c.contents.counts.keys()), len(c.asked))


@feature
def covered_by_title(c: Candidate) -> float:
    """The share of the query's different words that the title has, where there is one."""
    return _share(len(c.asked & c.title.counts.keys()), len(c.asked)) if c.title.words else nan


@feature
def covered_rarity(c: Candidate) -> float:
    """The same for the contents, each word weighing what it is rare."""
    return _share(sum(sorted(map(c.rarity, c.asked & c.contents.counts.keys()))), sum(sorted(map(c.rarity, c.asked))))


@feature
def bigrams(c: Candidate) -> float:
    """The share of the query's pairs of neighbours that are neighbours in the contents, in this order."""
    asked = {*pairwise(c.query)}
    return _share(len(asked & {*pairwise(c.contents.words)}), len(asked))


@feature
def density(c: Candidate) -> float:
    """The share of the contents' words that are the query's."""
    return _share(len(c.places), len(c.contents.words))


@feature
def first_match(c: Candidate) -> float:
    """How many words stand before the first that is the query's."""
    return c.places[0] if c.places else nan


@feature
def last_match(c: Candidate) -> float:
    """How many words stand before the last that is the query's."""
    return c.places[-1] if c.places else nan


def _bm25(c: Candidate, field: Field) -> float:
    saturation = K1 * (1 - B + B * len(field.words) / max(field.mean, 1))
    counts = [(word, field.counts[word]) for word in c.query]
    return sum(c.rarity(word) * count / (count + saturation) for word, count in counts if count)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else nan
