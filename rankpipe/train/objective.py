"""A loss over what a head gives, in parts that add up as if all batches of a step had been one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rankpipe.catalog import need
from rankpipe.errors import RecipeError, refuse
from rankpipe.progress import notice
from rankpipe.train.heads.head import Batch, Head, Outputs
from rankpipe.train.losses import InBatch, ListLoss, PermutationLM, Sum

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1000  # lists that are looked at together


class Objective:
    """What is made small.

    :param loss: one loss, or a sum of several.
    :raises RecipeError: If it is none, or the head does not give what it needs.
    """

    def __init__(self, loss: ListLoss | PermutationLM | Sum, head: Head) -> None:
        if not isinstance(loss, ListLoss | PermutationLM | Sum):
            raise RecipeError([f"loss: {loss!r} is no loss; for example {{use: ranknet}}"])
        self.loss = loss if isinstance(loss, Sum) else Sum({"loss": loss})
        self.losses = self.loss.losses
        self.weights = [(self.loss.weights or {}).get(name, 1.0) for name in self.losses]
        self.reply = any(isinstance(one, PermutationLM) for one in self.losses.values())
        self.together = any(isinstance(one, InBatch) for one in self.losses.values())
        if faults := [*self._lacking(head)]:
            raise RecipeError(faults)

    def counts(self, batches: Sequence[Batch]) -> Tensor:
        """What each loss counts in these batches, lists or tokens, (losses,). Known before anything is computed."""
        torch = need("torch", name="a loss", extra="train")
        counted = []
        for batch in batches:
            counted.append([_count(one, batch) for one in self.losses.values()])
        return torch.tensor(counted, dtype=torch.float32).sum(0)

    def refuse_silence(self, examples: Any, together: int) -> None:
        """Refuse lists that say nothing to a loss: it would be 0 at each step. Tells if some do.

        :param examples: a ``datasets.Dataset`` of lists.
        :param together: lists of a batch, whose documents ``in-batch`` sets against each other.
        :raises RecipeError: If none of them says anything; says what it needs.
        """
        said = dict.fromkeys(self.losses, 0)
        for block in examples.select_columns("labels").iter(BLOCK):
            labels, mask = _padded(block["labels"])
            for name, loss in self.losses.items():
                if isinstance(loss, ListLoss):
                    others = isinstance(loss, InBatch) and together > 1
                    said[name] += int(loss.count(*_with_another(labels, mask) if others else (labels, mask)))
        lists, faults = len(examples), []
        for name, loss in self.losses.items():
            if isinstance(loss, ListLoss) and (silent := lists - said[name]):
                told = f"loss: {silent} of {lists} lists say nothing to {type(loss).__name__}, which needs {loss.wants}"
                if said[name]:
                    notice(told)
                else:
                    faults.append(f"{told}; take other labels, or another loss, such as ranknet")
        refuse(faults)

    def __call__(self, outputs: Outputs, batch: Batch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The share of a batch in the loss of all that was counted, a scalar; and of each loss, not weighted."""
        torch = need("torch", name="a loss", extra="train")
        made = self.loss.total(
            outputs.scores, batch["labels"], batch["mask"], outputs.logits, batch.get("tokens")
        ).values()  # fmt: skip
        totals = torch.stack([total.float() for total, _ in made])
        parts = totals / counts.to(totals.device).clamp(min=1)
        return (parts * parts.new_tensor(self.weights)).sum(), parts.detach()

    def _lacking(self, head: Head) -> Any:
        kind = type(head).__name__
        if self.reply and not head.replies:
            yield f"loss: permutation-lm is of a written order, which {kind} has not; take first-head or listwise-head"
        if not head.scores and not all(isinstance(one, PermutationLM) for one in self.losses.values()):
            yield f"loss: {kind} gives no scores, only the written order: take permutation-lm, or first-head"
        if self.together and not head.vectors:
            yield f"loss: in-batch scores all queries with all documents, and {kind} cannot; take bi-encoder-head"


def _padded(rows: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """Labels and mask, (B, N)."""
    from torch.nn.utils.rnn import pad_sequence

    torch = need("torch", name="a loss", extra="train")
    labels = [torch.tensor(row, dtype=torch.float32) for row in rows]
    mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    return pad_sequence(labels, batch_first=True), pad_sequence(mask, batch_first=True)


def _with_another(labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and of each list a document of another query, which is not relevant, (B, N + 1)."""
    from torch.nn.functional import pad

    return pad(labels, (0, 1)), pad(mask, (0, 1), value=True)


def _count(loss: ListLoss | PermutationLM, batch: Batch) -> int:
    """What a loss counts, whatever the model says."""
    if isinstance(loss, PermutationLM):
        return int(loss.count(batch["tokens"]))
    return int(loss.count(batch["labels"], batch["mask"]))
