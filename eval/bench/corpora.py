"""What ``index.py`` indexes and asks: text of any amount, and questions."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from common import DATA

from rankpipe import Query, open_dataset
from rankpipe.datasets import Dataset
from rankpipe.datasets.records import Jsonl

ASKED = ("scifact", "nfcorpus", "hotpotqa-500")
QUERIES = 300  # of all
EDITED = 10  # every so-manieth word


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
