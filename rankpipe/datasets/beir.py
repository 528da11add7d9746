"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``; each may be packed (``.gz``).

(Thakur et al. 2021, "BEIR".) A folder with one split, or with none, gives all its queries; one with several splits
gives those that the split judges, as BEIR does. Judgements in TREC's four columns are read too.
"""

from __future__ import annotations

from pathlib import Path

from rankpipe.data import Query
from rankpipe.datasets.dataset import Dataset, NoSplit
from rankpipe.datasets.records import Jsonl, doc, parse, read_queries
from rankpipe.errors import DataError
from rankpipe.trec import Qrels, lines, read_qrels


def open_corpus(path: Path) -> Jsonl:
    """A corpus file, its first record checked.

    :raises DataError: If it is missing, empty, or its first line is no document.
    """
    for place, line in lines(path):
        doc(parse(line, place), place)
        return Jsonl(path)
    raise DataError(f"{path}: no documents in it")


def read_folder(folder: Path, split: str) -> Dataset:
    """A BEIR folder at one split, named ``folder/split``.

    :raises DataError: If it has no corpus, no such split (though others), or a file is malformed; says the line.
    """
    corpus = open_corpus(_file(folder, "corpus.jsonl"))
    queries, qrels, others = read_judged(folder, split)
    return Dataset(f"{folder.resolve().name}/{split}", corpus, queries, qrels, other_queries=others)


def read_judged(folder: Path, split: str) -> tuple[tuple[Query, ...], Qrels, int]:
    """The queries and judgements of a split, and how many queries of the file are in no such split.

    :raises DataError: If there is no such split (though others), or a file is malformed; says the line.
    """
    splits = {_stem(p): p for p in sorted((folder / "qrels").rglob("*.tsv*")) if p.suffix in (".tsv", ".gz")}
    if splits and split not in splits:
        raise NoSplit(f"{folder / 'qrels'}", split, splits)
    qrels: Qrels = read_qrels(splits[split]) if splits else {}
    if splits and not qrels:
        raise DataError(f"{splits[split]}: no judgements in it")
    queries_file = _file(folder, "queries.jsonl")
    every = read_queries(queries_file) if queries_file.exists() else ()
    queries = tuple(q for q in every if q.id in qrels) if len(splits) > 1 else every
    return queries, qrels, len(every) - len(queries)


def _file(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.gz"
    return packed if packed.exists() and not (folder / name).exists() else folder / name


def _stem(path: Path) -> str:
    inside = path.parts[path.parts.index("qrels") + 1 :]
    return "/".join(inside).removesuffix(".gz").removesuffix(".tsv")
