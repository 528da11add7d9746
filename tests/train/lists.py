"""All ranking losses, and lists to try them on."""

from __future__ import annotations

from typing import Any

import pytest

from rankpipe.train import losses
from rankpipe.train.losses import ListLoss

torch: Any = pytest.importorskip("torch")

LOSSES: dict[str, ListLoss] = {
    "ranknet": losses.RankNet(),
    "weighted-ranknet": losses.WeightedRankNet(),
    "lambdaloss": losses.LambdaLoss(),
    "lambdaloss@2": losses.LambdaLoss(k=2),
    "lambdaloss-2": losses.LambdaLoss(mu=1, rho=0),
    "lambdarank": losses.LambdaLoss(mu=0, rho=1),
    "approx-ndcg": losses.ApproxNDCG(),
    "approx-ndcg-smooth": losses.ApproxNDCG(temperature=1),
    "neural-ndcg": losses.NeuralNDCG(),
    "listnet": losses.ListNet(temperature=0.7),
    "listmle": losses.ListMLE(),
    "p-listmle": losses.PListMLE(),
    "softmax-ce": losses.SoftmaxCE(temperature=0.5),
    "infonce": losses.InfoNCE(temperature=0.5),
    "in-batch": losses.InBatch(temperature=0.5, margin=0.8),
    "margin-mse": losses.MarginMSE(),
    "kl": losses.KL(temperature=2),
    "adr-mse": losses.ADRMSE(),
}
ORDERED = {"listmle", "p-listmle"}  # equal labels are put in an order

every = pytest.mark.parametrize("name", LOSSES)


def lists(seed: int, *, ties: bool, n: int = 7, rows: int = 3) -> tuple[Any, Any, Any]:
    """Scores without ties, labels from 0 up, with or without, and a mask with at least 4 items in each list.

    Each list has labels of 0 and above.
    """
    dice = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, n, generator=dice, dtype=torch.float64)
    labels = torch.stack([torch.randperm(n, generator=dice) for _ in range(rows)])
    mask = labels.argsort(dim=1) >= torch.tensor([0, 1, 3][:rows])[:, None]
    labels = labels.masked_fill(~mask, n)
    labels = labels.argsort(dim=1).argsort(dim=1)  # of the items, 0 to their number - 1
    return scores, (labels // 2 if ties else labels).double(), mask


def learned(loss: ListLoss, scores: Any, labels: Any, mask: Any) -> tuple[Any, Any]:
    """The loss, and its gradient by the scores."""
    scores = scores.detach().clone().requires_grad_()
    value = loss(scores, labels, mask)
    value.backward()
    return value.detach(), scores.grad
