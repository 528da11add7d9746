"""The documentation Python carries itself: a small search collection that every machine already has.

Documents: the docstrings of the standard library, read from its source files; nothing is imported or downloaded.
Questions: 72, written by the authors in the words of somebody who does not know the answer's name.
Judgements: pooled to depth 15 from BM25 and two small dense encoders (BGE-small, MiniLM), with what the authors knew
besides; read and graded 0 to 3 by the authors, one pass. ``README.md`` beside this file has the guideline, the counts
and the limits; ``queries.jsonl`` and ``qrels/test.tsv`` are in the BEIR layout.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from rankpipe.data import Doc
from rankpipe.datasets.pydocs.extract import Extraction, extract

__all__ = ["Extraction", "corpus", "extract"]


def corpus(root: Path | None = None) -> Iterator[Doc]:
    """Each documented module, class, function and method of the standard library, sorted by id.

    :param root: the folder of the library's source files; by default, that of the running Python.
    """
    yield from extract(root or Path(sysconfig.get_path("stdlib"))).docs
