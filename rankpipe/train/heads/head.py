"""What all heads do alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from rankpipe.catalog import need
from rankpipe.stage import Reranker
from rankpipe.train.examples import Example

if TYPE_CHECKING:
    from torch import Tensor

Batch = dict[str, Any]  # tensors by name
Dtype = Literal["float32", "bfloat16"]
Numbers = Literal["float32", "bfloat16", "nf4", "int8"]  # of weights that are tuned; the last two under an adapter


class Outputs(NamedTuple):
    """What losses are of."""

    scores: Tensor | None = None  # (B, N)
    logits: Tensor | None = None  # (B, T, V), of the last T places


class Head(ABC):
    """How a ranker is made of a model; see its catalogue entry for which."""

    scores: ClassVar[bool] = True  # whether it gives scores
    replies: ClassVar[bool] = False  # whether it gives logits of a written order
    vectors: ClassVar[bool] = False  # whether a score is a product, so that all queries go with all documents
    quantised: ClassVar[bool] = False  # whether the model may be, under an adapter

    @abstractmethod
    def over(self, model: str) -> Ranker:
        """The head over a model: an alias, a Hugging Face id or a folder."""


class Ranker(ABC):
    """A head over a model. The model itself is :meth:`load`'s, and whoever tunes it holds it."""

    whole: ClassVar[bool] = False  # whether its reranker takes no adapters, only whole models

    @abstractmethod
    def load(self, dtype: Numbers, *, empty: bool = False) -> Any:
        """The model to be tuned, on the CPU; or ``empty``, on torch's device "meta", to be counted and not computed."""

    @abstractmethod
    def batch(self, examples: Sequence[Example], *, reply: bool = False, together: bool = False) -> Batch:
        """Examples as tensors: ``labels`` and ``mask`` (B, N), what the model reads, how much of it is :func:`cut`, and
        with ``reply`` ``tokens`` (B, T): those of the written order, -100 elsewhere.

        :param together: N are the documents of all examples.
        """

    @abstractmethod
    def forward(self, model: Any, batch: Batch) -> Outputs:
        """What the model makes of a batch."""

    @abstractmethod
    def stage(self, model: Any, depth: int) -> AbstractContextManager[Reranker]:
        """The reranker that asks this model, as it is inside the block.

        :param depth: hits that are reranked.
        """

    @abstractmethod
    def save(self, model: Any, folder: Path, whole: bool) -> None:
        """Write what :meth:`node` needs.

        :param whole: the model, too, of which any adapter is merged; else only what stands beside an adapter.
        """

    @abstractmethod
    def node(self, folder: str, adapted: bool, dtype: Dtype) -> dict[str, Any]:
        """The recipe of the reranker over what was made.

        :param adapted: whether it is an adapter.
        :param dtype: the number format in which it was evaluated.
        """


def on(empty: bool) -> str | None:
    """The device of a model that is loaded: torch's, without numbers, or any."""
    return "meta" if empty else None


@contextmanager
def at_rest(model: Any) -> Iterator[Any]:
    """A model without dropout, for as long as the block lasts."""
    was = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(was)


def targets(examples: Sequence[Example]) -> Batch:
    """Labels and mask, (B, N)."""
    torch = need("torch", name="a head", extra="train")
    most = max(len(e.docs) for e in examples)
    labels = torch.zeros(len(examples), most, dtype=torch.float32)
    mask = torch.zeros(len(examples), most, dtype=torch.bool)
    for i, e in enumerate(examples):
        labels[i, : len(e.labels)] = torch.tensor(e.labels, dtype=torch.float32)
        mask[i, : len(e.labels)] = True
    return {"labels": labels, "mask": mask}


def cut(texts: int, of: int) -> Batch:
    """How many texts a batch shows in part, and how many it has, (1, 2)."""
    return {"cut": need("torch", name="a head", extra="train").tensor([[texts, of]])}


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """The scores of all items, one after the other, at their places, (B, N)."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
