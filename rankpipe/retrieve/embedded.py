"""Segments of documents and their vectors, which FAISS indexes where they are large."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rankpipe.builds import SUMS
from rankpipe.errors import RecipeError
from rankpipe.progress import notice
from rankpipe.retrieve import approximate, embed
from rankpipe.retrieve.docs import Docs
from rankpipe.retrieve.nearest import Exact, Field, Nearest
from rankpipe.retrieve.parts import Part, seal
from rankpipe.retrieve.recall import ASKED, Asked
from rankpipe.retrieve.segment import Segment
from rankpipe.retrieve.vectors import STORES
from rankpipe.where import Filter

LEAST = 10_000  # documents; a segment that came later and has fewer is searched exactly, which is as fast


class Embedded(Segment):
    """Documents and their vectors."""

    def __init__(self, folder: Path, store: str, device: str, indexed: bool = False) -> None:
        super().__init__(folder)
        self.store, self.device = store, device
        self.indexed = indexed  # whether FAISS indexes it, if it is large
        self.knobs: Mapping[str, int] = {}  # of FAISS's index, turned otherwise than it was tuned

    @property
    def held(self) -> int:
        """Bytes that merging it holds, about."""
        if not self.indexed:
            return super().held
        row = approximate.row_bytes(self.field.kept.vectors.shape[1])
        return (super().held + row * len(self)) * approximate.SHARE // 2

    @cached_property
    def field(self) -> Field:
        """What is searched."""
        return Field(STORES[self.store](self.folder), embed.longest(self.folder), self.docs.precedence, self.alive)

    @cached_property
    def nearest(self) -> Nearest:
        """How it is searched: by FAISS if it has an index."""
        if (self.folder / "faiss.json").exists():
            return approximate.Faiss.opened(self.field, self.folder, self.device, self.knobs)
        return Exact(self.field)

    def open(self) -> None:
        """Open all files that are not yet."""
        super().open()
        _ = self.nearest

    def among(self, where: Filter | None, k: int) -> Nearest:
        """How the ``k`` nearest are searched among those that meet a condition."""
        return self.nearest if where is None else self.nearest.among(self.allowed(where), k)


def index(draft: Part, recipe: dict[str, Any], ask: Callable[[Docs], Asked | None]) -> None:
    """Have FAISS index a segment, if it is one for FAISS: a large one, and the first of a build by a named factory,
    which tells at once what this cannot make. What it cannot make later is searched exactly.

    :param ask: gives the queries to measure it with, if there are any; they are kept, also in a small segment, for the
        larger one that it will be part of.
    """
    if not approximate.asked_for(recipe):
        return
    told = draft.folder / "faiss.json"
    if not (told.exists() and (draft.folder / SUMS).exists()):
        segment = Embedded(draft.folder, recipe["store"], recipe["device"])
        if asked := ask(segment.docs):
            asked.keep(draft.folder)
        _by_faiss(draft, recipe, segment.field, asked)
    if told.exists():
        draft.facts |= json.loads(told.read_text("utf-8"))


def _by_faiss(draft: Part, recipe: dict[str, Any], field: Field, asked: Asked | None) -> None:
    named = draft.first and not draft.number and recipe["factory"] != "exact"
    if not named and draft.facts["documents"] < LEAST:
        return
    how: dict[str, Any] = {k: recipe.get(k) for k in ("factory", "recall", "train", "device")}
    try:
        approximate.build(field, draft.folder, **how, memory=draft.memory, asked=asked)
    except RecipeError as error:
        if named:
            raise
        notice(f"{error.faults[0]}; they are searched exactly")
    else:
        seal(draft, "faiss.index", "faiss.json", *([ASKED] if asked else ()))
