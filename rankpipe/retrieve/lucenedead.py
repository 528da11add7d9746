"""Deleted documents that are still in a Lucene index, and a search that does not count them.

Lucene leaves a deleted document in its segment until that is merged, and counts it in its statistics so long. To merge
at once rewrites a segment for one document of it. Here it stays there while few have gone, and what it adds to the
statistics is noted (``dead.json``): how many documents, with how many words, and which. A search takes that off again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any

from rankpipe import java
from rankpipe.disk import write
from rankpipe.errors import ArtefactError
from rankpipe.java import locked
from rankpipe.retrieve.lucenereader import Reader
from rankpipe.store import cure

FILE = "dead.json"
CONTENTS = "contents"
ATTRIBUTES = "org.apache.lucene.analysis.tokenattributes"
SMALL = 10_000  # documents of segments that are rewritten at once
SHARE = 16  # one document in so many may be dead, at most


@dataclass
class Dead:
    """What deleted documents add to the statistics of ``contents``.

    :param filled: those that have a word.
    :param tokens: their words.
    :param words: how many of them have each.
    """

    documents: int = 0
    filled: int = 0
    tokens: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def add(self, words: Sequence[str]) -> None:
        """One more."""
        self.documents += 1
        self.filled += bool(words)
        self.tokens += len(words)
        self.words.update({*words})

    @classmethod
    def of(cls, folder: Path, reader: Reader) -> Dead:
        """In all segments of an opened index.

        :raises ArtefactError: If others are dead in it than those that are noted: something else has changed it.
        """
        made, told = cls(), noted(folder)
        if {name: one.documents for name, one in told.items()} != {
            name: dead for name, (_, dead) in reader.segments_with_dead.items()
        }:
            raise ArtefactError(f"{folder}: Lucene has deleted other documents than {FILE} says; {cure(folder)}")
        for one in told.values():
            made.documents += one.documents
            made.filled += one.filled
            made.tokens += one.tokens
            made.words.update(one.words)
        return made


def noted(folder: Path) -> dict[str, Dead]:
    """Of each segment that has any."""
    if not (path := folder / FILE).exists():
        return {}
    told = json.loads(path.read_text("utf-8"))
    return {name: Dead(**{**one, "words": Counter(one["words"])}) for name, one in told.items()}


def bury(folder: Path, before: Reader, gone: Iterable[str], key: str, analyzer: Any) -> bool:
    """Note what was deleted; False if segments are to be rewritten instead, for they are small, or much of them dead.

    :param before: the index as it was.
    :param gone: ids of documents, whose field is ``key``.
    """
    after, told = Reader(folder), noted(folder)
    there = after.segments_with_dead
    (folder / FILE).unlink(missing_ok=True)
    if sum(n for n, _ in there.values()) <= SMALL or sum(dead for _, dead in there.values()) * SHARE > len(after):
        return not there
    for id in gone:
        for place in before.places(key, id):
            told.setdefault(before.segment_of(place), Dead()).add(words(analyzer, before[place].contents))
    told = {name: told.get(name, Dead()) for name in there}
    if any(told[name].documents != dead for name, (_, dead) in there.items()):  # Lucene has merged some away by itself
        return False
    with write(folder / FILE) as f:
        json.dump({name: vars(one) for name, one in told.items()}, f, sort_keys=True)
    return True


@locked
def words(analyzer: Any, text: str) -> list[str]:
    """What Lucene indexes of a text: words of no letter, too, which an Arabic analyzer makes of a lengthening sign."""
    kind = f"{ATTRIBUTES}.CharTermAttribute"
    stream, made = analyzer.tokenStream(CONTENTS, text), list[str]()
    word = java.cast(kind, stream.addAttribute(java.find("java.lang.Class").forName(kind)))
    stream.reset()
    while stream.incrementToken():
        made.append(word.toString())
    stream.end()
    stream.close()
    return made


class Alive:
    """Statistics of the documents that are alive, by way of a similarity and boosts; to be asked under the lock.

    Scores come out to single precision: to a millionth, and a little less for documents far longer than the mean, whose
    small scores Lucene takes as differences of larger numbers.

    Lucene's BM25 multiplies a word's boost and idf with what k1, b and the mean length make of its count. The last two
    matter by b / mean alone, so that other k1 and b stand for another mean; and a boost, for another idf.

    :param searcher: Lucene's, which counts the dead.
    """

    def __init__(self, searcher: Any, dead: Dead) -> None:
        self._dead, self._reader = dead, searcher.getIndexReader()
        counted = searcher.collectionStatistics(CONTENTS)
        self._counted = int(counted.docCount()) if counted else 0
        self._tokens = int(counted.sumTotalTermFreq()) if counted else 0

    def scale(self, k1: float, b: float) -> tuple[float, float]:
        """k1 and b that do with the mean length of all what these do with that of the living."""
        alive, tokens = self._counted - self._dead.filled, self._tokens - self._dead.tokens
        if not (alive and tokens and k1):
            return k1, b
        longer = b * (self._tokens / self._counted) / (tokens / alive)
        return k1 * (1 - b + longer), longer / (1 - b + longer)

    def query(self, query: Any) -> Any:
        """The same query of words of ``contents``, each boosted so that its idf is that of the living.

        :param query: a BooleanQuery of BoostQuerys of TermQuerys, as Anserini makes it for one field: jnius does not
            look what it casts.
        """
        find, cast = java.find, java.cast
        made = find("org.apache.lucene.search.BooleanQuery$Builder")()
        should = find("org.apache.lucene.search.BooleanClause$Occur").SHOULD
        for clause in cast("org.apache.lucene.search.BooleanQuery", query).clauses().toArray():
            boosted = cast("org.apache.lucene.search.BoostQuery", clause.query)
            term = cast("org.apache.lucene.search.TermQuery", boosted.getQuery()).getTerm()
            boost = boosted.getBoost() * self._ratio(term)
            made.add(find("org.apache.lucene.search.BoostQuery")(boosted.getQuery(), boost), should)
        return made.build()

    def _ratio(self, term: Any) -> float:
        df, dead = int(self._reader.docFreq(term)), self._dead.words[term.text()]
        if df <= dead:
            return 1.0  # no living document has it
        return _idf(self._counted - self._dead.filled, df - dead) / _idf(self._counted, df)


def _idf(documents: int, df: int) -> float:
    return log(1 + (documents - df + 0.5) / (df + 0.5))
