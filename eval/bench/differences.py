"""Where bm25 and lucene differ, and why: one is turned into the other, a change at a time, and queries are counted.

python eval/bench/differences.py [--data scifact nfcorpus] [--into FOLDER]

Needs the extra ``java``. A plain scorer (no index, double precision) takes the words and the lengths of documents as
each step has them; that its first state is bm25, and its last lucene, is measured as well.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bm25s.tokenization import Tokenizer
from common import HERE, Row, file
from Stemmer import Stemmer

from rankpipe import BM25, Ranking, evaluate, java, open_dataset, to_run
from rankpipe.data import Doc, Hit, Query
from rankpipe.datasets import Dataset
from rankpipe.retrieve.lucene import Lucene
from rankpipe.retrieve.words import Words

K1, B = 0.9, 0.4
DEPTH = 10
DOUBLE = "double precision instead of single"
Text = Callable[[str], list[str]]  # to its words
Lengths = Callable[[int], int]  # as it is, to what it is kept as
Best = Mapping[str, Ranking]  # of each query


def main() -> None:
    """Compare on each collection, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["scifact", "nfcorpus"], help="BEIR's names")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    file("differences", [row for name in told.data for row in compared(open_dataset(f"beir/{name}/test"))], told.into)


def compared(data: Dataset) -> list[Row]:
    """A row for each step from bm25 to lucene, and one for the whole way."""
    docs = list(data.docs())
    steps = {name: scored(docs, data.queries, words, kept) for name, (words, kept) in changes().items()}
    with TemporaryDirectory() as folder:
        first = {r.query.id: r for r in BM25.build(data, Path(folder, "bm25"))(data.queries)}
        last = {r.query.id: r for r in Lucene.build(data, Path(folder, "lucene"))(data.queries)}
        way = {**steps, "single precision, as Lucene computes": last}
        moved = {}
        rows, before = [], first
        for reason, after in way.items():
            moved[reason] = {q for q in first if order(before[q]) != order(after[q])}
            rows.append(row(data, reason, before, after))
            before = after
        for told, reason in zip(rows, way, strict=True):
            others_moved = set().union(*(m for r, m in moved.items() if r != reason))
            told["only_reason"] = len(moved[reason] - others_moved)
        return [row(data, "bm25", first, first), *rows, row(data, "all: bm25 to lucene", first, last)]


def changes() -> dict[str, tuple[Text, Lengths]]:
    """How words are made and lengths are kept, each time with one thing more as Lucene has it."""
    english = java.find("io.anserini.analysis.DefaultEnglishAnalyzer")
    none = java.find("org.apache.lucene.analysis.CharArraySet").EMPTY_SET
    split = analyzed(english.newNonStemmingInstance(none))
    stopped = analyzed(english.newNonStemmingInstance())
    whole = analyzed(english.newStemmingInstance("porter"))
    stop, stem = {*Tokenizer(stopwords="english").stopwords}, Stemmer("english").stemWord  # bm25's
    small = java.find("org.apache.lucene.util.SmallFloat")

    def exact(length: int) -> int:
        return length

    @cache
    def kept(length: int) -> int:
        return int(small.byte4ToInt(small.intToByte4(length)))

    return {
        DOUBLE: (Words(), exact),
        "tokeniser": (lambda text: [stem(w) for w in split(text) if w not in stop], exact),
        "stop words": (lambda text: [stem(w) for w in stopped(text)], exact),
        "stemmer: Porter instead of Porter 2": (whole, exact),
        "lengths rounded to one byte": (whole, kept),
    }


def analyzed(analyzer: object) -> Text:
    """Texts to words by an analyzer of Lucene's; as one piece, since words have no blanks."""
    utils = java.find("io.anserini.analysis.AnalyzerUtils")

    def words(text: str) -> list[str]:
        told: str = utils.analyze(analyzer, text).toString()[1:-1]
        return told.split(", ") if told else []

    return words


def scored(docs: Sequence[Doc], queries: Sequence[Query], words: Text, kept: Lengths) -> Best:
    """BM25 by its formula, in double precision."""
    counts = [Counter(words(doc.contents)) for doc in docs]
    lengths = [count.total() for count in counts]
    n = sum(map(bool, lengths))
    mean = sum(lengths) / n
    norms = np.array([K1 * (1 - B + B * kept(length) / mean) for length in lengths])
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, count in enumerate(counts):
        for word, times in count.items():
            postings[word].append((place, times))
    best = {}
    for query in queries:
        scores = np.zeros(len(docs))
        for word, times in Counter(words(query.text)).items():
            if word in postings:
                places, tf = np.array(postings[word]).T
                idf = math.log(1 + (n - len(places) + 0.5) / (len(places) + 0.5))
                scores[places] += times * idf * tf / (tf + norms[places])
        top = np.argsort(-scores)[: 10 * DEPTH]
        hits = [Hit(docs[place], float(np.float32(scores[place]))) for place in top if scores[place] > 0]
        best[query.id] = Ranking.scored(query, hits)
    return best


def order(ranking: Ranking) -> list[str]:
    """The best documents."""
    return [hit.doc.id for hit in ranking.hits[:DEPTH]]


def row(data: Dataset, reason: str, before: Best, after: Best) -> Row:
    """What a step does to the best of each query."""
    pairs = [(before[q.id], after[q.id]) for q in data.queries]
    shifts = [
        abs(a / b - 1)
        for old, new in pairs
        for a, b in zip([h.score for h in old.hits[:1]], [h.score for h in new.hits[:1]], strict=False)
    ]
    measured = evaluate(to_run(after.values()), data.qrels, [f"nDCG@{DEPTH}"]).means[f"nDCG@{DEPTH}"]
    return {
        "data": data.name,
        "change": reason,
        "queries": len(pairs),
        "other_order": sum(order(old) != order(new) for old, new in pairs),
        "other_documents": sum({*order(old)} != {*order(new)} for old, new in pairs),
        "only_reason": None,
        "best_score_percent": 100 * float(np.mean(shifts)),
        "nDCG@10": round(measured, 4),
    }


if __name__ == "__main__":
    main()
