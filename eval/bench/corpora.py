"""What ``index.py`` indexes and asks: text of any amount, questions, and quick vectors of both."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankpipe import Query, open_dataset, weights
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl
from rankpipe.retrieve.encode import unit

DATA = Path(os.environ["RANKPIPE_DATA"])
ASKED = ("scifact", "nfcorpus", "hotpotqa-500")
QUERIES = 300  # of all
EDITED = 10  # every so-manieth word
MODEL = "minilm"
SEEN = 5_000  # documents whose words are counted
TOKENS = 256  # of a text that are read


def texts() -> Iterator[str]:
    """All that there is, then the same again and again with other words in it."""
    corpora = sorted(DATA.glob("*/corpus.jsonl"))
    real = [doc.contents for path in corpora for doc in Jsonl(path).docs() if doc.text.strip()]
    random.Random(0).shuffle(real)
    yield from real
    for turn in count(1):
        chance = random.Random(turn)
        for text in real:
            words, others = text.split(), chance.choice(real).split()
            for place in range(turn % EDITED, len(words), EDITED):
                words[place] = chance.choice(others)
            yield " ".join(words)


def collection(scratch: Path, size: int) -> Dataset:
    """So many documents in a file of their own, in a folder of its own."""
    path = scratch / "corpus" / "corpus.jsonl"
    path.parent.mkdir()
    with open(path, "w", encoding="utf-8") as f:
        for number, text in enumerate(islice(texts(), size)):
            f.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}, ensure_ascii=False) + "\n")
    return Dataset(name=f"{size} documents", corpus=Jsonl(path))


def questions() -> list[Query]:
    """Of three collections, evenly."""
    found = [q for name in ASKED for q in open_dataset(DATA / name).queries[: QUERIES // len(ASKED)]]
    return [replace(q, id=f"q{i}") for i, q in enumerate(found)]


class Static:
    """An encoder that is quick: the mean of a model's input embeddings, rare words counting more (SIF, Arora et al.
    2017, a = 0.001, without the common component). A whole model would take hours to encode what is indexed here.
    """

    name, a = "static", 1e-3

    def __init__(self, max_length: int | None = None) -> None:
        self.max_length, self.cut = max_length or TOKENS, list[bool]()

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_file(str(weights.resolve(MODEL) / "tokenizer.json"))
        made.no_padding()
        made.enable_truncation(self.max_length)
        return made

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        """What each token adds, (tokens, dimension)."""
        from safetensors.numpy import load_file

        table = load_file(weights.resolve(MODEL) / "model.safetensors")["embeddings.word_embeddings.weight"]
        seen = Counter(i for e in self._tokenizer.encode_batch_fast([*islice(texts(), SEEN)]) for i in e.ids)
        times = np.array([seen[i] for i in range(len(table))], np.float32)[:, None]
        made: NDArray[np.float32] = table * (self.a / (self.a + times / times.sum()))
        return made

    @cached_property
    def identity(self) -> str:
        """The model's weights, and how they are used."""
        return f"{weights.identity(weights.resolve(MODEL))} static {self.a}"

    @cached_property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self._rows.shape[1])

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of length 1, (n, dimension)."""
        told = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        self.cut = [bool(e.overflowing) for e in told]
        return unit(np.stack([self._rows[e.ids].sum(axis=0) if e.ids else self._rows[0] for e in told]))

    encode_queries = encode_docs
