"""ONNX models against ten lines of onnxruntime."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankpipe.errors import ModelError
from rankpipe.onnx import OnnxModel, Tokens, fitting, read_json

TEXTS = [
    "A query likelihood model ranks documents by how probable the query is.",
    "",
    "BM25",
    "The quick brown fox jumps over the lazy dog, " * 20,
    "naïve café — 東京 🙂",
]


@pytest.fixture(scope="module")
def bge(embedded: Callable[[str], Path]) -> Path:
    return embedded("bge-small")


@pytest.fixture(scope="module")
def cross(embedded: Callable[[str], Path]) -> Path:
    return embedded("minilm-l12")


@cache
def plain(folder: Path) -> onnxruntime.InferenceSession:
    """With all of onnxruntime's defaults."""
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def alone(folder: Path, ids: list[int], kinds: list[int]) -> NDArray[np.float32]:
    """What one text gives."""
    feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "token_type_ids": [kinds]}
    made: NDArray[np.float32] = plain(folder).run(None, {k: np.array(v, np.int64) for k, v in feed.items()})[0][0]
    return made


def test_texts_are_run_as_onnxruntime_runs_them(bge: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bge / "tokenizer.json"))
    rows = list(OnnxModel(bge).run(TEXTS))
    for text, row in zip(TEXTS, rows, strict=True):
        told = tokenizer.encode(text)
        np.testing.assert_allclose(row.values, alone(bge, told.ids, told.type_ids), atol=1e-5)
        assert (row.tokens, row.cut) == (len(told.ids), False)


def test_pairs_tell_the_model_which_half_is_which(cross: Path) -> None:
    tokenizer = Tokenizer.from_file(str(cross / "tokenizer.json"))
    tokenizer.no_padding()
    told = tokenizer.encode("who wrote it", "Jane wrote it.")
    assert set(told.type_ids) == {0, 1}
    [row] = OnnxModel(cross).run([("who wrote it", "Jane wrote it.")])
    np.testing.assert_allclose(row.values, alone(cross, told.ids, told.type_ids), atol=1e-5)
    assert not np.allclose(row.values, alone(cross, told.ids, [0] * len(told.ids)), atol=1e-2)


def test_companions_and_threads_change_nothing(bge: Path) -> None:
    single = OnnxModel(bge, threads=1)
    one = [next(single.run([text])).values for text in TEXTS]
    many = [row.values for row in OnnxModel(bge, threads=3).run(TEXTS * 3)]
    for i, values in enumerate(many):
        assert np.array_equal(values, one[i % len(TEXTS)])


def test_what_does_not_fit_is_cut_and_said(bge: Path) -> None:
    model = OnnxModel(bge, max_length=8)
    fits, over = "a b c d e f", "a b c d e f g"  # and two special tokens
    rows = list(model.run([fits, over]))
    assert [(row.tokens, row.cut) for row in rows] == [(8, False), (8, True)]
    assert np.array_equal(rows[0].values, rows[1].values)


def test_the_passage_is_cut_before_the_query(cross: Path) -> None:
    model = OnnxModel(cross, max_length=12)
    short, long = model.run([("a b", "c d e f g h i"), ("a b", "c d e f g h i j k l m n o p q r s t")])
    assert [(row.tokens, row.cut) for row in (short, long)] == [(12, False), (12, True)]
    assert np.array_equal(short.values, long.values)


def test_a_book_is_read_as_its_first_page(bge: Path) -> None:
    model = OnnxModel(bge, max_length=32)
    book, page, blank, word = model.run(["word " * 200_000, "word " * 100, " " * 1_000_000 + "word", "word"])
    assert book.cut
    assert page.cut
    assert np.array_equal(book.values, page.values)
    assert not blank.cut  # far more characters than any page, and one word
    assert np.array_equal(blank.values, word.values)


def test_rows_come_as_they_are_made(bge: Path) -> None:
    made = OnnxModel(bge, threads=1).run(["a"] * 100)
    assert next(made).tokens == 3
    made.close()  # type: ignore[attr-defined]  # stops


def test_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no model.onnx and no onnx/model.onnx"):
        OnnxModel(tmp_path)
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match=r"has no tokenizer.json"):
        OnnxModel(tmp_path)


def test_lengths_that_fit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give max_length"):
        fitting(tmp_path, None)
    assert fitting(tmp_path, 100_000) == 100_000
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}))
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    assert fitting(tmp_path, None) == 512
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))
    assert (fitting(tmp_path, None), fitting(tmp_path, 512)) == (256, 512)
    for wrong in (513, 2, 0):
        with pytest.raises(ModelError, match=f"max_length is {wrong}, this model reads 3 to 512 tokens"):
            fitting(tmp_path, wrong)


def test_damaged_configuration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert read_json(path) == {}
    path.write_text("{")
    with pytest.raises(ModelError, match=r"config.json: damaged"):
        read_json(path)
    path.write_text("[]")
    with pytest.raises(ModelError, match="expected a JSON dict"):
        read_json(path)


def test_a_frame_changes_what_the_model_reads(bge: Path) -> None:
    model = OnnxModel(bge, max_length=8)
    mask = model.token("[MASK]")

    def frame(tokens: Tokens) -> Tokens:
        return Tokens([*tokens.ids, mask], [*tokens.types, 0], [*tokens.seen, 0], tokens.cut)

    [bare], [framed] = list(model.run(["BM25"])), list(model.run(["BM25"], frame))
    assert (list(framed.ids), framed.tokens) == ([*bare.ids, mask], bare.tokens + 1)
    np.testing.assert_allclose(framed.values[:-1], bare.values, atol=0.2)  # none of them saw it; int8 scales differ
    assert [row.cut for row in model.run(["a b c d e f g"], frame)] == [True]
    with pytest.raises(ModelError, match="no token '\\[Q\\]'"):
        model.token("[Q]")
