"""index add, update, delete, compact, get, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankpipe.cli import options, show
from rankpipe.cli.index import Folder, index, looked_at
from rankpipe.cli.search import opened_index, search
from rankpipe.errors import ArtefactError, CommandError, DataError, RankpipeError, several

if TYPE_CHECKING:
    from rankpipe.data import Doc
    from rankpipe.retrieve.index import Change, Index

show.verb(index, "search")(search)
From = Annotated[str, typer.Option("--data", "-d", help=options.DATA_HELP)]


@show.verb(index, "add")
def add(folder: Folder, data: From) -> None:
    """Add documents; an id that is there already is an error, and nothing is added.

    rankpipe index add my-index --data more.jsonl
    """
    docs = _docs(folder, data)
    _change(folder, lambda living: living.add(docs))


@show.verb(index, "update")
def update(folder: Folder, data: From) -> None:
    """Add documents; those whose ids are there already take the place of the old ones.

    rankpipe index update my-index --data corrected.jsonl
    """
    docs = _docs(folder, data)
    _change(folder, lambda living: living.update(docs))


@show.verb(index, "delete")
def delete(
    folder: Folder,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.")] = None,
    file: Annotated[Path | None, typer.Option("--ids", help="A file of ids, one a line.")] = None,
) -> None:
    """Delete documents by their ids; those that are not there are counted.

    rankpipe index delete my-index doc7 doc8
    rankpipe index delete my-index --ids gone.txt
    """
    doomed = [*(ids or ()), *(_ids(file) if file else ())]
    if not doomed:
        raise CommandError(["say which documents: their ids, or a file of them with --ids"])
    _change(folder, lambda living: living.delete(doomed))


@show.verb(index, "compact")
def compact(folder: Folder) -> None:
    """Make one segment of all, and free the room of what was deleted.

    rankpipe index compact my-index
    """
    _change(folder, lambda living: living.compact(), compacts=True)


@show.verb(index, "get")
def get(folder: Folder, ids: Annotated[list[str], typer.Argument(help="Ids of documents.")]) -> None:
    """Print documents by their ids, as lines of JSON.

    rankpipe index get my-index doc7 doc8
    """
    from rankpipe.retrieve.docs import line_of

    lines = [line_of(doc, number).decode() for number, doc in enumerate(_living(folder).get(ids), 1)]
    show.emit([json.loads(line) for line in lines], lambda: typer.echo("".join(lines), nl=False))


@show.verb(index, "export")
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .jsonl or .jsonl.gz to write, in BEIR's layout.")],
    force: Annotated[  # noqa: ARG001  guard.py reads it
        bool, typer.Option("--force", help="Replace a file of documents, such as the last export.")
    ] = False,
) -> None:
    """Write the documents of an index as a corpus that it could be built from; of a damaged one, if they are whole.

    rankpipe index export my-index --out corpus.jsonl
    """
    import gzip

    from rankpipe.disk import write
    from rankpipe.progress import track
    from rankpipe.retrieve.docs import line_of

    if out.suffix != ".jsonl" and not out.name.endswith(".jsonl.gz"):
        raise CommandError([f"--out {out}: a corpus is a .jsonl or a .jsonl.gz"])
    documents, count, damage = _documents(folder)
    gz, written, odd = out.suffix == ".gz", 0, 0
    with write(out, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if gz else nullcontext(file) as f:
        for written, doc in enumerate(track(documents, f"export {folder}", count), 1):
            f.write(line := line_of(doc, written))
            odd += _odd(line)
    if odd:
        have = several(odd, "document has", "documents have")
        show.warn(f"{have} NaN or Infinity in a field, written as it is: not JSON, so others may refuse it")
    told = {"index": str(folder), "documents": written, "out": str(out), "damage": damage}
    show.emit(told, lambda: show.out.print(f"{several(written, 'document')}: {out}", highlight=False))


def _odd(line: bytes) -> bool:
    """Whether a line has numbers that JSON has not."""
    found: list[str] = []
    if b"NaN" in line or b"Infinity" in line:
        json.loads(line, parse_constant=found.append)
    return bool(found)


def _documents(folder: Path) -> tuple[Iterator[Doc], int | None, str]:
    """Of an index, and how many, if it is whole; of one that is damaged elsewhere, too, with what is wrong with it."""
    from rankpipe.retrieve.rescue import damaged_texts, rescued

    try:
        living = _living(folder)
    except RankpipeError as error:  # also what it is searched with may be missing: a GPU
        documents = rescued(folder, error)
        show.warn(f"{error}\nThe files that its documents are in are whole, and are exported.")
        return documents, None, str(error)
    made, faults = looked_at(folder, damaged_texts)
    if living.manifest.build != made.build:
        living.refresh()
    if faults:
        raise ArtefactError(f"{folder}: its documents are damaged: {'; '.join(faults)}; bring back a copy")
    return living.documents(), len(living), ""


def _docs(folder: Path, data: str) -> Iterator[Doc]:
    """Of a collection, with titles or without, as the index was built."""
    from rankpipe.datasets.opening import open_documents
    from rankpipe.retrieve.folder import written

    tree = written(folder) if (folder / "recipe.yaml").exists() else {}
    return open_documents(data, titles=tree.get("titles")).docs()


def _change(folder: Path, change: Callable[[Index], Change], *, compacts: bool = False) -> None:
    living = _living(folder)
    done = change(living)
    facts = living.manifest.facts
    told = {"index": str(folder), **asdict(done), "documents": len(living), "dead": facts["dead"],
            "segments": facts["segments"], "seconds": living.manifest.seconds}  # fmt: skip

    def human() -> None:
        counts = ", ".join(f"{n} {what}" for what, n in asdict(done).items() if what != "absent" and n)
        said = counts or ("compacted" if compacts else "nothing changed")
        show.out.print(f"{folder}: {said}; {several(len(living), 'document')}", highlight=False)
        if done.absent:
            some = ", ".join(done.absent[:3])
            were = several(len(done.absent), "was", "were")
            show.warn(f"{were} not there: {some}{'...' if len(done.absent) > 3 else ''}")

    show.emit(told, human)


def _living(folder: Path) -> Index:
    from rankpipe.retrieve.index import Index

    opened = opened_index(folder, 1)
    if not isinstance(opened, Index):
        raise ArtefactError(f"{folder}: an index of the kind {type(opened).__name__} cannot be changed; build it again")
    return opened


def _ids(file: Path) -> list[str]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")  # nothing else ends one, for ids may have it
        return [id for line in lines if (id := line.removesuffix("\r"))]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of ids: {error}") from None
