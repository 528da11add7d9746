"""Retrieve, rerank with language models, and measure. Importing this package loads no third-party module."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rankpipe.data import Answer, Doc, Hit, Query, Ranking, Step
from rankpipe.stage import Stage, Top

if TYPE_CHECKING:
    from rankpipe.datasets import Dataset, open_dataset
    from rankpipe.lm.hf import HF
    from rankpipe.measure import compare, evaluate
    from rankpipe.rerank.cross import CrossEncoder
    from rankpipe.rerank.listwise import Listwise
    from rankpipe.rerank.plans import Single, Sliding, Tournament
    from rankpipe.retrieve.bm25 import BM25
    from rankpipe.retrieve.dense import Dense
    from rankpipe.retrieve.folder import open_index
    from rankpipe.retrieve.fuse import Fuse
    from rankpipe.retrieve.late import ColBERT
    from rankpipe.retrieve.lucene import Lucene
    from rankpipe.retrieve.milvus import Milvus
    from rankpipe.retrieve.sparse import SparseIndex
    from rankpipe.trec import read_run, to_run, write_run

__version__ = "0.1.0"

_LAZY = {  # name: the module that is imported when the name is first used
    "Dataset": "datasets", "open_dataset": "datasets", "HF": "lm.hf", "compare": "measure", "evaluate": "measure",
    "CrossEncoder": "rerank.cross", "Listwise": "rerank.listwise", "Single": "rerank.plans",
    "Sliding": "rerank.plans", "Tournament": "rerank.plans", "BM25": "retrieve.bm25", "Dense": "retrieve.dense",
    "ColBERT": "retrieve.late", "Fuse": "retrieve.fuse", "Lucene": "retrieve.lucene", "Milvus": "retrieve.milvus",
    "SparseIndex": "retrieve.sparse", "open_index": "retrieve.folder", "read_run": "trec", "to_run": "trec",
    "write_run": "trec",
}  # fmt: skip

__all__ = [
    "BM25", "HF", "Answer", "ColBERT", "CrossEncoder", "Dataset", "Dense", "Doc", "Fuse", "Hit", "Listwise", "Lucene",
    "Milvus", "Query", "Ranking", "Single", "Sliding", "SparseIndex", "Stage", "Step", "Top", "Tournament", "compare",
    "evaluate", "open_dataset", "open_index", "read_run", "to_run", "write_run",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rankpipe' has no attribute {name!r}")
    return getattr(import_module(f"rankpipe.{_LAZY[name]}"), name)
