"""Options that several verbs share, typed once, and what they mean."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankpipe import recipe
from rankpipe.errors import CommandError, RecipeError, refuse
from rankpipe.signature import EXPONENT

if TYPE_CHECKING:
    from rankpipe.datasets import Dataset
    from rankpipe.engine import Ray


class SelfMatches(StrEnum):
    """What becomes of a hit that is its own query."""

    keep = "keep"
    drop = "drop"


class TitlePolicy(Enum):
    """What becomes of a document's title."""

    join = "join"
    drop = "drop"


class Engines(StrEnum):
    """Who does the work (rankpipe/engine.py)."""

    local = "local"
    ray = "ray"


DATA_HELP = (
    "A BEIR folder, a corpus (.jsonl, .jsonl.gz, .parquet, or a folder of these), a known id (beir/scifact/test), "
    "hf:OWNER/NAME, or pydocs (built in)."
)
Data = Annotated[str, typer.Option("--data", "-d", help=DATA_HELP)]
DataOrNone = Annotated[str | None, typer.Option("--data", "-d", help=DATA_HELP)]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write: .trec, .trec.gz, or .jsonl with texts.")]
K = Annotated[int | None, typer.Option("-k", min=1, help="Hits kept for a query; 10 to look at, 1000 to a file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="An argument of the component, as KEY=VALUE; lm.KEY=VALUE one of its lm."),
]
Depth = Annotated[int | None, typer.Option("--depth", min=1, metavar="N", help="How many hits of each query are read.")]
Measures = Annotated[
    list[str] | None, typer.Option("-m", "--measure", help="As ir-measures or trec_eval write it; one or more.")
]
Split = Annotated[str, typer.Option("--split", help="Which judgements of --data: test, dev, train.")]
SplitOrNone = Annotated[str | None, typer.Option("--split", help="Which judgements --data must have.")]
SelfMatch = Annotated[
    SelfMatches | None, typer.Option("--self-match", help="A hit that is its own query: keep or drop it.")
]
Titles = Annotated[TitlePolicy | None, typer.Option("--titles", help="Put titles before texts (join), or drop them.")]
Topics = Annotated[
    Path | None, typer.Option("--topics", help="Queries (TREC topics, TSV or JSONL), instead of --data's.")
]
QrelsFile = Annotated[Path | None, typer.Option("--qrels", help="Judgements (TREC or BEIR), instead of --data's.")]
RetrievedOnly = Annotated[
    bool,
    typer.Option(
        "--retrieved-only", help="Average over queries in the run (trec_eval without -c), not over all judged ones."
    ),
]
Report = Annotated[Path | None, typer.Option("--report", help="Write a single-file HTML report here.")]

Engine = Annotated[Engines, typer.Option("--engine", help="Who does the work: this process, or a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of a running Ray cluster (HOST:PORT, auto); one is started here by default."),
]
Gpus = Annotated[float, typer.Option("--gpus", min=0, help="Of each worker of the cluster; 0.5 is half a one.")]

DEFAULT_MEASURES = ["nDCG@10", "R@100", "RR@10"]
BETWEEN = re.compile(r"[\s,]+(?=[A-Za-z])(?![^(]*\))")  # measures: blanks or commas, but not those inside of one


def collection(
    data: str | None,
    topics: Path | None = None,
    qrels: Path | None = None,
    split: str = "test",
    self_match: SelfMatches | None = None,
) -> Dataset:
    """What ``--data``, ``--topics`` and ``--qrels`` name together: a file takes the place of the collection's own.

    :raises DataError: If something is not there or malformed.
    """
    from rankpipe.datasets import open_dataset, open_files

    files = open_files(queries=topics, qrels=qrels) if topics or qrels else None
    if data is None:
        return files or open_files()
    opened = open_dataset(data, split, self_match=self_match.value if self_match else None)
    if files is None:
        return opened
    return replace(opened, queries=files.queries or opened.queries, qrels=files.qrels or opened.qrels)


def measured(said: list[str] | None) -> list[str]:
    """The measures that are asked for; ``-m "P@5 MRR"`` is two."""
    return [name for one in said or DEFAULT_MEASURES for name in BETWEEN.split(one.strip())]


def judged(
    data: str | None,
    topics: Path | None = None,
    qrels: Path | None = None,
    split: str = "test",
    self_match: SelfMatches | None = None,
) -> Dataset:
    """The collection, with judgements.

    :raises CommandError: If neither ``--data`` nor ``--qrels`` is given.
    :raises DataError: If something is not there or malformed.
    """
    if data is None and qrels is None:
        raise CommandError(["no judgements: name a data set with --data, or a file with --qrels"])
    return collection(data, topics, qrels, split, self_match)


def engine(name: Engines, address: str | None, gpus: float = 0) -> Ray | None:
    """What ``--engine``, ``--address`` and ``--gpus`` name together; None for this process.

    :raises CommandError: If a cluster's options are given to this process.
    """
    from rankpipe.engine import Ray

    if name is Engines.ray:
        return Ray(address, gpus=gpus)
    if address or gpus:
        raise CommandError(["--address and --gpus are those of a cluster: add --engine ray"])
    return None


def component(
    use: str, settings: list[str] | None, method: str | None = None, given: tuple[str, ...] = ()
) -> dict[str, Any]:
    """``--use`` and ``--set`` as the recipe node they stand for.

    :raises RecipeError: If a setting is no KEY=VALUE, or the component does not take it.
    """
    return checked(merged({"use": use}, settings), method, given)


def merged(node: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """The node with ``--set``: KEY=VALUE, the value YAML; ``lm.context=4096`` sets an argument of an argument, and
    ``plan=tournament`` is short for ``plan={use: tournament}``.

    :raises RecipeError: If one is no KEY=VALUE, or its key goes through something that has no arguments.
    """
    import yaml

    if bad := [s for s in settings or [] if "=" not in s]:
        raise RecipeError([f"--set {s}: expected KEY=VALUE" for s in bad])
    node = deepcopy(node)
    for one in settings or []:
        path, value = one.split("=", 1)
        *outer, key = path.split(".")
        inside: Any = node
        for name in outer:
            inside = inside.setdefault(name, {})
            if not isinstance(inside, dict):
                raise RecipeError([f"--set {one}: {name} has no arguments to set"])
        try:
            inside[key] = float(value) if EXPONENT.fullmatch(value) else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError([f"--set {one}: the value is no YAML: {error}".replace("\n", " ")]) from None
        node = recipe.meant(node)
    return node


def checked(node: dict[str, Any], method: str | None = None, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """The node, if it can be built (or ``method`` of its component be called).

    :raises RecipeError: If not, with every fault.
    :raises RankpipeError: Of another kind, if it is only for that: MissingExtra, ArtefactError.
    """
    inner = {k: v for k, v in node.items() if k != "use"}
    refuse([*recipe.check(inner), *recipe.bind(node, "", method, given)] if method else recipe.check(node))
    return node
