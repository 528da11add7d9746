"""Run an ONNX transformer over texts or pairs of texts.

Each text is run by itself, as many at a time as there are cores, each on one core. Quantised models round their
activations by the largest value in the batch, so that in a batch a text's numbers would depend on its companions
(measured on bge-small int8: batches of 4 to 32 move vectors to a cosine of .992 to .998); alone they never do. It is
no slower on a CPU, and nothing is ever padded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from rankpipe.catalog import need
from rankpipe.errors import ModelError
from rankpipe.threads import side_by_side
from rankpipe.weights import graph

T = TypeVar("T", str, tuple[str, str])
CHARS_A_TOKEN = 32  # a text is read up to this many characters for each token that fits, at first
SLICE = 64  # texts tokenised at a time


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the model is given of one text."""

    ids: Sequence[int]  # special ones included
    types: Sequence[int]  # 0, and 1 in the second text of a pair
    seen: Sequence[int]  # 1, or 0 where no other token may look
    cut: bool  # whether the text was too long, and shortened


@dataclass(frozen=True, slots=True)
class Row:
    """What the model gave for one text."""

    values: NDArray[np.float32]  # the first output of the graph, without the batch: (tokens, d) or (labels,)
    ids: Sequence[int]  # the tokens it read, special ones included
    cut: bool  # whether the text was too long, and shortened

    @property
    def tokens(self) -> int:
        """How many it read."""
        return len(self.ids)


Frame = Callable[[Tokens], Tokens]


class OnnxModel:
    """A folder with ``tokenizer.json`` and ``model.onnx`` or ``onnx/model.onnx``, or such a graph in eight bits by its
    usual names: ``model_quantized.onnx``, ``model_qint8_avx512_vnni.onnx`` (:mod:`rankpipe.weights.graphfiles`).

    :param max_length: tokens a text (or pair) is cut to; the model's own if None.
    :param threads: texts run at a time; one for each core this process may use if None.
    :param name: of the graph in the folder; the whole one, or else the best for this processor, if None.
    :raises ModelError: If the folder is no such model, or ``max_length`` is more than the model can read.
    """

    def __init__(
        self, folder: Path, max_length: int | None = None, threads: int | None = None, name: str | None = None
    ) -> None:
        if not (file := folder / name if name else graph(folder)):
            raise ModelError(
                f"{folder}: no ONNX model, it has no model.onnx and no onnx/model.onnx, nor one in eight bits"
            )
        if not (folder / "tokenizer.json").exists():
            raise ModelError(f"{folder}: no ONNX model, it has no tokenizer.json")
        ort = need("onnxruntime", name="OnnxModel", extra="all")
        tokenizers = need("tokenizers", name="OnnxModel", extra="all")
        self.file, self.folder, self.max_length = file, folder, fitting(folder, max_length)
        self.threads = threads or cores()
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._inputs = [i.name for i in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        if strange := set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}:
            raise ModelError(f"{file}: wants {', '.join(sorted(strange))}, which no text has")

    def run(self, texts: Sequence[T], frame: Frame = lambda tokens: tokens) -> Iterator[Row]:
        """One row for each text or pair, in their order, as they are made.

        :param frame: changes a text's tokens before the model reads them; how many it may add is its own business.
        """
        encode = self._tokenizer.encode_batch
        read = (
            frame(Tokens(told.ids, told.type_ids, [1] * len(told.ids), bool(told.overflowing)))
            for told in encodings(encode, texts, self.max_length)
        )
        return side_by_side(self._forward, read, self.threads)

    def length(self, text: str) -> int:
        """The tokens of a text, however many they are; without special ones."""
        read = self._tokenizer.encode(text, add_special_tokens=False)
        return sum(len(part.ids) for part in (read, *read.overflowing))

    def token(self, text: str) -> int:
        """The one token that is written so.

        :raises ModelError: If the model has no such token.
        """
        token: int | None = self._tokenizer.token_to_id(text)
        if token is None:
            raise ModelError(f"{self.folder}: its tokenizer has no token {text!r}")
        return token

    def _forward(self, tokens: Tokens) -> Row:
        told = {"input_ids": tokens.ids, "attention_mask": tokens.seen, "token_type_ids": tokens.types}
        feed = {name: np.array([told[name]], np.int64) for name in self._inputs}  # (1, tokens)
        [output] = self._session.run([self._output], feed)
        return Row(output[0].astype(np.float32, copy=False), tokens.ids, tokens.cut)


def encodings(encode: Callable[[list[T]], Sequence[Any]], texts: Sequence[T], max_length: int) -> Iterator[Any]:
    """What a tokenizer makes of each text (``tokenizers.Encoding``), :data:`SLICE` of them at a time.

    :param encode: tokenises, and cuts to ``max_length`` tokens; it is not given more of a text than could be read.
    """
    for start in range(0, len(texts), SLICE):
        whole = texts[start : start + SLICE]
        heads = [head(t, max_length) for t in whole]
        for text, read, encoding in zip(whole, heads, encode(heads), strict=True):
            if read != text and not encoding.overflowing:  # few tokens in many characters: read all of them
                [encoding] = encode([text])
            yield encoding


def head(text: T, max_length: int) -> T:
    """The characters that ``max_length`` tokens surely come from, so that a book costs no more than a page."""
    most = CHARS_A_TOKEN * max_length
    return text[:most] if isinstance(text, str) else (text[0][:most], text[1][:most])


def fitting(folder: Path, max_length: int | None) -> int:
    """The asked length in tokens, or the model's own.

    :raises ModelError: If it is more than the model can read, or its files do not say how much that is.
    """
    tokenizer = read_json(folder / "tokenizer_config.json").get("model_max_length", float("inf"))
    positions = read_json(folder / "config.json").get("max_position_embeddings", float("inf"))
    most = min(tokenizer, positions)
    own = read_json(folder / "sentence_bert_config.json").get("max_seq_length") or most
    if max_length is None and own > 1e9:
        raise ModelError(f"{folder}: its files do not say how many tokens it reads; give max_length")
    if max_length is not None and not 3 <= max_length <= most:
        raise ModelError(f"{folder}: max_length is {max_length}, this model reads 3 to {most} tokens")
    return int(max_length or own)


@overload
def read_json(path: Path) -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[list[Any]]) -> list[Any]: ...
def read_json(path: Path, kind: type[Any] = dict) -> Any:
    """A configuration file, a JSON object or list; empty if there is none.

    :raises ModelError: If it is damaged.
    """
    try:
        known = json.loads(path.read_text("utf-8")) if path.exists() else kind()
    except ValueError as error:
        raise ModelError(f"{path}: damaged ({error})") from None
    if not isinstance(known, kind):
        raise ModelError(f"{path}: expected a JSON {kind.__name__}")
    return known


def cores() -> int:
    """The cores this process may use: OMP_NUM_THREADS, if that is set, at most."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(there, int(told) or there) if told.isdecimal() else there
