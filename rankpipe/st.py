"""What the encoders and cross-encoders of sentence-transformers share: loading them, and what they read of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from rankpipe.catalog import need
from rankpipe.device import Dtype
from rankpipe.errors import ModelError
from rankpipe.onnx import fitting, head
from rankpipe.weights import quiet

T = TypeVar("T", str, tuple[str, str])
Kind = Literal["SentenceTransformer", "CrossEncoder", "MultiVectorEncoder", "SparseEncoder"]


@dataclass(frozen=True)
class Measured(Generic[T]):
    """Texts, as much of each as the model can read, and what that costs."""

    texts: list[T]
    tokens: list[int]
    cut: list[bool]


def load(kind: Kind, folder: Path, dtype: Dtype, length: int | None, *, empty: bool = False) -> Any:
    """A model on the GPU, if there is one, in ``dtype``, reading at most ``length`` tokens (its own limit if None).

    :param empty: on torch's device "meta", to be counted and not computed; no weights of its transformer are read.
    :raises MissingExtra: If sentence-transformers is not installed.
    :raises ModelError: If it cannot read so many tokens, the folder holds no such model, or the library is too old.
    """
    torch = need("torch", name="this model", extra="st")
    library = need("sentence_transformers", name="this model", extra="st")
    if not hasattr(library, kind):
        raise ModelError(f"sentence-transformers {library.__version__} has no {kind}; install a newer one")
    options = {"dtype": getattr(torch, dtype), **({"device_map": "meta"} if empty else {})}
    try:
        with quiet():
            model = getattr(library, kind)(str(folder), model_kwargs=options, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: sentence-transformers cannot load it: {error}") from error
    if length is not None:
        model.max_seq_length = fitting(folder, length)
    return model


def measured(model: Any, texts: Sequence[T]) -> Measured[T]:
    """Count tokens and texts that are too long; shorten a book to what could be read of it before that costs much."""
    most = model.max_seq_length
    if not texts or most is None:
        return Measured(list(texts), tokens_of(model, texts), [False] * len(texts))
    heads = [head(t, most) for t in texts]
    lengths = tokens_of(model, heads)
    for i, text in enumerate(texts):
        if heads[i] != text and lengths[i] <= most:  # few tokens in many characters: read all of them
            heads[i], [lengths[i]] = text, tokens_of(model, [text])
    return Measured(heads, [min(n, most) for n in lengths], [n > most for n in lengths])


def tokens_of(model: Any, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[int]:
    """The tokens of texts, however many they are; special ones included."""
    if not texts:
        return []
    return [len(ids) for ids in model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
