"""Whether a collection is what its name claims."""

from __future__ import annotations

from dataclasses import replace

from rankpipe.datasets.dataset import Dataset
from rankpipe.datasets.facts import Collection
from rankpipe.errors import DataError


def differences(data: Dataset, known: Collection, split: str) -> list[str]:
    """Where it differs from the known collection, by what costs nothing to check: counts and the file's size.

    The number of documents and the checksum are checked when the documents are read.
    """
    faults = []
    path = data.corpus.path if data.corpus else None
    if path and path.suffix != ".gz" and known.size_bytes and path.stat().st_size != known.size_bytes:
        faults.append(f"{path.name} has {path.stat().st_size} bytes, expected {known.size_bytes}")
    if split in known.splits:
        facts, judgements = known.splits[split], sum(map(len, data.qrels.values()))
        if len(data.qrels) != facts.queries:
            faults.append(f"{len(data.qrels)} judged queries, expected {facts.queries}")
        if judgements != facts.judgements:
            faults.append(f"{judgements} judgements, expected {facts.judgements}")
    return faults


def as_known(data: Dataset, known: Collection, split: str) -> Dataset:
    """The same, under its canonical name and with the collection's policies."""
    name = known.splits[split].id if split in known.splits else known.id
    return replace(data, name=name, known=known, self_match=known.self_match, titles=known.titles)


def claimed(data: Dataset, known: Collection, split: str) -> Dataset:
    """The same as the known collection that it was opened as.

    :raises DataError: If it differs; says in what.
    """
    if faults := differences(data, known, split):
        where = data.corpus.place if data.corpus else data.name
        raise DataError(
            f"{where}: not {known.id} as it is known: {'; '.join(faults)}; get it again, or, if it is another "
            "collection, open its folder by path"
        )
    return as_known(data, known, split)


def recognised(data: Dataset, known: Collection, split: str) -> Dataset:
    """The known collection that its folder is named as, if it matches; else itself, with a note."""
    if faults := differences(data, known, split):
        note = f"named as {known.id}, but another collection: {'; '.join(faults)}; taken as it is"
        return replace(data, notes=(*data.notes, note))
    return as_known(data, known, split)
