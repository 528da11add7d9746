"""Lists that say nothing to a loss are told of, and refused if there are no others."""

from __future__ import annotations

from typing import Any

import pytest

from rankpipe.errors import RecipeError
from rankpipe.progress import listening
from rankpipe.train import losses
from rankpipe.train.heads.vectors import BiEncoderHead
from rankpipe.train.heads.windows import FirstHead
from rankpipe.train.objective import Objective
from tests.heard import Heard
from tests.train.lists import LOSSES, every, torch

datasets: Any = pytest.importorskip("datasets")
for package in ("peft", "sentence_transformers"):
    pytest.importorskip(package)
pytestmark = pytest.mark.usefixtures("one_thread")
RANKS, LOGITS, GRADES = [1.0, 0.5, 1 / 3], [-1.5, -7.0], [0.0, 2.0, 0.0]  # of listwise and other teachers, of people


def told(loss: Any, *lists: list[float], together: int = 1) -> list[str]:
    """What is noticed of lists with these labels."""
    head = BiEncoderHead() if isinstance(loss, losses.InBatch) else FirstHead()
    heard = Heard()
    with listening(heard):
        Objective(loss, head).refuse_silence(datasets.Dataset.from_dict({"labels": lists}), together)
    return heard.notices


@every
def test_what_a_loss_counts_is_what_it_hears(name: str) -> None:
    for labels in (RANKS, LOGITS, GRADES):
        row = torch.tensor([labels])
        if LOSSES[name].count(row, torch.ones_like(row, dtype=torch.bool)):
            assert told(LOSSES[name], labels) == []
        else:
            with pytest.raises(
                RecipeError, match=rf"1 of 1 lists say nothing to \w+, which needs {LOSSES[name].wants}"
            ):
                told(LOSSES[name], labels)


def test_what_learns_nothing_is_refused_and_told_of_if_it_is_some() -> None:
    for loss in (losses.InfoNCE(), losses.SoftmaxCE()):
        with pytest.raises(
            RecipeError, match=r"3 of 3 lists say nothing to .* above 0, and one that is not; take other"
        ):
            told(loss, RANKS, RANKS, LOGITS)
        assert "2 of 3 lists say nothing" in told(loss, RANKS, GRADES, LOGITS)[0]
    for loss in (losses.LambdaLoss(), losses.ApproxNDCG(), losses.NeuralNDCG()):
        with pytest.raises(RecipeError, match="2 of 2 lists"):
            told(loss, LOGITS, LOGITS)
    assert len(told(losses.RankNet(), RANKS, [1.0, 1.0])) == 1
    assert told(losses.PermutationLM(), [1.0]) == []


def test_each_loss_of_a_sum_hears_something() -> None:
    both = losses.Sum({"one": losses.RankNet(), "two": losses.InfoNCE(), "lm": losses.PermutationLM()})
    with pytest.raises(RecipeError, match="InfoNCE"):
        told(both, RANKS, LOGITS)
    assert told(both, GRADES) == []


def test_documents_of_other_queries_are_no_silence() -> None:
    assert told(losses.InBatch(), RANKS, together=2) == []
    for labels, together in ((RANKS, 1), (LOGITS, 2)):
        with pytest.raises(RecipeError, match="InBatch"):
            told(losses.InBatch(), labels, together=together)


def test_more_lists_than_are_looked_at_together() -> None:
    assert "1 of 2501 lists" in told(losses.InfoNCE(), *[GRADES] * 2500, RANKS)[0]
