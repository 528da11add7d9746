"""Ranking losses beside those of sentence-transformers, whose model is one that knows its scores by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rankpipe.train import losses
from rankpipe.train.losses import ListLoss
from tests.train.lists import learned, lists, torch

theirs: Any = pytest.importorskip("sentence_transformers.cross_encoder.losses")
distil: Any = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
library: Any = pytest.importorskip("sentence_transformers.cross_encoder")
pytestmark = pytest.mark.usefixtures("one_thread")
close = torch.testing.assert_close
TOP = theirs.NDCGLoss2PPScheme(mu=5)


class Known(library.CrossEncoder):  # type: ignore[misc]
    """Scores (query, document), both written as numbers, by a table."""

    num_labels, device = 1, "cpu"

    def __init__(self, table: Any) -> None:
        torch.nn.Module.__init__(self)
        self.table = table

    def preprocess(self, pairs: Any, **_: Any) -> Any:
        return {"pairs": torch.tensor([[int(a), int(b)] for a, b in pairs])}

    def forward(self, tokens: Any) -> Any:
        return {"scores": self.table[tuple(tokens["pairs"].T)][:, None]}


def written(rows: Any) -> list[str]:
    return [str(int(i)) for i in rows]


# Theirs are the mean over all pairs or documents of a batch, ours over lists, and LambdaLoss is the sum over pairs.
LISTWISE: dict[str, tuple[ListLoss, Callable[[Any], Any]]] = {
    "ranknet": (losses.RankNet(sigma=2), lambda m: theirs.RankNetLoss(m, sigma=2, reduction_log="natural")),
    "lambdaloss": (losses.LambdaLoss(mu=5), lambda m: theirs.LambdaLoss(m, TOP)),
    "lambdaloss@3": (losses.LambdaLoss(mu=5, k=3), lambda m: theirs.LambdaLoss(m, TOP, k=3)),
    "lambdaloss-2": (losses.LambdaLoss(mu=1, rho=0), lambda m: theirs.LambdaLoss(m, theirs.NDCGLoss2Scheme())),
    "lambdarank": (losses.LambdaLoss(mu=0, rho=1), lambda m: theirs.LambdaLoss(m, theirs.LambdaRankScheme())),
    "listnet": (losses.ListNet(), theirs.ListNetLoss),
    "listmle": (losses.ListMLE(), lambda m: theirs.ListMLELoss(m, respect_input_order=False)),
    "p-listmle": (losses.PListMLE(), lambda m: theirs.PListMLELoss(m, respect_input_order=False)),
    "adr-mse": (losses.ADRMSE(temperature=0.5), lambda m: theirs.ADRMSELoss(m, alpha=2)),
}


@pytest.mark.parametrize("name", LISTWISE)
def test_listwise(name: str) -> None:
    ours, make = LISTWISE[name]
    for seed in range(5):
        scores, labels, mask = (t.float() if t.is_floating_point() else t for t in lists(seed, ties="mle" not in name))
        expected, expected_gradient = 0.0, torch.zeros_like(scores)
        for i in range(3):  # one at a time: a list has its own number of pairs
            table = scores.clone().requires_grad_()
            documents = written(mask[i].nonzero())
            value = make(Known(table))([[str(i)], [documents]], [labels[i][mask[i]]])
            if name.startswith("lambda"):
                value = value * counted(scores[i][mask[i]], labels[i][mask[i]], 3 if "@" in name else 99)
            value.backward()
            expected += value.detach() / 3
            expected_gradient += table.grad / 3
        value, gradient = learned(ours, scores, labels, mask)
        close(value, expected)
        close(gradient, expected_gradient)


def counted(scores: Any, labels: Any, k: int) -> int:
    """The pairs of a list that one of its first k is in."""
    rank = scores.argsort(descending=True).argsort() + 1
    pairs = (labels[:, None] > labels[None]) & ((rank[:, None] <= k) | (rank[None] <= k))
    return int(pairs.sum())


@pytest.mark.parametrize("name", ["listnet", "listmle", "p-listmle"])
def test_a_batch(name: str) -> None:
    ours, make = LISTWISE[name]
    scores, labels, mask = (t.float() if t.is_floating_point() else t for t in lists(9, ties="mle" not in name))
    documents = [written(m.nonzero()) for m in mask]
    said = make(Known(scores))([["0", "1", "2"], documents], [y[m] for y, m in zip(labels, mask, strict=True)])
    close(ours(scores, labels, mask), said)


def test_margin_mse() -> None:
    scores, labels = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(1))
    said = theirs.MarginMSELoss(Known(scores))([["0", "1", "2"], ["0"] * 3, ["1"] * 3], labels)
    close(losses.MarginMSE()(scores, labels, torch.ones(3, 2, dtype=torch.bool)), said)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl(temperature: float) -> None:
    """Theirs is of bi-encoders: a query of (1) and documents of their scores."""
    scores, labels = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    table = scores.clone().requires_grad_()
    columns = [torch.ones(3, 1), *(column[:, None] for column in table.T)]
    said = distil.DistillKLDivLoss(None, temperature=temperature).compute_loss_from_embeddings(columns, labels)
    said.backward()
    mask = torch.ones(3, 5, dtype=torch.bool)
    value, gradient = learned(losses.KL(temperature=temperature), scores, labels, mask)
    close(value, said.detach())
    close(gradient, table.grad)


def test_in_batch_negatives() -> None:
    """Of three queries, each with a relevant document and two others of its own."""
    scores = torch.randn(3, 9, generator=torch.Generator().manual_seed(3))
    columns = [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]
    theirs_is = theirs.MultipleNegativesRankingLoss(Known(scores), num_negatives=None, scale=10.0)
    said = theirs_is([["0", "1", "2"], *columns], None)
    labels, mask = torch.eye(3, 9), torch.ones(3, 9, dtype=torch.bool)
    close(losses.InBatch(temperature=0.1)(scores.sigmoid(), labels, mask), said)
