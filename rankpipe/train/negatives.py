"""Which documents of a run, beside the relevant ones, are worth learning from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankpipe.data import Ranking
from rankpipe.errors import RecipeError
from rankpipe.train.labels import Labels


@dataclass(frozen=True)
class Negatives:
    """Hard negatives: what a retriever finds that nobody judged relevant, but for what probably is; and easy ones.

    :param skip: hits of the run that are passed over, from its top: the likeliest to be relevant and not judged.
    :param depth: hits of the run that are looked at, those passed over included; none of 0.
    :param random: documents of the collection that are drawn for each query, whatever they are about.
    :param teacher: who tells negatives that are none; its scores, like labels, come from a reranker or a record.
    :param margin: a negative that the teacher scores more than this above the best relevant document is left out; below
        0, it must score at least so much less. Positive-aware mining, TopK-MarginPos, of Moreira et al. 2024
        (NV-Retriever, arXiv 2407.15831).
    :raises RecipeError: If a number is out of range, or there is a margin without a teacher.
    """

    skip: int = 0
    depth: int = 100
    random: int = 0
    teacher: Labels | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.skip < self.depth or (self.skip == self.depth == 0 < self.random)):
            raise RecipeError(
                [f"skip={self.skip}, depth={self.depth}: expected 0 <= skip < depth, or 0 and some random"]
            )
        if self.random < 0:
            raise RecipeError([f"random: {self.random}; expected 0 or more documents"])
        if self.teacher is None and self.margin:
            raise RecipeError(["margin: of a teacher's scores; say which, teacher: {use: recorded, path: ...}"])

    def mined(self, run: Sequence[str], grades: Mapping[str, int]) -> list[str]:
        """The documents of a run, best first, that are taken: the relevant ones of any rank, and negatives."""
        return [d for i, d in enumerate(run) if grades.get(d, 0) > 0 or self.skip <= i < self.depth]

    def false(self, rankings: Sequence[Ranking], grades: Sequence[Mapping[str, int]]) -> list[set[str]]:
        """Of each ranking the documents that are taken for relevant though nobody judged them so."""
        if self.teacher is None:
            return [set() for _ in rankings]
        found = []
        for said, of_query in zip(self.teacher.of(rankings, grades), grades, strict=True):
            best = max((s for d, s in said.items() if of_query.get(d, 0) > 0), default=float("inf"))
            found.append({d for d, s in said.items() if of_query.get(d, 0) <= 0 and s > best + self.margin})
        return found
