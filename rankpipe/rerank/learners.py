"""How a ranking is learned from features: gradient-boosted trees, by LightGBM or CatBoost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from rankpipe.catalog import need, require
from rankpipe.errors import ArtefactError, DataError, RecipeError
from rankpipe.onnx import cores

MANY = 10_000  # hits that are worth more than one thread, which wait for each other at every split
Matrix = NDArray[np.float64]  # (hits, features)
Scorer = Callable[[Matrix], NDArray[np.float64]]  # gives (hits,)


@dataclass(frozen=True)
class Examples:
    """Hits of many queries, one query after the other."""

    matrix: Matrix
    grades: NDArray[np.int32]  # (hits,)
    groups: Sequence[int]  # hits of each query
    features: Sequence[str]


class Learner(Protocol):
    """Learns to score hits, and keeps what it learned in a file."""

    file: ClassVar[str]

    def fit(self, examples: Examples, path: Path) -> dict[str, float]:
        """Learn, write the file, and say how much each feature was of use, in shares of 1.

        :raises DataError: If nothing is learned.
        """
        ...

    def open(self, path: Path, features: Sequence[str]) -> Scorer:
        """What was learned.

        :raises ArtefactError: If it was learned from other features.
        """
        ...


@dataclass(frozen=True)
class LambdaMART:
    """LambdaMART (Burges 2010) by LightGBM: pairs of hits weigh what swapping them would change of nDCG.

    The same data and seed give the same trees, on any number of cores.

    :param trees: how many are learned, one after the other.
    :param leaves: of a tree, at most.
    :param learning_rate: how much of what it has learned each tree adds.
    :param min_leaf: hits, at least, in a leaf.
    :param truncation: pairs count that have one of this many first hits.
    :param seed: of what is left to chance.
    :raises RecipeError: If a number is out of its range.
    :raises MissingExtra: If LightGBM is not installed.
    """

    trees: int = 300
    leaves: int = 15
    learning_rate: float = 0.05
    min_leaf: int = 20
    truncation: int = 30
    seed: int = 0

    file: ClassVar[str] = "lightgbm.txt"

    def __post_init__(self) -> None:
        _in_range(self, trees=1, leaves=2, min_leaf=1, truncation=1)
        require("lightgbm", name="LambdaMART", extra="ltr")

    def fit(self, examples: Examples, path: Path) -> dict[str, float]:
        """Learn, write the file, and say how much each feature was of use: the share of all splits' gains.

        :raises DataError: If no tree splits.
        """
        lightgbm = need("lightgbm", name="LambdaMART", extra="ltr")
        quiet = {"verbosity": -1, "num_threads": cores() if len(examples.grades) >= MANY else 1}
        options = {
            "objective": "lambdarank", "num_leaves": self.leaves, "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf, "lambdarank_truncation_level": self.truncation, "seed": self.seed,
            "label_gain": [2**grade - 1 for grade in range(int(examples.grades.max(initial=0)) + 1)],
            "deterministic": True, "force_row_wise": True, **quiet,
        }  # fmt: skip
        data = lightgbm.Dataset(
            examples.matrix, examples.grades, group=list(examples.groups), feature_name=list(examples.features),
            params=quiet,
        )  # fmt: skip
        made = lightgbm.train(options, data, num_boost_round=self.trees)
        path.write_text(made.model_to_string(), "utf-8")
        why = f"no tree was split with min_leaf={self.min_leaf} hits or more in each leaf; take a smaller one, or more"
        return _shares(examples, made.feature_importance("gain").tolist(), f"{why} judged rankings")

    def open(self, path: Path, features: Sequence[str]) -> Scorer:
        """What was learned.

        :raises ArtefactError: If it was learned from other features.
        """
        lightgbm = need("lightgbm", name="LambdaMART", extra="ltr")
        made = lightgbm.Booster(model_str=path.read_text("utf-8"))
        _same(path, made.feature_name(), features)
        return lambda matrix: np.asarray(made.predict(matrix), np.float64)


@dataclass(frozen=True)
class YetiRank:
    """YetiRank (Gulin et al. 2011) by CatBoost, from the same features.

    :param trees: how many are learned, one after the other.
    :param levels: of each tree.
    :param learning_rate: how much of what it has learned each tree adds.
    :param seed: of what is left to chance.
    :raises RecipeError: If a number is out of its range.
    :raises MissingExtra: If CatBoost is not installed.
    """

    trees: int = 300
    levels: int = 6
    learning_rate: float = 0.05
    seed: int = 0

    file: ClassVar[str] = "catboost.cbm"

    def __post_init__(self) -> None:
        _in_range(self, trees=1, levels=1)
        require("catboost", name="YetiRank", extra="catboost")

    def fit(self, examples: Examples, path: Path) -> dict[str, float]:
        """Learn, write the file, and say how much each feature was of use, in CatBoost's way.

        :raises DataError: If no feature was.
        """
        catboost = need("catboost", name="YetiRank", extra="catboost")
        made = catboost.CatBoost(
            {
                "loss_function": "YetiRank", "iterations": self.trees, "depth": self.levels,
                "learning_rate": self.learning_rate, "random_seed": self.seed, "thread_count": cores(),
                "allow_writing_files": False, "logging_level": "Silent",
            }
        )  # fmt: skip
        owner = np.repeat(np.arange(len(examples.groups)), examples.groups)
        made.fit(
            catboost.Pool(
                examples.matrix, examples.grades.astype(float), group_id=owner, feature_names=list(examples.features)
            )
        )
        made.save_model(str(path))
        gains = made.get_feature_importance(type="PredictionValuesChange").tolist()
        return _shares(examples, gains, "no feature was of use; take more judged rankings")

    def open(self, path: Path, features: Sequence[str]) -> Scorer:
        """What was learned.

        :raises ArtefactError: If it was learned from other features.
        """
        made = need("catboost", name="YetiRank", extra="catboost").CatBoost().load_model(str(path))
        _same(path, made.feature_names_, features)
        return lambda matrix: np.asarray(made.predict(matrix), np.float64)


LEARNERS: dict[str, type[LambdaMART] | type[YetiRank]] = {"lambdamart": LambdaMART, "yetirank": YetiRank}


def _in_range(learner: Any, **least: int) -> None:
    faults = [f"{n}: {getattr(learner, n)}; expected {m} or more" for n, m in least.items() if getattr(learner, n) < m]
    if not 0 < learner.learning_rate <= 1:
        faults.append(f"learning_rate: {learner.learning_rate}; expected more than 0, and 1 or less")
    if faults:
        raise RecipeError(faults)


def _same(path: Path, learned: Sequence[str], features: Sequence[str]) -> None:
    if list(learned) != list(features):
        raise ArtefactError(f"{path}: learned from {', '.join(learned)}, but is told of {', '.join(features)}")


def _shares(examples: Examples, gains: Sequence[float], otherwise: str) -> dict[str, float]:
    """How much each feature was of use.

    :param otherwise: why none was, and the cure.
    :raises DataError: If none was.
    """
    if not (total := sum(gains)):
        raise DataError(f"nothing was learned from {len(examples.grades)} hits: {otherwise}")
    return {name: round(gain / total, 4) for name, gain in zip(examples.features, gains, strict=True)}
