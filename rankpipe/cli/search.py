"""search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankpipe.cli import app, beside, options, rankings_out, show
from rankpipe.errors import CommandError, DataError, RecipeError, placed, several
from rankpipe.stage import Retriever

if TYPE_CHECKING:
    from rankpipe.datasets import Dataset
    from rankpipe.retrieve.index import Index

PREBUILT = "prebuilt:"
GIVEN = ("index", "k", "where")  # what an index is handed beside --set


class Fusion(StrEnum):
    """Fuse's methods, as choices on the command line."""

    rrf = "rrf"
    minmax = "minmax"
    zscore = "zscore"


@dataclass(frozen=True)
class How:
    """How indexes are searched, and fused."""

    others: Annotated[list[Path] | None, typer.Option("--with", "-w", help="Another index, to fuse with.")] = None
    fuse: Annotated[Fusion, typer.Option(help="How several indexes are fused.")] = Fusion.rrf
    weights: Annotated[str | None, typer.Option(help="Of the fused indexes, in their order: 2,1.")] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", help="How indexes that have such an argument are searched: KEY=VALUE (rankpipe ls KIND)."
        ),
    ] = None


@show.verb(app, "search")
def search(
    index: Annotated[Path, typer.Argument(help="The folder of an index, or prebuilt:NAME, one of Anserini's.")],
    how: How,
    question: Annotated[str | None, typer.Argument(help="One question; or --data or --topics for many.")] = None,
    data: options.DataOrNone = None,
    split: options.Split = "test",
    topics: options.Topics = None,
    k: options.K = None,
    where: Annotated[
        str | None, typer.Option(help="Only documents whose fields are so: 'year >= 2019 and lang in (en, de)'.")
    ] = None,
    fields: Annotated[str | None, typer.Option("--show", help="Fields to show beside the texts: year,lang.")] = None,
    out: options.Out = None,
    engine: options.Engine = options.Engines.local,
    address: options.Address = None,
) -> None:
    """Search one index, or several fused.

    rankpipe search my-index "how do I run a function every hour"
    rankpipe search my-index --where "year >= 2019 and not exists(retracted)" --show year "how do I ..."
    rankpipe search my-index --with my-vectors --data beir/scifact/test -k 1000 --out run.trec
    rankpipe search my-vectors --set efSearch=256 "how do I ..."
    rankpipe search my-index --data beir/scifact/test --out run.trec --engine ray
    """
    from rankpipe.data import Query
    from rankpipe.datasets import Dataset
    from rankpipe.progress import track
    from rankpipe.retrieve.fuse import Fuse
    from rankpipe.retrieve.shards import Spread

    if (question is None) == (data is None and topics is None):
        raise CommandError(["say what to search for: either a question, or many by --data or --topics"])
    alone = {f"--weights {how.weights}": how.weights, f"--fuse {how.fuse.value}": how.fuse is not Fusion.rrf}
    if not how.others and (said := [option for option, given in alone.items() if given]):
        raise CommandError([f"{option}: there is nothing to fuse; name another index with --with" for option in said])
    beside.writable(out)
    k = k or (10 if out is None else 1000)
    folders = [index, *(how.others or ())]
    dealt = _dealt(folders, how.settings or ())
    depth = max(k, 1000) if how.others else k
    opened = [opened_index(folder, depth, own) for folder, own in zip(folders, dealt, strict=True)]
    cluster = options.engine(engine, address)
    searched = [Spread(one, cluster) for one in opened] if cluster else opened
    retriever = searched[0]
    if how.others:
        _compare(opened)
        retriever = Fuse(*searched, method=how.fuse.value, weights=_numbers(how.weights), depth=depth, k=k)
    if where is not None:
        retriever = retriever.filtered(where)
        _warn(opened, lambda index: index.told(where))
    shown = [name.strip() for name in fields.split(",")] if fields else []
    _warn(opened, lambda index: index.lacking(shown))
    one = [Query("q", question)] if question is not None else ()
    asked = Dataset.of((), one) if one else options.collection(data, topics, split=split)
    if not asked.queries:
        raise DataError(f"{topics or data}: no queries in it; name a file of them with --topics")
    _warn(opened, lambda index: _foreign(index, asked))
    rankings = list(track(retriever(asked.queries), f"search {index.name}", len(asked.queries)))
    rankings_out.tell(rankings, out, fields=shown)


def _compare(indexes: Sequence[Retriever]) -> None:
    """Tell if indexes that are fused cannot be of the same documents."""
    from rankpipe.retrieve.index import Index

    sizes = {str(index.folder): len(index) for index in indexes if isinstance(index, Index)}
    if len({*sizes.values()}) > 1:
        told = ", ".join(f"{folder} {n}" for folder, n in sizes.items())
        show.warn(f"the fused indexes are not of the same documents; how many each has: {told}")


def _warn(opened: Sequence[Retriever], odd: Callable[[Index], Sequence[str]]) -> None:
    """Tell what is odd about what is asked of each index."""
    from rankpipe.retrieve.index import Index

    for index in opened:
        if isinstance(index, Index):
            for said in odd(index):
                show.warn(f"{index.folder}: {said}")


def _foreign(index: Index, asked: Dataset) -> list[str]:
    """That an index is of another collection than the one whose queries are asked: it has no judged document of it."""
    judged = sorted(set[str]().union(*asked.qrels.values()))
    if not judged or index.there_are(judged):
        return []
    there = several(len(judged), "judged document")
    return [f"has none of {there} of {asked.name}; is it an index of this collection?"]


def _numbers(weights: str | None) -> list[float] | None:
    try:
        return [float(weight) for weight in weights.split(",")] if weights else None
    except ValueError:
        said = f"--weights {weights}: expected numbers with commas between them, such as 2,1"
        raise CommandError([said]) from None


def _kind(folder: Path) -> str:
    """The component that searches an index.

    :raises ArtefactError: If none does.
    """
    from rankpipe.retrieve.folder import kind_of

    return "anserini" if str(folder).startswith(PREBUILT) else kind_of(folder)


def _dealt(folders: Sequence[Path], settings: Sequence[str]) -> list[list[str]]:
    """For each index those of the settings that it takes; where not all take one, it is said which do.

    :raises CommandError: If none takes one.
    """
    from rankpipe.catalog import near

    takes = {folder: _settable(folder) for folder in folders} if settings else {}
    names = [one.partition("=")[0].partition(".")[0] for one in settings]
    known = [*dict.fromkeys(chain.from_iterable(takes.values()))]
    there = "; ".join(f"{folder} has {', '.join(taken) or 'nothing to set'}" for folder, taken in takes.items())
    if lost := [name for name in names if name not in known]:
        raise CommandError([f"--set {name}: no such argument{near(name, known) or '; ' + there}" for name in lost])
    for name in dict.fromkeys(names):
        if some := [str(folder) for folder, taken in takes.items() if name not in taken]:
            who = ", ".join(str(folder) for folder, taken in takes.items() if name in taken)
            show.remark(f"--set {name}: is for {who}, not for {', '.join(some)}")
    return [[s for s, name in zip(settings, names, strict=True) if name in takes[folder]] for folder in folders]


def _settable(folder: Path) -> list[str]:
    """The arguments that can be set of an index, by its kind, and by what FAISS has made of it, if anything."""
    from rankpipe import recipe, store
    from rankpipe.retrieve.approximate import KNOBS

    names = [name for name in recipe.spelled(_kind(folder)) if name not in GIVEN]
    if not {*KNOBS} & {*names}:
        return names
    facts = store.read_manifest(folder).facts
    return [name for name in names if name not in KNOBS or name in facts]


def opened_index(folder: Path, k: int, settings: Sequence[str] = ()) -> Retriever:
    """The index in a folder, opened by the component that made it; or ``prebuilt:NAME``, one of Anserini's.

    :param settings: other arguments of it, as KEY=VALUE.
    :raises RecipeError: If it does not take one, or not such a value.
    """
    from rankpipe import recipe
    from rankpipe.retrieve import shelf

    kind = _kind(folder)
    if kind != "anserini" and shelf.outdated(folder):
        show.warn(
            f"{folder}: its documents have changed since it was built; to build it anew: rankpipe index build {folder}"
        )
    node = {"use": kind, "index": str(folder).removeprefix(PREBUILT), "k": k}
    try:
        opened: Retriever = recipe.build(options.checked(options.merged(node, [*settings])), Path())
    except RecipeError as error:
        raise RecipeError(placed(str(folder), error.faults)) from None
    return opened
