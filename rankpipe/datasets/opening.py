"""From what a user writes to a dataset. The order in which a name is understood is fixed and written down here.

1. an existing path: a BEIR folder, or a corpus: JSON lines (``.jsonl``, ``.jsonl.gz``), Parquet (``.parquet``), or a
   folder of such files;
2. ``pydocs``: the documentation of the running Python, built in;
3. ``hf:ORG/NAME``: Hugging Face `datasets`;
4. a known collection in any spelling (``beir/scifact/test``, ``irds:beir/scifact/test``, ``beir-v1.0.0-scifact-test``,
   ``scifact``): the folder of that name under ``RANKPIPE_DATA`` if there is one, else ir_datasets;
5. any other id of ir_datasets, with or without ``irds:``.

A name is a claim, and checked against ``facts.yaml``. A path is taken as it is; if it is named as a known collection
and matches its counts, it is that collection, and if it does not match, a note says so.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from rankpipe.catalog import installed, near
from rankpipe.datasets import files, hub, irds
from rankpipe.datasets.beir import read_folder
from rankpipe.datasets.builtin import read_pydocs
from rankpipe.datasets.dataset import Dataset, NoSplit, SelfMatch, Titles
from rankpipe.datasets.facts import Collection, collections, spellings
from rankpipe.datasets.known import claimed, recognised
from rankpipe.datasets.topics import read_topics
from rankpipe.errors import DataError
from rankpipe.progress import notice
from rankpipe.trec import read_qrels

ACCEPTED = (
    "Accepted are a BEIR folder, a corpus (.jsonl, .jsonl.gz, .parquet, or a folder of these), pydocs, "
    "a Hugging Face id (hf:BeIR/scifact), "
    "and an id of ir_datasets (beir/scifact/test)"
)


def open_dataset(
    spec: str | Path, split: str = "test", *, self_match: SelfMatch | None = None, titles: Titles | None = None
) -> Dataset:
    """Open a collection by its path or name; see the top of this module for what is understood, and in which order.

    :param split: which judgements; a name that says its split (``beir/scifact/train``) needs none.
    :param self_match: whether a hit that is its own query is kept; the collection's policy if None.
    :param titles: whether titles are put before texts; the collection's policy if None.
    :raises DataError: If nothing is understood by it (says the near names), it cannot be had here, or is malformed.
    :raises MissingExtra: If it needs a package that is not installed.
    """
    opened = _opened(spec, split)
    policies = {"self_match": self_match, "titles": titles}
    return replace(opened, **{k: v for k, v in policies.items() if v})  # type: ignore[arg-type]  # each has its kind


def open_documents(spec: str | Path, split: str = "test", *, titles: Titles | None = None) -> Dataset:
    """Open a collection for its documents, which are the same at every split: at another one if it has no such split.

    :raises: As :func:`open_dataset`.
    """
    try:
        return open_dataset(spec, split, titles=titles)
    except NoSplit as error:
        return open_dataset(spec, error.splits[0], titles=titles)


def open_to_learn(spec: str) -> Dataset:
    """Open a collection at the split that its name says, or at ``train``; if it has none, at ``test``, which is told.

    :raises: As :func:`open_dataset`.
    """
    _, said = spellings().get(spec, (None, None))
    try:
        return open_dataset(spec, said or "train")
    except NoSplit:
        opened = open_dataset(spec)
    notice(f"{spec} has no split train: {opened.name} is learned from")
    return opened


def _opened(spec: str | Path, split: str) -> Dataset:
    path, name = Path(spec), str(spec)
    if path.is_dir() and (parts := files.inside(path)):
        return Dataset(path.resolve().name, files.Files(path, parts))
    if path.is_dir():
        data, place = read_folder(path, split), path.resolve().as_posix()
        known = next((k for k in collections().values() if place.endswith("/" + k.folder)), None)
        return recognised(data, known, split) if known else data
    if path.exists():
        return _corpus_file(path)
    if isinstance(spec, Path):
        raise DataError(f"{path}: no such file or folder")
    if name == "pydocs":
        return read_pydocs(split)
    if name.startswith("hf:"):
        return hub.read(name.removeprefix("hf:"), split)
    if name in spellings():
        known, said = spellings()[name]
        return _known(known, _agreed(name, said, split))
    if irds.has(name.removeprefix("irds:"), prefixed=name.startswith("irds:")):
        return irds.read(name.removeprefix("irds:"))
    known_names = [*spellings(), "pydocs", *irds.ids()]
    missing = "" if installed("ir_datasets") else " (not installed: pip install 'rankpipe[datasets]')"
    raise DataError(
        f"{name}: no such path, and no collection of this name{near(name, known_names) or '.'} {ACCEPTED}{missing}"
    )


def sources(spec: str) -> list[Path]:
    """The files on this machine that :func:`open_dataset` may read for this; none of what it fetches."""
    path = _place(spec)
    return [*corpus_files(spec), *path.glob("queries.jsonl*"), *path.glob("qrels/**/*")]


def corpus_files(spec: str) -> list[Path]:
    """Those of :func:`sources` that may have documents."""
    path = _place(spec)
    parts = [*path.glob("*"), *path.glob("*/*")]  # the second as in repositories of the hub
    found = [part for part in parts if part.name.endswith(files.ENDINGS)]
    return [*path.glob("corpus.jsonl*")] or found or [path]


def _place(spec: str) -> Path:
    path, root = Path(spec.removeprefix("hf:")), os.environ.get("RANKPIPE_DATA")
    if not path.exists() and root and spec in spellings():
        return Path(root, spellings()[spec][0].folder)
    return path


def open_files(
    *, corpus: Path | None = None, queries: Path | None = None, qrels: Path | None = None, name: str = ""
) -> Dataset:
    """A collection from single files: a corpus (JSON lines or Parquet), topics (see
    :mod:`rankpipe.datasets.topics`), judgements.

    :param name: what to call it; the first file's name if empty.
    :raises DataError: If no file is given, or one is missing or malformed; says the line.
    """
    first = corpus or queries or qrels
    if first is None:
        raise DataError("no files: give at least one of corpus, queries and qrels")
    return Dataset(
        name or first.name.split(".")[0],
        files.opened(corpus) if corpus else None,
        read_topics(queries) if queries else (),
        read_qrels(qrels) if qrels else {},
    )


def _corpus_file(path: Path) -> Dataset:
    if not path.name.endswith(files.ENDINGS):
        raise DataError(f"{path}: a corpus file ends in {', '.join(files.ENDINGS)}; {ACCEPTED}")
    return Dataset(path.name.removesuffix(".gz").rpartition(".")[0], files.opened(path))


def _known(known: Collection, split: str) -> Dataset:
    root = os.environ.get("RANKPIPE_DATA")
    folder = Path(root, known.folder) if root else None
    if folder and folder.is_dir():
        return claimed(read_folder(folder, split), known, split)
    if known.splits and split not in known.splits:
        raise NoSplit(known.id, split, known.splits)
    if not known.ir_datasets:
        looked = folder or f"$RANKPIPE_DATA/{known.folder} (RANKPIPE_DATA is not set)"
        raise DataError(f"{known.id}: not here; looked for a BEIR folder at {looked}")
    return claimed(irds.read(known.splits[split].id), known, split)


def _agreed(name: str, said: str | None, split: str) -> str:
    if said and split not in (said, "test"):
        raise DataError(f"{name} is the split {said!r}, but {split!r} is asked for; leave one of them out")
    return said or split
