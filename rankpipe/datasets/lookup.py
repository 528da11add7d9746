"""From a run, which has only ids, to rankings with texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from rankpipe.data import Doc, Hit, Ranking
from rankpipe.datasets.dataset import Dataset
from rankpipe.errors import DataError
from rankpipe.progress import track
from rankpipe.trec import LARGEST, Run, read_run, single

SHOWN = 5  # ids named in an error


def rankings(run: Run | Path, data: Dataset, whose: str = "the run's") -> list[Ranking]:
    """The run's queries, in its order, each with its hits as trec_eval orders them.

    The corpus streams by once, and only the documents of the run are kept.

    :param run: a run, or the TREC file of one (to hear what is odd about a file, read it with ``trec.read_run``).
    :param whose: queries and documents they are, for errors.
    :raises DataError: If the file is malformed, or queries or documents of the run are not in the collection; says how
        many, and some.
    """
    given = read_run(run).run if isinstance(run, Path) else run
    return [*streamed(given, data, lambda docs: {d.id: d for d in docs}, whose)]


def streamed(
    run: Run, data: Dataset, keep: Callable[[Iterable[Doc]], Mapping[str, Doc]], whose: str = "the run's"
) -> Iterator[Ranking]:
    """The same one after the other, so that nobody need hold them all.

    :param keep: is given the run's documents as they pass by, and gives them by their ids, wherever their texts lie.
    """
    asked = {q.id: q for q in data.queries}
    _refuse([q for q in run if q not in asked], f"{whose} {len(run)} queries", data.name)
    wanted = {doc for scores in run.values() for doc in scores}
    found = keep(doc for doc in track(data.docs(), "looking up texts", data.count) if doc.id in wanted)
    _refuse(sorted(wanted - found.keys()), f"{whose} {len(wanted)} documents", data.name)
    for query, scores in run.items():
        yield Ranking.scored(asked[query], [Hit(found[d], _finite(single(score))) for d, score in scores.items()])


def _finite(score: float) -> float:
    return max(min(score, LARGEST), -LARGEST)


def _refuse(missing: list[str], among: str, name: str) -> None:
    if missing:
        some = ", ".join(map(repr, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
        raise DataError(f"{len(missing)} of {among} are not in {name}: {some}; is the run over this collection?")
