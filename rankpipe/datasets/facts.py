"""Facts about known collections, as data: ``facts.yaml``. A collection opened by its name is checked against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("facts.yaml")


@dataclass(frozen=True)
class Split:
    """One set of judged queries of a collection."""

    id: str  # canonical; ir_datasets' where it has the collection
    queries: int  # judged ones
    judgements: int


@dataclass(frozen=True)
class Collection:
    """What is known about one collection."""

    id: str
    documents: int
    licence: str
    splits: Mapping[str, Split]
    self_match: Literal["keep", "drop"] = "keep"
    titles: Literal["join", "drop"] = "join"
    ir_datasets: bool = True  # whether ir_datasets has it, under the same ids
    sha256: str = ""  # of corpus.jsonl, unpacked
    size_bytes: int = 0  # of corpus.jsonl, unpacked; 0 if not known

    @property
    def folder(self) -> str:
        """Its name under RANKPIPE_DATA, and short for its id."""
        return self.id.removeprefix("beir/")

    @property
    def names(self) -> dict[str, str | None]:
        """Every spelling, and the split it names; None where it names none."""
        spellings: dict[str, str | None] = {self.id: None, **{split.id: name for name, split in self.splits.items()}}
        if self.ir_datasets:
            spellings |= {f"irds:{name}": split for name, split in spellings.items()}
        spellings.setdefault(self.folder, None)
        if self.id.startswith("beir/"):  # Pyserini's names of the topics and of the index
            pyserini = "beir-v1.0.0-" + self.id.removeprefix("beir/").replace("/", "-")
            spellings |= {f"{pyserini}.flat": None, f"{pyserini}-test": "test"}
        return spellings


@cache
def collections() -> dict[str, Collection]:
    """All known collections by id."""
    import yaml

    return {id: _collection(id, facts) for id, facts in yaml.safe_load(FILE.read_text("utf-8")).items()}


@cache
def spellings() -> dict[str, tuple[Collection, str | None]]:
    """Every accepted spelling of a known collection, and the split it names."""
    return {name: (known, split) for known in collections().values() for name, split in known.names.items()}


def _collection(id: str, facts: dict[str, Any]) -> Collection:
    splits = {
        name: Split(split.get("id", f"{id}/{name}"), split["queries"], split["judgements"])
        for name, split in facts.pop("splits", {}).items()
    }
    return Collection(id=id, splits=splits, **facts)
