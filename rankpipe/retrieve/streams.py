"""A sentence-transformers model on a CPU: its own modules, in batches of texts of one length, each on a core.

Three things make sentence-transformers slow there. A batch of 32 texts of 256 tokens is 25 MB between two layers: it
does not fit the cache, so batches here are of :data:`BUDGET` tokens. Shorter texts are filled up to the longest, and a
mask keeps attention off its fast path; here all texts of a batch have one length. And threads that share each matrix
product wait for each other; here each core computes a batch of its own, while the next texts are tokenised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankpipe.catalog import need
from rankpipe.onnx import encodings
from rankpipe.threads import side_by_side

BUDGET = 1024  # tokens a batch; a longer text is one of its own
MODULES = {"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout"}  # that know of no other texts
OF_TOKENS = {"input_ids", "attention_mask", "token_type_ids"}


class Role(NamedTuple):
    """What a text is to the model."""

    task: str  # "query" or "document"
    prompt: str


class Tokens(NamedTuple):
    """A text as the model reads it."""

    place: int  # among those of the call
    ids: Sequence[int]
    types: Sequence[int]
    cut: bool


class Made(NamedTuple):
    """What the model made of a text."""

    place: int
    vector: NDArray[np.float32]  # (dimension,)
    cut: bool


class Streams:
    """Runs a model as its own ``encode`` would, but for the batches.

    :param model: a SentenceTransformer that :func:`fits`.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._torch = model, need("torch", name="this model", extra="st")

    def run(self, texts: Sequence[str], role: Role) -> Iterator[Made]:
        """The vectors of texts, in any order."""
        batches = batched(self._read([role.prompt + text for text in texts]), BUDGET)
        work = partial(self._forward, given=sample(self._model, "a", role), task=role.task)
        for batch, vectors in self._at_once(work, batches):
            yield from (Made(t.place, vector, t.cut) for t, vector in zip(batch, vectors, strict=True))

    def _read(self, texts: Sequence[str]) -> Iterator[Tokens]:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # texts of a length come together
        read = encodings(partial(tokenised, self._model), [texts[i] for i in order], self._model.max_seq_length)
        for place, told in zip(order, read, strict=True):
            yield Tokens(place, told.ids, told.type_ids, bool(told.overflowing))

    def _at_once(self, work: Callable[[list[Tokens]], Any], batches: Iterator[list[Tokens]]) -> Iterator[Any]:
        threads = self._torch.get_num_threads()
        first = list(islice(batches, threads))
        if len(first) < 2:  # one batch, or one thread
            yield from map(work, chain(first, batches))
            return
        begin = partial(self._torch.set_num_threads, threads // len(first))
        try:
            yield from side_by_side(work, chain(first, batches), len(first), begin)
        finally:
            self._torch.set_num_threads(threads)  # it also is the default of threads to come

    def _forward(self, batch: list[Tokens], given: dict[str, Any], task: str) -> tuple[list[Tokens], Any]:
        torch = self._torch
        ids = torch.tensor([text.ids for text in batch])  # (B, T)
        types = torch.tensor([text.types for text in batch])
        told = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types}
        with torch.inference_mode():
            made = self._model({name: told.get(name, value) for name, value in given.items()}, task=task)
            return batch, made["sentence_embedding"][:, : self._model.truncate_dim].float().numpy()


def batched(texts: Iterable[Tokens], budget: int) -> Iterator[list[Tokens]]:
    """Batches of texts of one length, of at most ``budget`` tokens unless a single text has more."""
    waiting: dict[int, list[Tokens]] = defaultdict(list)
    for text in texts:
        length = len(text.ids)
        waiting[length].append(text)
        if (len(waiting[length]) + 1) * length > budget:
            yield waiting.pop(length)
    yield from (waiting[length] for length in sorted(waiting, reverse=True))


def fits(model: Any, roles: Iterable[Role]) -> bool:
    """Whether a model's vectors are made of token ids alone, and its tokenizer alone makes these: what it is given of a
    short text, of none and of one that is too long is looked at. It must be on the CPU.
    """
    most = model.max_seq_length
    kinds = {(type(module).__module__.partition(".")[0], type(module).__name__) for module in model}
    if model.device.type != "cpu" or most is None or kinds - {("sentence_transformers", name) for name in MODULES}:
        return False
    if type(model[0]).__name__ != "Transformer" or not model.tokenizer.is_fast:
        return False
    for role in roles:
        for text in ("", "a few words", "too many words " * most):
            given = sample(model, text, role)
            [own] = tokenised(model, [role.prompt + text])
            tensors = {name for name, value in given.items() if hasattr(value, "shape")}
            if tensors - OF_TOKENS or given["input_ids"].tolist() != [own.ids] or not given["attention_mask"].all():
                return False
    return True


def sample(model: Any, text: str, role: Role) -> dict[str, Any]:
    """What the model's modules are given of a text."""
    made: dict[str, Any] = model.preprocess([text], prompt=role.prompt or None, task=role.task)
    return dict(made)


def tokenised(model: Any, texts: list[str]) -> Sequence[Any]:
    """What the model's tokenizer makes of texts, cut to what the model reads."""
    told = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length, verbose=False)
    encodings: Sequence[Any] = told.encodings
    return encodings
