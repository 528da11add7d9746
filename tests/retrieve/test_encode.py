"""Encoders against plain onnxruntime and plain sentence-transformers."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from rankpipe import weights
from rankpipe.errors import ModelError
from rankpipe.retrieve.encode import Encoder, encoder, prompts, top
from rankpipe.retrieve.encode import Vectors as Array

PASSAGES = [
    "Paris is the capital and largest city of France.",
    "Bananas are yellow when they are ripe.",
    "",
    "BM25 ranks documents by the words they share with the query, " * 30,
]


@pytest.fixture(scope="module")
def bge(embedded: Callable[[str], Path]) -> Encoder:
    embedded("bge-small")
    return encoder("bge-small")


@pytest.fixture(scope="module")
def minilm(embedded: Callable[[str], Path]) -> Encoder:
    embedded("minilm")
    return encoder("minilm", dtype="float32")


@cache
def plain(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def by_hand(folder: Path, text: str) -> Array:
    """Bge's model card, in onnxruntime: the first token's vector, made one long."""
    ids = np.array([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids], np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    first: Array = plain(folder).run(None, feed)[0][0, 0]
    return first / np.linalg.norm(first)


def test_onnx_vectors_are_those_of_the_model_card(bge: Encoder) -> None:
    folder = weights.resolve("bge-small")
    made = bge.encode_docs(PASSAGES)
    assert made.shape == (len(PASSAGES), bge.dimension) == (4, 384)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, [by_hand(folder, text) for text in PASSAGES], atol=1e-5)
    [query] = bge.encode_queries(["capital of France"])
    asked = by_hand(folder, "Represent this sentence for searching relevant passages: capital of France")
    np.testing.assert_allclose(query, asked, atol=1e-5)


def test_onnx_finds_the_passage(bge: Encoder) -> None:
    scores = bge.encode_queries(["What is the capital of France?", "colour of fruit"]) @ bge.encode_docs(PASSAGES).T
    assert scores.argmax(axis=1).tolist() == [0, 1]


def test_a_vector_depends_on_its_text_alone(bge: Encoder) -> None:
    together = bge.encode_docs(PASSAGES)
    assert np.array_equal(together[::-1], bge.encode_docs(PASSAGES[::-1]))
    assert np.array_equal(together, np.concatenate([bge.encode_docs([text]) for text in PASSAGES]))


def test_what_was_cut_is_counted(embedded: Callable[[str], Path]) -> None:
    embedded("bge-small")
    short = encoder("bge-small", max_length=16)
    short.encode_docs(PASSAGES)
    assert short.truncated == 1
    short.encode_queries(["one", "two"])
    assert short.truncated == 0
    assert short.encode_docs([]).shape == (0, 384)


def test_what_an_onnx_encoder_is_not(embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")
    with pytest.raises(ModelError, match="reads 3 to 512 tokens"):
        encoder("bge-small", max_length=1024)
    with pytest.raises(ModelError, match="one number format"):
        encoder("bge-small", dtype="bfloat16")
    with pytest.raises(ModelError, match="pooling is None"):
        encoder("minilm-l12")


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_sentence_transformers_gives_what_it_gives_by_itself(minilm: Encoder) -> None:
    library = pytest.importorskip("sentence_transformers")
    plain = library.SentenceTransformer(str(weights.resolve("minilm")), model_kwargs={"dtype": "float32"})
    made = minilm.encode_docs(PASSAGES)
    assert made.shape == (len(PASSAGES), minilm.dimension) == (4, 384)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, plain.encode(PASSAGES, show_progress_bar=False), atol=1e-6)
    assert minilm.truncated == 1  # at 256 tokens
    assert minilm.encode_queries([]).shape == (0, 384)


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_vectors_are_one_long_in_bfloat16_too(minilm: Encoder) -> None:
    half = encoder("minilm", dtype="bfloat16")
    made = np.concatenate([half.encode_docs(PASSAGES[:3]), half.encode_queries(["fruit", "capital of France"])])
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert (made[:3] * minilm.encode_docs(PASSAGES[:3])).sum(axis=1).min() > 0.999


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_sentence_transformers_reads_a_book_as_its_first_page(minilm: Encoder) -> None:
    book, page, blank, word = minilm.encode_docs(["word " * 200_000, "word " * 400, " " * 500_000 + "word", "word"])
    assert minilm.truncated == 2
    np.testing.assert_allclose(book, page, atol=1e-6)
    np.testing.assert_allclose(blank, word, atol=1e-6)


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_the_tables_prompts_reach_sentence_transformers(minilm: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "e5"
    folder.symlink_to(weights.resolve("minilm"))
    other = type(minilm)("intfloat/e5-small-v2", folder, None, "float32")
    np.testing.assert_allclose(other.encode_docs(["a b"]), minilm.encode_docs(["passage: a b"]), atol=1e-6)
    np.testing.assert_allclose(other.encode_queries(["a b"]), minilm.encode_docs(["query: a b"]), atol=1e-6)


def test_prompts_are_the_models_own_before_the_tables() -> None:
    e5 = weights.find("e5-small")
    assert prompts({}, e5) == ("query: ", "passage: ")
    assert prompts({"query": "", "document": ""}, e5) == ("query: ", "passage: ")
    assert prompts({"query": "ask ", "passage": "tell "}, e5) == ("ask ", "tell ")
    assert prompts({}, None) == ("", "")


@pytest.mark.parametrize(
    ("pooling", "modules", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ["Normalize"], ("cls", True)),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, [], ("mean", False)),
        ({"pooling_mode": "mean", "include_prompt": True}, ["Normalize"], ("mean", True)),
    ],
)
def test_the_folder_says_how_to_pool(tmp_path: Path, pooling: Any, modules: list[str], expected: Any) -> None:
    write(tmp_path, pooling, ["Transformer", "Pooling", *modules])
    assert top(tmp_path, None) == expected


def test_other_ways_of_pooling_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pooling is None"):
        top(tmp_path, None)
    write(tmp_path, {"pooling_mode": "lasttoken"}, ["Transformer", "Pooling"])
    with pytest.raises(ModelError, match="pooling is lasttoken"):
        top(tmp_path, None)
    write(tmp_path, {"pooling_mode": "mean"}, ["Transformer", "Pooling", "Dense"])
    with pytest.raises(ModelError, match="Dense"):
        top(tmp_path, None)


def write(folder: Path, pooling: Any, modules: list[str]) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = [{"type": f"sentence_transformers.models.{m}"} for m in modules]
    (folder / "modules.json").write_text(json.dumps(kinds))
