"""Indexes that Anserini and Pyserini made: folders, and the prebuilt ones by their names. Needs the extra ``java``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from rankpipe import java, weights
from rankpipe.catalog import near, need
from rankpipe.data import Query, Ranking
from rankpipe.errors import ArtefactError, RecipeError
from rankpipe.progress import working
from rankpipe.retrieve.lucenereader import Reader
from rankpipe.retrieve.lucenesearch import Options, Search, Settings
from rankpipe.stage import Retriever

LISTS = "io.anserini.index.prebuilt.PrebuiltInvertedIndex"


class Anserini(Retriever):
    """Finds documents in an inverted index of Anserini's, which stays as it is.

    :param index: its folder, or the name of a prebuilt one ("msmarco-v1-passage", "beir-v1.0.0-scifact.flat"), which is
        fetched once, into Pyserini's cache (``PYSERINI_CACHE``, ``ANSERINI_INDEX_CACHE``).
    :param k: hits a query, at most.
    :param options: of the documents' words, as they were when it was made, and of the search; any ``fields`` that the
        index has.
    :raises ArtefactError: If there is no index, or it cannot be fetched.
    :raises RecipeError: If there is no prebuilt index of this name; says the nearest.
    """

    def __init__(self, index: str, k: int = 1000, **options: Unpack[Options]) -> None:
        self.refuse_hits(k)
        settings = Settings.of(options)
        folder = Path(index) if Path(index).is_dir() else prebuilt(index)
        self.k = k
        try:
            self._search = Search(Reader(folder), settings)
        except FileNotFoundError as error:
            raise ArtefactError(f"{folder}: no Lucene index here ({error})") from None

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        """Search."""
        return [Ranking.scored(query, self._search(query.text, self.k), self.k) for query in batch]


def prebuilt(name: str) -> Path:
    """The folder of a prebuilt index, fetched if it is not there yet.

    :raises ArtefactError: If it cannot be fetched.
    :raises RecipeError: If there is none of this name; says the nearest.
    """
    entry = java.find(LISTS).get(name)
    if entry is None:
        known = [one.name for one in java.find(LISTS).entries().toArray()]
        raise RecipeError([f"index: no folder, and no prebuilt index of Anserini's: {name!r}{near(name, known)}"])
    folder = cache() / f"{entry.filename.removesuffix('.tar.gz')}.{entry.md5}"
    if folder.is_dir():
        return folder
    cure = f"on a machine that reaches {entry.urls[0]}, unpack it, and bring it here as {folder}"
    if weights.offline():
        raise ArtefactError(f"{name} is not in Pyserini's cache, and RANKPIPE_OFFLINE is set: {cure}")
    try:
        with working(f"fetching {name} ({entry.compressedSize / 1e6:,.0f} MB)"):
            java.find("io.anserini.util.PrebuiltIndexHandler").get(name).fetch(str(cache()))
    except need("jnius", name="anserini", extra="java").JavaException as error:
        raise ArtefactError(f"{name}: could not be fetched ({error.innermessage}): {cure}") from error
    return folder


def cache() -> Path:
    """Where Pyserini and Anserini keep prebuilt indexes."""
    if own := os.environ.get("ANSERINI_INDEX_CACHE"):
        return Path(own)
    return Path(os.environ.get("PYSERINI_CACHE") or Path.home() / ".cache" / "pyserini") / "indexes"
