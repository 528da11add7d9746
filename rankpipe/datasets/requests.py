"""Rankings with their texts, one a line of JSON, in the form RankLLM calls requests (Pradeep et al. 2023)::

    {"query": {"qid": "7", "text": "..."}, "candidates": [{"docid": "d1", "score": 12.5, "doc": {"text": "..."}}]}

Read leniently (ids may be whole numbers; the text under any name :mod:`rankpipe.datasets.records` lists), written
strictly. The order of the candidates is the ranking. What stages cost (``Ranking.steps``) is not kept.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.datasets.records import DOC_ID, QUERY_ID, asked, doc, identifier, parse, text
from rankpipe.disk import write
from rankpipe.errors import DataError
from rankpipe.trec import lines


def read_requests(path: Path) -> list[Ranking]:
    """The rankings of a file; ``.gz`` is unpacked. Without any ``score``, the n-th candidate gets 1/n.

    :raises DataError: If a line is no ranking, its candidates are not in the order of their scores, some but not all
        have a score, a document is doubled, or a query comes twice; says the line.
    """
    rankings: dict[str, Ranking] = {}
    for place, line in lines(path):
        ranking = _ranking(parse(line, place), place)
        if rankings.setdefault(ranking.query.id, ranking) is not ranking:
            raise DataError(f"{place}: the query {ranking.query.id!r} is there already; one line a query is expected")
    if not rankings:
        raise DataError(f"{path}: no rankings in it")
    return list(rankings.values())


def write_requests(path: Path, rankings: Iterable[Ranking]) -> None:
    """Write the rankings, all or nothing; packed if the name ends in ``.gz``.

    :raises DiskError: If the disk is full or the folder cannot be written.
    """
    with write(path, "wb") as f:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", fileobj=f, mode="wb", mtime=0) as packed:
                packed.writelines(_lines(rankings))
        else:
            f.writelines(_lines(rankings))


def _lines(rankings: Iterable[Ranking]) -> Iterator[bytes]:
    for ranking in rankings:
        request = {
            "query": {"qid": ranking.query.id, "text": ranking.query.text},
            "candidates": [{"docid": h.doc.id, "score": float(h.score), "doc": _fields(h.doc)} for h in ranking.hits],
        }
        yield json.dumps(request, ensure_ascii=False).encode() + b"\n"


def _fields(doc: Doc) -> dict[str, Any]:
    told = {"title": doc.title, "text": doc.text, "metadata": doc.fields}
    return {name: value for name, value in told.items() if value or name == "text"}


def _ranking(record: dict[str, Any], place: str) -> Ranking:
    query = _object(record.get("query"), f"{place}: 'query'")
    candidates = record.get("candidates")
    if not isinstance(candidates, list):
        raise DataError(f"{place}: 'candidates' is no list; a ranking is {{'query': {{...}}, 'candidates': [...]}}")
    places = [f"{place}: candidate {n}" for n in range(1, len(candidates) + 1)]
    checked = [_object(c, at) for c, at in zip(candidates, places, strict=True)]
    scored = sum("score" in c for c in checked)
    if scored not in (0, len(checked)):
        raise DataError(f"{place}: {scored} of {len(checked)} candidates have a 'score'; give it to all or to none")
    hits = tuple(
        Hit(_doc(c, at), _score(c, at) if scored else 1 / n)
        for n, (c, at) in enumerate(zip(checked, places, strict=True), 1)
    )
    asks = asked(identifier(query, QUERY_ID, place), text(query, ("text", "query"), place), place)
    return _in_order(asks, hits, place)


def _in_order(query: Query, hits: tuple[Hit, ...], place: str) -> Ranking:
    try:
        return Ranking(query, hits)
    except ValueError as error:
        raise DataError(f"{place}: {error}; sort the candidates, or leave every 'score' out") from None


def _doc(candidate: dict[str, Any], place: str) -> Doc:
    return doc({**_object(candidate.get("doc"), f"{place}: 'doc'"), "_id": identifier(candidate, DOC_ID, place)}, place)


def _score(candidate: dict[str, Any], place: str) -> float:
    score = candidate["score"]
    if not isinstance(score, int | float) or isinstance(score, bool):
        raise DataError(f"{place}: 'score' is {score!r}, expected a number")
    return float(score)


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place} is {json.dumps(value)[:40]}, expected an object {{...}}")
    return value
