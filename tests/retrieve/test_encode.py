"""Encoders against plain onnxruntime and plain sentence-transformers."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from rankpipe import weights
from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.errors import ModelError
from rankpipe.progress import listening
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.encode import Encoder, Said, encoder, possible, prompts, top
from rankpipe.retrieve.encode import Vectors as Array
from tests.heard import Heard

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
    return encoder("minilm", backend="torch-float32")


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
    assert short.cut == [False, False, False, True]
    short.encode_queries(["one", "two"])
    assert short.cut == [False, False]
    assert short.encode_docs([]).shape == (0, 384)


def test_what_an_onnx_encoder_is_not(embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")
    with pytest.raises(ModelError, match="reads 3 to 512 tokens"):
        encoder("bge-small", max_length=1024)
    with pytest.raises(ModelError, match="no weights for torch"):
        encoder("bge-small", backend="torch-bfloat16")
    with pytest.raises(ModelError, match="give pooling=cls or pooling=mean"):
        encoder("minilm-l12")
    with pytest.raises(ModelError, match="pooling is 'max'; expected cls or mean"):
        encoder("bge-small", said=Said(pooling="max"))  # type: ignore[arg-type]


@pytest.fixture
def bare(embedded: Callable[[str], Path], tmp_path: Path) -> Path:
    """As most repositories of the hub keep ONNX, the graph in a folder of its own; nothing says how to pool."""
    folder = tmp_path / "bare"
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(embedded("bge-small") / name, folder)
    shutil.copy(embedded("bge-small") / "model.onnx", folder / "onnx")
    return folder


def test_a_graph_in_a_folder_of_its_own(bge: Encoder, bare: Path) -> None:
    with pytest.raises(ModelError, match="give pooling=cls or pooling=mean"):
        encoder(str(bare))
    made = encoder(str(bare), said=Said("cls", "ask: ", "tell: "))
    first = made.encode_docs(["fruit"])
    np.testing.assert_allclose(first / np.linalg.norm(first), bge.encode_docs(["tell: fruit"]), atol=1e-6)
    assert np.array_equal(
        made.encode_queries(["fruit"]), encoder(str(bare), said=Said("cls")).encode_docs(["ask: fruit"])
    )
    assert not np.allclose(made.encode_docs(["fruit"]), encoder(str(bare), said=Said("mean")).encode_docs(["fruit"]))


def test_a_quantised_graph_is_taken_by_its_name(bge: Encoder, bare: Path, tmp_path: Path) -> None:
    """If there is nothing else; and an index says which, and keeps to it."""
    (bare / "onnx" / "model.onnx").rename(bare / "onnx" / "model_int8.onnx")
    for name in ("model_quantized", "model_q4"):
        shutil.copy(bare / "onnx" / "model_int8.onnx", bare / "onnx" / f"{name}.onnx")
    with listening(told := Heard()):
        made = encoder(str(bare), said=Said("cls"))
    assert told.notices == [f"{bare} is computed by onnx/model_quantized.onnx"]
    assert made.facts == {"backend": "onnx/model_quantized.onnx"}
    assert made.identity.endswith(" onnx/model_quantized.onnx")
    first = made.encode_docs(["fruit"])
    one = bge.encode_docs(["fruit"])
    np.testing.assert_allclose(first / np.linalg.norm(first), one, atol=1e-6)
    assert encoder(str(bare), backend="onnx/model_int8.onnx", said=Said("cls")).facts["backend"].endswith("int8.onnx")
    with pytest.raises(ModelError, match=r"no backend 'onnx/model_int4.onnx'; did you mean onnx/model_int8.onnx"):
        encoder(str(bare), backend="onnx/model_int4.onnx")
    data = Dataset.of([Doc("a", "fruit"), Doc("b", "a fox")])
    index = Dense.build(data, tmp_path / "index", model=str(bare), model_options={"pooling": "cls"})
    assert index.manifest.facts["backend"] == "onnx/model_quantized.onnx"
    assert index.search("fruit").hits[0].doc.id == "a"
    assert index.model.encoder.facts == {"backend": "onnx/model_quantized.onnx"}  # type: ignore[attr-defined]


def test_a_quantised_graph_is_tried_beside_the_whole_one(bare: Path) -> None:
    shutil.copy(bare / "onnx" / "model.onnx", bare / "onnx" / "model_quantized.onnx")
    made = encoder(str(bare), said=Said("cls"))
    tried = made.facts["probe"]
    assert [*tried] == possible(bare) == ["onnx", "onnx/model_quantized.onnx"]
    assert [way["cosine"] for way in tried.values()] == [1, 1]
    assert made.facts["backend"] in tried


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_a_quantised_graph_that_is_not_near_is_not_taken(embedded: Callable[[str], Path], tmp_path: Path) -> None:
    """Beside weights for torch; here it is even another model's."""
    pytest.importorskip("sentence_transformers")
    folder = tmp_path / "model"
    shutil.copytree(embedded("minilm"), folder)
    (folder / "onnx").mkdir()
    shutil.copy(embedded("bge-small") / "model.onnx", folder / "onnx" / "model_quantized.onnx")
    made = encoder(str(folder))
    assert possible(folder) == ["torch-float32", "torch-bfloat16", "onnx/model_quantized.onnx"]
    assert made.facts["probe"]["onnx/model_quantized.onnx"]["cosine"] < 0.9
    assert made.facts["backend"].startswith("torch-")


def test_what_is_said_goes_before_what_the_folder_says(bge: Encoder) -> None:
    silent = encoder("bge-small", said=Said(query_prompt=""))
    assert np.array_equal(silent.encode_queries(["fruit"]), bge.encode_docs(["fruit"]))
    mean = encoder("bge-small", said=Said("mean")).encode_docs(["fruit"])
    assert not np.allclose(mean, bge.encode_docs(["fruit"]), atol=1e-2)


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_what_is_said_reaches_sentence_transformers(minilm: Encoder, embedded: Callable[[str], Path]) -> None:
    said = encoder("minilm", backend="torch-float32", said=Said("cls", "ask: ", "tell: "))
    plain = encoder("minilm", backend="torch-float32", said=Said(pooling="cls"))
    np.testing.assert_allclose(said.encode_queries(["fruit"]), plain.encode_docs(["ask: fruit"]), atol=1e-6)
    np.testing.assert_allclose(said.encode_docs(["fruit"]), plain.encode_docs(["tell: fruit"]), atol=1e-6)
    assert not np.allclose(plain.encode_docs(["fruit"]), minilm.encode_docs(["fruit"]), atol=1e-2)
    transformers = pytest.importorskip("transformers")
    folder = embedded("minilm")
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(["fruit"], return_tensors="pt")
    [[first]] = transformers.AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[:, :1].detach().numpy()
    np.testing.assert_allclose(plain.encode_docs(["fruit"])[0], first / np.linalg.norm(first), atol=1e-5)


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_sentence_transformers_gives_what_it_gives_by_itself(minilm: Encoder) -> None:
    library = pytest.importorskip("sentence_transformers")
    plain = library.SentenceTransformer(str(weights.resolve("minilm")), model_kwargs={"dtype": "float32"})
    made = minilm.encode_docs(PASSAGES)
    assert made.shape == (len(PASSAGES), minilm.dimension) == (4, 384)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, plain.encode(PASSAGES, show_progress_bar=False), atol=1e-6)
    assert sum(minilm.cut) == 1  # at 256 tokens
    assert minilm.encode_queries([]).shape == (0, 384)


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_vectors_are_one_long_in_bfloat16_too(minilm: Encoder) -> None:
    half = encoder("minilm", backend="torch-bfloat16")
    made = np.concatenate([half.encode_docs(PASSAGES[:3]), half.encode_queries(["fruit", "capital of France"])])
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert (made[:3] * minilm.encode_docs(PASSAGES[:3])).sum(axis=1).min() > 0.999


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_sentence_transformers_reads_a_book_as_its_first_page(minilm: Encoder) -> None:
    book, page, blank, word = minilm.encode_docs(["word " * 200_000, "word " * 400, " " * 500_000 + "word", "word"])
    assert minilm.cut == [True, True, False, False]
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
    with pytest.raises(ModelError, match="give pooling=cls or pooling=mean"):
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
