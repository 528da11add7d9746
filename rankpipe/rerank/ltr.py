"""Learning to rank: trees over features of query and hit, trained on judgements (LambdaMART, YetiRank)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from rankpipe.data import Ranking
from rankpipe.disk import write
from rankpipe.errors import ArtefactError, DataError, RecipeError
from rankpipe.progress import track
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.features import Statistics, chosen, unknown
from rankpipe.rerank.learners import LEARNERS, Examples, LambdaMART, Learner, Scorer
from rankpipe.rerank.scores import ByScore, apart, rescored
from rankpipe.rerank.signals import BATCH, Signals, identities
from rankpipe.store import Data, claim, open_artefact, publish
from rankpipe.trec import Qrels

KIND = "ltr"


class LearnedRanker(ByScore):
    """Scores hits by what was learned from rankings like theirs: from the same first stage, of the same collection.

    Scores compare within a query; hits that the trees cannot tell apart stay in their order. Hits after ``depth``, and
    those that the budget did not allow, stay below in their old order, with scores that fall on from the last one's by
    1 a rank. What a hit is known by, its features, ``rankpipe ls`` lists (:mod:`~rankpipe.rerank.features`).

    :param folder: made by :meth:`fit`.
    :param depth: hits of a ranking that are scored; as many as were learned from by default.
    :param budget: the most that one query may cost; only the cross-encoder's calls count, not the trees.
    :raises ArtefactError: If there is no whole ranker in the folder, or it knows features that this version does not.
    :raises RecipeError: If ``depth`` is below 1, or there is a budget of tokens for the cross-encoder.
    :raises MissingExtra: If LightGBM (CatBoost) is not installed.
    """

    batch = BATCH
    reads_scores = True

    def __init__(self, folder: Path, depth: int | None = None, budget: Budget = Budget()) -> None:  # noqa: B008  frozen
        self.manifest = open_artefact(folder, kind=KIND)
        recipe, facts = self.manifest.recipe, self.manifest.facts
        if foreign := unknown(facts["features"]):
            raise ArtefactError(f"{folder}: knows the features {', '.join(foreign)}, which this version does not")
        self.depth = recipe["depth"] if depth is None else depth
        _positive(self.depth)
        settings = dict(recipe["learner"])
        self.learner: Learner = LEARNERS[settings.pop("use")](**settings)
        counted = json.loads((self.manifest.path / "statistics.json").read_text("utf-8"))
        models = {"encoder": recipe["encoder"], "cross": recipe["cross"]}
        self.signals = Signals(tuple(facts["features"]), Statistics(**counted), models, facts["identities"])
        if "cross_score" not in self.signals.features:
            budget = Budget(budget.seconds)
        if budget.tokens is not None:
            raise RecipeError(["budget.tokens: how many a pair has is known when it has been read; limit the calls"])
        self.budget = budget
        _ = self.scorer

    @cached_property
    def scorer(self) -> Scorer:
        """The trees.

        :raises ArtefactError: If they were grown from other features than the manifest says.
        """
        return self.learner.open(self.manifest.path / self.learner.file, self.signals.features)

    @classmethod
    def fit(
        cls,
        rankings: Sequence[Ranking],
        qrels: Qrels,
        folder: Path,
        *,
        learner: Learner | None = None,
        features: Sequence[str] | None = None,
        encoder: str | None = None,
        cross: str | None = None,
        depth: int = 100,
        name: str = "rankings",
    ) -> LearnedRanker:
        """Learn from judged rankings, and keep what was learned in a folder.

        Hits that nobody judged count as irrelevant. Queries with no relevant hit, or nothing else, teach nothing and
        are left out; ``facts`` of the manifest counts them, and says how much each feature was of use.

        :param learner: :class:`LambdaMART` by default, or :class:`YetiRank`.
        :param features: names from the table; all that can be had by default.
        :param encoder: a sentence encoder, for the feature cosine.
        :param cross: a cross-encoder, for the feature cross_score.
        :param depth: hits of a ranking that are learned from.
        :param name: what the manifest calls the data.
        :raises DataError: If no ranking teaches anything, or nothing is learned.
        :raises ArtefactError: If something else is in the folder.
        :raises RecipeError: If there is no such learner or feature, or its model is not given.
        """
        _positive(depth)
        learner = learner or LambdaMART()
        settings = _spelled(learner)
        models = {"encoder": encoder, "cross": cross}
        names = chosen(features, models)
        claim(folder, KIND)
        teaching = [r for r in rankings if len(set(_grades(r, qrels, depth))) > 1]
        if not teaching:
            raise DataError(
                f"{name}: none of {len(rankings)} rankings has both relevant and other hits: nothing to learn"
            )
        recipe = {"use": KIND, "learner": settings, "features": features and list(features), "depth": depth, **models}
        with publish(folder, kind=KIND, recipe=recipe, data=Data(name, _checksum(teaching, qrels, depth))) as draft:
            signals = _signals(names, teaching, depth, models)
            with write(draft.folder / "statistics.json") as f:
                json.dump(asdict(signals.statistics), f, ensure_ascii=False)
            examples = _examples(signals, teaching, qrels, depth)
            draft.facts |= {
                "importance": learner.fit(examples, draft.folder / learner.file), "features": list(names),
                "identities": dict(signals.identities), "queries": len(teaching), "hits": len(examples.grades),
                "relevant": int((examples.grades > 0).sum()), "queries_left_out": len(rankings) - len(teaching),
            }  # fmt: skip
        return cls(folder)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Look at the hits of all rankings together, then score them.

        :raises ArtefactError: If a model that the features need is no longer the one of the training.
        """
        spent = [Spent() for _ in batch]
        scores: list[list[float]] = [[] for _ in batch]

        def ask(asked: list[tuple[int, int]]) -> None:
            self.signals.ready()  # in no query's seconds
            start = perf_counter()
            places = [[place for one, place in asked if one == q] for q in range(len(batch))]
            known = self.signals.of(batch, places)
            for q, one in enumerate(known):
                scores[q] += self.scorer(one.matrix).tolist() if len(one.matrix) else []
            share_s = (perf_counter() - start) / len(asked)
            for cost, at, one in zip(spent, places, known, strict=True):
                for place, pair in zip(at, one.crossed, strict=True):
                    cost.pay(share_s, pair.tokens if pair else 0, calls=int(pair is not None))
                    cost.cut.update([place] * (pair is not None and pair.cut))

        spend(self.budget, spent, [_head(r, self.depth) for r in batch], lambda q, place: ((q, place), 0), ask)
        return [
            rescored(r, apart(rated), self.name).noting(cost.step(self.name))
            for r, rated, cost in zip(batch, scores, spent, strict=True)
        ]


def _spelled(learner: Learner) -> dict[str, Any]:
    """A learner as a recipe has it."""
    for use, kind in LEARNERS.items():
        if isinstance(learner, kind):
            return {"use": use, **asdict(learner)}
    raise RecipeError([f"learner: {learner!r} is none; there are " + ", ".join(f"{{use: {use}}}" for use in LEARNERS)])


def _signals(
    names: tuple[str, ...], rankings: Sequence[Ranking], depth: int, models: Mapping[str, str | None]
) -> Signals:
    docs = {h.doc.id: h.doc for r in rankings for h in r.hits[:depth]}
    bare = Signals(names, Statistics(0, {}, 0, 0), models, identities(models))
    return Signals(names, Statistics.of(docs.values(), bare.words), models, bare.identities)


def _examples(signals: Signals, rankings: Sequence[Ranking], qrels: Qrels, depth: int) -> Examples:
    shards = [rankings[i : i + BATCH] for i in range(0, len(rankings), BATCH)]
    known = [
        k.matrix for shard in track(shards, "features") for k in signals.of(shard, [_head(r, depth) for r in shard])
    ]
    grades = [grade for r in rankings for grade in _grades(r, qrels, depth)]
    return Examples(np.concatenate(known), np.array(grades, np.int32), list(map(len, known)), signals.features)


def _head(ranking: Ranking, depth: int) -> range:
    """The places of its first hits."""
    return range(min(len(ranking.hits), depth))


def _grades(ranking: Ranking, qrels: Qrels, depth: int) -> list[int]:
    judged = qrels.get(ranking.query.id, {})
    return [max(judged.get(h.doc.id, 0), 0) for h in ranking.hits[:depth]]


def _checksum(rankings: Sequence[Ranking], qrels: Qrels, depth: int) -> str:
    state = hashlib.sha256()
    for r in rankings:
        hits = [[h.doc.id, h.score, grade] for h, grade in zip(r.hits, _grades(r, qrels, depth), strict=False)]
        state.update(json.dumps([r.query.id, r.query.text, hits]).encode() + b"\n")
    return state.hexdigest()


def _positive(depth: int) -> None:
    if depth < 1:
        raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
