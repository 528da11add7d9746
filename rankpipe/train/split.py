"""Parts of a collection that share neither a query nor a relevant document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rankpipe.datasets import Dataset
from rankpipe.errors import DataError, RecipeError, several
from rankpipe.progress import notice
from rankpipe.trec import Qrels, Run


@dataclass(frozen=True)
class Others:
    """Development queries that are no part of what lists are made of, and that lists are kept apart from.

    :param origin: of the documents that are relevant to them (:func:`origin`).
    """

    texts: frozenset[str] = frozenset()
    qrels: Qrels = field(default_factory=dict)
    origin: str = ""

    def left_out(self, qrels: Qrels, texts: Mapping[str, str], name: str) -> Qrels:
        """The judgements, without queries that are among these, or share a relevant document with them; tells how many.

        :param texts: of the queries.
        :param name: of what lists are made of.
        :raises RecipeError: If none is left.
        """
        theirs = relevant(self.qrels)
        left = {q: g for q, g in qrels.items() if texts[q] not in self.texts and not relevant({q: g}) & theirs}
        if lost := len(qrels) - len(left):
            told = f"{lost} of {several(len(qrels), 'query', 'queries')} of {name} are development queries, or share"
            if not left:
                cure = "take share: 0.1 in place of data, other data, or fewer queries of it"
                raise RecipeError(
                    [f"dev: {told} relevant documents with them, which leaves nothing to learn from; {cure}"]
                )
            notice(f"{told} relevant documents with them: they are left out")
        return left


def origin(data: Dataset) -> str:
    """Where its documents come from: the same of all splits of a collection."""
    return data.known.id if data.known else str(getattr(data.corpus, "path", data.name))


def split(qrels: Qrels, share: float, seed: int) -> tuple[Qrels, Qrels]:
    """Judgements in two parts, no document relevant in both: queries that share a relevant document stay together.

    What belongs together is dealt out in an order that the seed decides, to the second part until it has its share.

    :param share: of the queries that are for the second part.
    :raises DataError: If either part would be empty.
    """
    groups = together(qrels)
    room, held = round(share * len(qrels)), set[str]()
    for group in sorted(groups, key=lambda g: hashlib.sha256(f"{seed} {g[0]}".encode()).digest()):
        if len(held) + len(group) <= room:
            held |= set(group)
    if not held or len(held) == len(qrels):
        raise DataError(
            f"split: a share of {share} of {len(qrels)} queries, which hang together by their relevant documents in "
            f"{len(groups)} groups, the largest of {max(map(len, groups), default=0)}, leaves a part empty; take "
            "another share, or data of its own for dev"
        )
    return {q: g for q, g in qrels.items() if q not in held}, {q: g for q, g in qrels.items() if q in held}


def together(qrels: Qrels) -> list[list[str]]:
    """Queries in groups, so that no two groups have a relevant document in common; each sorted."""
    root = {q: q for q in qrels}

    def find(q: str) -> str:
        while root[q] != q:
            root[q] = q = root[root[q]]
        return q

    first: dict[str, str] = {}
    for q, grades in qrels.items():
        for doc in relevant({q: grades}):
            root[find(q)] = find(first.setdefault(doc, q))
    groups: dict[str, list[str]] = {}
    for q in sorted(qrels):
        groups.setdefault(find(q), []).append(q)
    return list(groups.values())


def some(qrels: Qrels, many: int | None) -> Qrels:
    """So many of the queries to which something is relevant, chosen by their names' checksums; all of them if None."""
    judged = sorted((q for q in qrels if relevant({q: qrels[q]})), key=lambda q: hashlib.sha256(q.encode()).digest())
    taken = set(judged[:many])
    return {q: grades for q, grades in qrels.items() if q in taken}


def apart(run: Run, qrels: Qrels, others: Iterable[Qrels]) -> tuple[Run, Qrels]:
    """A part's run and judgements, without whatever is relevant in one of the others: documents are left out of its
    lists, and so are queries to which one of them is relevant.
    """
    theirs = set[str]().union(*map(relevant, others))
    mine = {q: grades for q, grades in qrels.items() if not relevant({q: grades}) & theirs}
    kept = {q: {d: s for d, s in run[q].items() if d not in theirs} for q in run if q in mine}
    return kept, {q: {d: g for d, g in grades.items() if d not in theirs} for q, grades in mine.items()}


def tell_apart(name: str, before: Run, after: Run, names: Iterable[str]) -> None:
    """Tell how much was left out of a run for the sake of others.

    :param name: of what lists are made of.
    :param names: of collections that it is kept apart from.
    """
    queries, hits = len(before) - len(after), sum(len(before[q]) - len(after[q]) for q in after)
    lost = [several(queries, "query", "queries")] * bool(queries) + [several(hits, "hit") + " of others"] * bool(hits)
    if lost:
        others = " or ".join(["queries held out", *names])
        notice(f"{name}: {' and '.join(lost)} left out, for what is relevant to {others}")


def relevant(qrels: Qrels) -> set[str]:
    """The documents that are, to any of the queries."""
    return {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}
