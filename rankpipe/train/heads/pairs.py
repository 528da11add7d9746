"""The head of a cross-encoder: question and passage are read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from rankpipe import weights
from rankpipe.catalog import need, require
from rankpipe.lm.local import in_batches, loaded
from rankpipe.onnx import fitting
from rankpipe.progress import notice
from rankpipe.rerank.cross import CrossEncoder, Loaded, Scored
from rankpipe.stage import Reranker
from rankpipe.train.adapters.targets import drawn
from rankpipe.train.examples import Example
from rankpipe.train.heads.head import Batch, Dtype, Head, Numbers, Outputs, Ranker, at_rest, cut, on, spread, targets

BATCH_TOKENS = 16_384  # read at once when it is evaluated


@dataclass(frozen=True)
class CrossEncoderHead(Head):
    """For :class:`~rankpipe.rerank.cross.CrossEncoder`: one number for each pair.

    Over any model that transformers can put a head for classification on; one that has none yet gets a new one, drawn
    by the seed of the training. What is made is a whole model; an adapter is merged into it, and kept beside it.

    :param max_length: tokens of a pair; the end of the longer of both texts is cut. The model's own limit if None.
    :raises MissingExtra: If torch, transformers or sentence-transformers is not installed.
    """

    max_length: int | None = None

    def __post_init__(self) -> None:
        require("transformers", name="cross-encoder-head", extra="train")
        require("sentence_transformers", name="cross-encoder-head", extra="st")

    def over(self, model: str) -> OfPairs:
        """Over an encoder, a cross-encoder or a language model."""
        return OfPairs(model, self.max_length)


class OfPairs(Ranker):
    """A ranker that reads pairs."""

    whole: ClassVar[bool] = True

    def __init__(self, model: str, max_length: int | None) -> None:
        self.model, self.most = model, max_length

    @cached_property
    def folder(self) -> Path:
        """The model's files."""
        return weights.resolve(self.model)

    @cached_property
    def tokenizer(self) -> Any:
        """As sentence-transformers loads it."""
        transformers = need("transformers", name="cross-encoder-head", extra="train")
        made = loaded(transformers.AutoTokenizer, self.folder, local_files_only=True)
        if made.pad_token is None:
            made.pad_token = made.eos_token
        return made

    @cached_property
    def max_length(self) -> int:
        """Tokens of a pair."""
        if self.most is not None:
            return int(fitting(self.folder, self.most))
        transformers = need("transformers", name="cross-encoder-head", extra="train")
        config = loaded(transformers.AutoConfig, self.folder, local_files_only=True)
        return int(min(self.tokenizer.model_max_length, getattr(config, "max_position_embeddings", 512)))

    def load(self, dtype: Numbers, *, empty: bool = False) -> Any:
        """With a head for one number.

        :raises ModelError: If it cannot have one.
        """
        torch, transformers = (
            need(name, name="cross-encoder-head", extra="train") for name in ("torch", "transformers")
        )
        model, told = loaded(
            transformers.AutoModelForSequenceClassification, self.folder, local_files_only=True, num_labels=1,
            output_loading_info=True, dtype=getattr(torch, dtype), device_map=on(empty),
        )  # fmt: skip
        if (fresh := sorted(told["missing_keys"])) and not empty:
            notice(f"{self.model}: has no {', '.join(fresh)}; they begin at random")
        drawn(model, fresh)
        model.config.pad_token_id = self.tokenizer.pad_token_id
        return model

    def batch(self, examples: Sequence[Example], *, reply: bool = False, together: bool = False) -> Batch:  # noqa: ARG002
        """All pairs, one after the other."""
        read = self._read([(e.query.text, doc.contents) for e in examples for doc in e.docs])
        full = sum(len(row["input_ids"]) >= self.max_length for row in read)
        return targets(examples) | self._padded(read) | cut(full, len(read))

    def forward(self, model: Any, batch: Batch) -> Outputs:
        """The numbers of the pairs."""
        return Outputs(spread(self._logits(model, batch), batch["mask"]))

    @contextmanager
    def stage(self, model: Any, depth: int) -> Iterator[Reranker]:
        """``cross-encoder`` over this model."""
        with at_rest(model):
            yield _Lent(self, model, depth)

    def scored(self, model: Any, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """What the model says of pairs."""
        read = self._read(list(pairs))

        def work(places: Sequence[int]) -> list[float]:
            batch = {k: v.to(model.device) for k, v in self._padded([read[i] for i in places]).items()}
            made: list[float] = self._logits(model, batch).tolist()
            return made

        ids = [row["input_ids"] for row in read]
        scores = in_batches(ids, work, BATCH_TOKENS, self.model)
        return [Scored(s, len(row), len(row) >= self.max_length) for s, row in zip(scores, ids, strict=True)]

    def save(self, model: Any, folder: Path, whole: bool) -> None:
        """The whole model, merged, and its tokenizer."""
        if whole:
            model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))

    def node(self, folder: str, adapted: bool, dtype: Dtype) -> dict[str, Any]:  # noqa: ARG002
        """``cross-encoder``, which reads in single precision."""
        return {"use": "cross-encoder", "model": folder, **({"max_length": self.most} if self.most else {})}

    def _read(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, list[int]]]:
        told = self.tokenizer([list(p) for p in pairs], truncation="longest_first", max_length=self.max_length)
        return [dict(zip(told, row, strict=True)) for row in zip(*told.values(), strict=True)]

    def _padded(self, read: Sequence[dict[str, list[int]]]) -> Batch:
        return dict(self.tokenizer.pad(list(read), return_tensors="pt"))

    def _logits(self, model: Any, batch: Batch) -> Any:
        told = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "token_type_ids")}
        return model(**told).logits[:, 0].float()


class _Lent(CrossEncoder):
    """A cross-encoder over a model that somebody else holds."""

    def __init__(self, ranker: OfPairs, model: Any, depth: int) -> None:
        super().__init__(ranker.model, depth)
        self._ranker, self._held = ranker, model

    @cached_property
    def _loaded(self) -> Loaded:
        ranker = self._ranker
        return Loaded(
            lambda pairs: ranker.scored(self._held, pairs), lambda text: len(ranker.tokenizer(text)["input_ids"]),
            ranker.max_length,
        )  # fmt: skip
