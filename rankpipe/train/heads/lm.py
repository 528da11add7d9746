"""What the heads of language models share: chats as the model is shown them, padded; the model while it is tuned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from rankpipe import weights
from rankpipe.catalog import need
from rankpipe.lm.held import Held
from rankpipe.lm.hf import HF
from rankpipe.lm.local import whole
from rankpipe.train.adapters.qlora import loading
from rankpipe.train.heads.head import Batch, Dtype, Numbers, Ranker, at_rest, on
from rankpipe.train.losses.reply import IGNORED

CURE = "this head is for language models; take head: cross-encoder-head or bi-encoder-head for an encoder"


class Tuned(HF):
    """A language model that somebody else holds, asked as :class:`~rankpipe.lm.hf.HF` asks its own."""

    @contextmanager
    def over(self, model: Any) -> Iterator[HF]:
        """This, over a model as it is now. Its generation settings are its own again afterwards."""
        own, lent = model.generation_config, copy(self)
        vars(lent)["_held"] = Held(self._greedy(model))
        try:
            with at_rest(model):
                yield lent
        finally:
            model.generation_config = own

    def starts(self, chats: Sequence[Any], begin: str) -> list[list[int]]:
        """The tokens of chats whose replies begin with ``begin``."""
        return self._starts(chats, begin)

    def tokens(self, text: str) -> list[int]:
        """Of a text in a reply."""
        return self._tokens(text)

    def words(self, choices: Sequence[str], begin: str) -> list[int]:
        """The token of each choice after ``begin``.

        :raises ModelError: If one is no single token.
        """
        return self._labels(choices, begin)

    @property
    def stop(self) -> int:
        """The token that ends a reply."""
        return int(self._tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        """The token that fills; the mask says where."""
        found = self._tokenizer.pad_token_id
        return self.stop if found is None else int(found)

    def keep(self, folder: Path) -> None:
        """The tokenizer beside the weights."""
        self._tokenizer.save_pretrained(str(folder))


class OfLM(Ranker):
    """A ranker of a language model.

    :param model: an alias, a Hugging Face id or a folder.
    :param context: tokens of a prompt with its reply, at most; the model's own limit if None.
    """

    def __init__(self, model: str, context: int | None) -> None:
        self.model, self.context = model, context
        self.lm = Tuned(model, dtype="float32", context=context)

    def load(self, dtype: Numbers, *, empty: bool = False) -> Any:
        """The causal language model.

        :raises ModelError: If the folder does not hold one.
        :raises MissingExtra: If it is to be quantised, and bitsandbytes is not installed.
        """
        kind = need("transformers", name="a head", extra="train").AutoModelForCausalLM
        how = loading(dtype, empty=empty)
        return whole(kind, weights.resolve(self.model), name=self.model, cure=CURE, **how, device_map=on(empty))

    def save(self, model: Any, folder: Path, whole: bool) -> None:
        """The tokenizer, and the model in transformers' layout."""
        if whole:
            model.save_pretrained(str(folder))
        self.lm.keep(folder)

    def asked(self, folder: str, adapted: bool, dtype: Dtype) -> dict[str, Any]:
        """The language model that was made, as a recipe has it."""
        said = {"model": self.model, "adapter": folder} if adapted else {"model": folder}
        return {"use": "hf", **said, "dtype": dtype, **({"context": self.context} if self.context else {})}

    def padded(self, starts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]] | None = None) -> Batch:
        """Chats with their replies, padded on the left, so that all end together.

        ``input_ids``, ``attention_mask``, ``position_ids`` (B, L); and of the last T places, of which the first one is
        before the longest reply: ``tokens`` (B, T), if there are replies; ``at`` (B,), where each chat ends.
        """
        torch = need("torch", name="a head", extra="train")
        said = replies or [()] * len(starts)
        rows = [[*start, *reply] for start, reply in zip(starts, said, strict=True)]
        length, last = max(map(len, rows)), max(map(len, said)) + 1
        ids = torch.tensor([[self.lm.pad] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        made = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "at": torch.tensor([last - 1 - len(reply) for reply in said]),
        }
        if replies is not None:
            made["tokens"] = torch.tensor([[IGNORED] * (last - len(reply)) + [*reply] for reply in said])
        return made

    def logits(self, model: Any, batch: Batch) -> Any:
        """Of the last T places, (B, T, V)."""
        return model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
            logits_to_keep=batch["tokens"].shape[1] if "tokens" in batch else 1,
        ).logits


def ends(logits: Any, batch: Batch) -> Any:
    """The logits of what comes next after each chat, (B, V), in single precision or more."""
    torch = need("torch", name="a head", extra="train")
    rows = logits[torch.arange(len(logits), device=logits.device), batch["at"]]
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
