"""From scores to a ranking: what all rerankers share that score hits one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite, nan, nextafter

from rankpipe.data import Hit, Ranking
from rankpipe.errors import ModelError
from rankpipe.rerank.budget import Budget
from rankpipe.stage import Reranker


class ByScore(Reranker):
    """Scores each of the first ``depth`` hits, as far as the budget goes."""

    batch = 8
    counts = "passages"
    depth: int
    budget: Budget

    def work(self, ranking: Ranking) -> int:
        """The hits that are scored."""
        return self.budget.most(min(len(ranking.hits), self.depth))


def rescored(ranking: Ranking, scores: Sequence[float | None], judge: str) -> Ranking:
    """The hits that have a score, best first; below them the others in their old order.

    Scores of the others fall on from the last one's by 1 a rank, so that a run file says the same order.

    :param scores: of the first hits, in their order; None for one that the judge said nothing about.
    :param judge: who gave them, for the error.
    :raises ModelError: If a score is not finite; names the document.
    """
    judged = [(h.doc, s) for h, s in zip(ranking.hits, scores, strict=False) if s is not None]
    if bad := [doc.id for doc, score in judged if not isfinite(score)]:
        raise ModelError(f"{judge}: no finite score for query {ranking.query.id!r}, document {bad[0]!r}")
    head = Ranking.scored(ranking.query, [Hit(doc, score) for doc, score in judged]).hits
    known = {h.doc.id for h in head}
    last = head[-1].score if head else 0.0
    rest = (h.doc for h in ranking.hits if h.doc.id not in known)
    return replace(ranking, hits=(*head, *(Hit(doc, last - i) for i, doc in enumerate(rest, 1))))


def apart(scores: Sequence[float]) -> list[float]:
    """The scores, of equal ones each the least step below the one before it, so that they stay in their order."""
    made, last = list(scores), nan  # which nothing is as large as
    for place in sorted(range(len(made)), key=lambda i: -scores[i]):
        if scores[place] >= last:
            made[place] = nextafter(last, -inf)
        last = made[place]
    return made
