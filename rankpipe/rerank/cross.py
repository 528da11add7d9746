"""Cross-encoders: a model reads question and passage together and says how well they fit (Nogueira and Cho 2019)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from rankpipe import st, weights
from rankpipe.catalog import need
from rankpipe.data import Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.onnx import OnnxModel, read_json
from rankpipe.progress import counting, done, notice, working
from rankpipe.rerank.budget import Budget, Spent, spend
from rankpipe.rerank.fit import MUCH
from rankpipe.rerank.scores import ByScore, rescored


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model said of one pair: its raw logit, the tokens it read, and whether the passage was shortened."""

    score: float
    tokens: int
    cut: bool


Scorer = Callable[[Sequence[tuple[str, str]]], Sequence[Scored]]


class Loaded(NamedTuple):
    """A model that is ready."""

    scorer: Scorer
    length: Callable[[str], int]  # the tokens of a query
    most: int | None  # tokens that it reads of a pair; None if it knows no limit


class CrossEncoder(ByScore):
    """Scores each (question, title and text) pair of the first ``depth`` hits, and sorts them by it.

    Scores are the model's raw logits, so they compare across queries. Hits after ``depth``, and those that the budget
    did not allow, stay below in their old order, with scores that fall on from the last one's by 1 a rank. The model is
    loaded at the first ranking. No ledger is kept: all that is said of a pair is its score, and that is in the run.

    :param model: an alias, a Hugging Face id or a folder: ONNX Runtime runs it or
        sentence-transformers, as :func:`rankpipe.retrieve.encode.encoder` says.
    :param depth: hits of a ranking that are scored.
    :param max_length: tokens of a pair that are read; the end of the passage is cut, and counted (``Step.cut``).
    :param budget: the most that one query may cost; of its tokens only with a ``max_length``, for what a pair really
        has is known when it has been read.
    :raises RecipeError: If ``depth`` is below 1, or there is a budget of tokens without ``max_length``.
    :raises MissingExtra: If the model needs sentence-transformers, which is not installed.
    """

    def __init__(
        self,
        model: str = "minilm-l12",
        depth: int = 100,
        max_length: int | None = None,
        budget: Budget = Budget(),  # noqa: B008  frozen
    ) -> None:
        if depth < 1:
            raise RecipeError([f"depth: {depth} hits; expected 1 or more"])
        if budget.tokens is not None and max_length is None:
            raise RecipeError(["budget.tokens: say with max_length how many a pair may have"])
        weights.require_runner(model, "cross-encoder")
        self.model, self.depth, self.max_length, self.budget = model, depth, max_length, budget

    @cached_property
    def scorer(self) -> Scorer:
        """How the loaded model scores.

        :raises MissingWeights: If it cannot be had.
        :raises ModelError: If it gives more than one number for a pair, or cannot read ``max_length`` tokens.
        """
        return self._loaded.scorer

    @cached_property
    def _loaded(self) -> Loaded:
        folder = weights.resolve(self.model)
        kind = _onnx if weights.by_onnx(folder) else _torch
        with working(f"loading {self.model}"):
            return kind(folder, self.max_length)

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        """Score the pairs of all rankings together."""
        for ranking in batch:
            self._look_at(ranking)
        spent = [Spent() for _ in batch]
        scores: list[list[float]] = [[] for _ in batch]

        def make(q: int, place: int) -> tuple[tuple[int, int], int]:
            return (q, place), self.max_length or 0

        def ask(asked: list[tuple[int, int]]) -> None:
            scorer, start = self.scorer, perf_counter()  # loading it is in no query's seconds
            scored = scorer([(batch[q].query.text, batch[q].hits[place].doc.contents) for q, place in asked])
            share_s = (perf_counter() - start) / len(asked)
            for (q, place), one in zip(asked, scored, strict=True):
                scores[q].append(one.score)
                spent[q].pay(share_s, one.tokens)
                spent[q].cut.update([place] * one.cut)

        spend(self.budget, spent, [range(min(len(r.hits), self.depth)) for r in batch], make, ask)
        return [
            rescored(r, rated, self.model).noting(cost.step(self.name))
            for r, rated, cost in zip(batch, scores, spent, strict=True)
        ]

    def _look_at(self, ranking: Ranking) -> None:
        """Tell which query is so long that it may be shortened, too."""
        query = ranking.query
        if len(query.text) < MUCH or not ranking.hits or (most := self._loaded.most) is None:
            return
        if (tokens := self._loaded.length(query.text)) > most // 2:
            notice(
                f"query {query.id!r}: {tokens} tokens, but {self.model} reads {most} of query and passage together: "
                "its end may be left out"
            )


def _onnx(folder: Path, max_length: int | None) -> Loaded:
    model = OnnxModel(folder, max_length)
    if model.file.name != "model.onnx":
        notice(f"{folder} is computed by {model.file.relative_to(folder)}")

    def score(pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        rows = []
        with counting("cross-encoder: pairs", len(pairs)):
            for row in model.run(pairs):
                rows.append(row)
                done()
        if (shape := rows[0].values.shape) != (1,):
            raise ModelError(f"{folder}: gives numbers of shape {shape} for a pair, a cross-encoder gives one")
        return [Scored(float(row.values[0]), row.tokens, row.cut) for row in rows]

    return Loaded(score, model.length, model.max_length)


def has_head(folder: Path) -> bool:
    """Whether a model has weights that score pairs; sentence-transformers would draw those of another one."""
    if weights.by_onnx(folder) or re.fullmatch(r"\w+For(SequenceClassification|CausalLM)", _kind(folder)):
        return True
    return bool(read_json(folder / "config_sentence_transformers.json").get("model_type") == "CrossEncoder")


def _kind(folder: Path) -> str:
    return str((read_json(folder / "config.json").get("architectures") or ["no architecture"])[0])


def _torch(folder: Path, max_length: int | None) -> Loaded:
    """In single precision: eight bits would make ties of good passages."""
    if not has_head(folder):
        raise ModelError(f"{folder}: no cross-encoder but {_kind(folder)}; its scores would come from random weights")
    model = st.load("CrossEncoder", folder, "float32", max_length)
    identity = need("torch", name="this cross-encoder", extra="st").nn.Identity()
    if model.num_labels != 1:
        raise ModelError(f"{folder}: gives {model.num_labels} numbers for a pair, a cross-encoder gives one")

    def score(pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        told = st.measured(model, pairs)
        logits = model.predict(told.texts, activation_fn=identity, show_progress_bar=False).tolist()  # sorts by length
        return [Scored(*row) for row in zip(logits, told.tokens, told.cut, strict=True)]

    return Loaded(score, lambda text: st.tokens_of(model, [text])[0], model.max_seq_length)
