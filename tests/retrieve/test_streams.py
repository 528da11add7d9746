"""Streams against sentence-transformers' own encode, on a tiny BERT with random weights; batches without any model."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankpipe.data import Doc
from rankpipe.datasets import Dataset
from rankpipe.errors import ModelError, RecipeError
from rankpipe.retrieve.dense import Dense
from rankpipe.retrieve.encode import encoder
from rankpipe.retrieve.streams import BUDGET, Role, Streams, Tokens, batched, fits
from tests.lm.tiny import SIZE, byte_words

TEXTS = ["", "a", "b", "Paris is in France.", "bananas are yellow", "é" * 9, "long " * 40, "longer " * 400, " "] * 3
KINDS = [  # pooling, whether it counts the prompt, the last module
    ("cls", True, "Normalize"), ("max", True, "Dense"), ("mean", False, "Normalize"), (("cls", "mean"), True, ""),
    ("weightedmean", False, "Dense"), ("lasttoken", True, ""), ("mean_sqrt_len_tokens", False, ""),
]  # fmt: skip


def texts(*lengths: int) -> Iterator[Tokens]:
    return (Tokens(place, [7] * n, [0] * n, False) for place, n in enumerate(lengths))


def test_batches_are_of_one_length_and_keep_to_the_budget() -> None:
    lengths = [5, 3, 5, 40, 5, 3, 5, 10, 5, 10, 21, 3, 3, 3, 3, 3, 3]
    made = [[text.place for text in batch] for batch in batched(texts(*lengths), 20)]
    assert sorted(place for batch in made for place in batch) == [*range(len(lengths))]
    assert all(len({lengths[i] for i in batch}) == 1 for batch in made)
    assert all(len(batch) * lengths[batch[0]] <= 20 or len(batch) == 1 for batch in made)
    assert made[:4] == [[3], [0, 2, 4, 6], [7, 9], [10]]  # as they become full
    assert made[4:] == [[1, 5, 11, 12, 13, 14], [8], [15, 16]]


def test_batches_are_made_as_texts_come() -> None:
    taken = []

    def coming() -> Iterator[Tokens]:
        for text in texts(*[BUDGET // 2] * 10):
            taken.append(text.place)
            yield text

    next(batched(coming(), BUDGET))
    assert taken == [0, 1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a model of 64 tokens that pools in a given way."""
    library = pytest.importorskip("sentence_transformers")
    parts = pytest.importorskip("sentence_transformers.models")
    import torch
    from tokenizers import processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    bert, words = tmp_path_factory.mktemp("bert"), byte_words()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, cls_token="<s>", pad_token="</s>", model_max_length=64
    ).save_pretrained(bert)
    torch.manual_seed(3)
    BertModel(
        BertConfig(
            vocab_size=SIZE, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, initializer_range=0.3,
        )
    ).save_pretrained(bert)  # fmt: skip

    @cache
    def folder(mode: Any = "mean", include_prompt: bool = True, *, last: str = "Normalize") -> Path:
        made, pooling = tmp_path_factory.mktemp("tiny"), parts.Pooling(32, mode, include_prompt)
        width = pooling.get_embedding_dimension()
        end = {"Normalize": [parts.Normalize()], "Dense": [parts.Dense(width, 8)], "": []}[last]
        prompts = {"query": "ask: ", "document": "tell it: "}
        model = library.SentenceTransformer(modules=[parts.Transformer(str(bert)), pooling, *end], prompts=prompts)
        model.save(str(made))
        return made

    return folder


def plain(folder: Path) -> Any:
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(("mode", "include", "last"), KINDS)
def test_vectors_are_those_of_sentence_transformers(
    tiny: Callable[..., Path], mode: Any, include: bool, last: str
) -> None:
    folder = tiny(mode, include, last=last)
    model = encoder(str(folder), backend="torch-float32")
    assert model._streams  # type: ignore[union-attr]
    own = plain(folder)
    quiet = {"show_progress_bar": False, "batch_size": 4}
    np.testing.assert_allclose(model.encode_docs(TEXTS), own.encode_document(TEXTS, **quiet), atol=1e-5)
    assert model.cut == [len(f"tell it: {text}".encode()) > 62 for text in TEXTS]
    np.testing.assert_allclose(model.encode_queries(TEXTS[:5]), own.encode_query(TEXTS[:5], **quiet), atol=1e-5)
    assert model.cut == [False] * 5
    assert model.encode_docs([]).shape == (0, model.dimension)


def test_a_vector_depends_on_its_text_alone(tiny: Callable[..., Path]) -> None:
    model = encoder(str(tiny()), backend="torch-float32")
    together = model.encode_docs(TEXTS)
    alone = np.concatenate([model.encode_docs([text]) for text in TEXTS[:9]])
    np.testing.assert_allclose(together[:9], alone, atol=2e-7)
    np.testing.assert_allclose(together[::-1], model.encode_docs(TEXTS[::-1]), atol=2e-7)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_text_is_encoded_and_torch_has_its_threads_back(tiny: Callable[..., Path], threads: int) -> None:
    torch = pytest.importorskip("torch")
    model, before = Streams(plain(tiny())), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made = list(model.run([f"{i:0{30 + i % 3}}" for i in range(200)], Role("document", "")))
        assert sorted(one.place for one in made) == [*range(200)]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_no_more_is_computed_at_once_than_the_budget(tiny: Callable[..., Path]) -> None:
    seen: list[tuple[int, ...]] = []
    model = plain(tiny())
    model[0].register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0]["input_ids"].shape)))
    made = list(Streams(model).run([f"{i:0{20 + i % 2}}" for i in range(200)], Role("document", "")))
    assert sorted(one.place for one in made) == [*range(200)]
    assert sum(n for n, _ in seen) == 200
    assert max(n * length for n, length in seen) > BUDGET / 2
    assert all(n * length <= BUDGET for n, length in seen)


def test_what_does_not_fit_is_left_to_the_model_itself(tiny: Callable[..., Path]) -> None:
    model, roles = plain(tiny()), [Role("document", "tell: ")]
    assert fits(model, roles)
    model[0].document_length = 32  # the tokenizer alone does not know of it
    assert not fits(model, roles)
    assert fits(model, [Role("query", "")])
    other = plain(tiny())
    other.add_module("3", type("Odd", (type(other[2]),), {})())
    assert not fits(other, roles)
    assert encoder(str(tiny()), backend="torch-float32")._by_batches(["a", "b"], roles[0]).shape == (2, 32)  # type: ignore[union-attr]


def test_an_index_keeps_its_backend(tiny: Callable[..., Path], tmp_path: Path) -> None:
    data = Dataset.of([Doc(f"d{i}", f"{text} {i}") for i, text in enumerate(TEXTS)])
    index = Dense.build(data, tmp_path, model=str(tiny()))
    facts = index.manifest.facts
    assert facts["probe"].keys() == {"torch-float32", "torch-bfloat16"}
    assert facts["identity"].endswith(facts["backend"])
    opened = Dense(tmp_path)
    assert opened.model.encoder.facts == {"backend": facts["backend"]}  # type: ignore[attr-defined]  # nothing is tried
    opened.add([Doc("new", "a new one")])
    opened.compact()
    assert {k: opened.manifest.facts[k] for k in ("backend", "probe", "identity")} == {
        k: facts[k] for k in ("backend", "probe", "identity")
    }


def test_vectors_of_two_backends_are_never_in_one_index(tiny: Callable[..., Path], tmp_path: Path) -> None:
    data, model = Dataset.of([Doc(f"d{i}", f"text {i}") for i in range(20)]), str(tiny())

    def built(backend: str) -> dict[str, Any]:
        return Dense.build(data, tmp_path, model=model, model_options={"backend": backend}).manifest.facts

    assert "reused_vectors" not in built("torch-float32")
    assert "reused_vectors" not in built("torch-bfloat16")
    assert built("torch-bfloat16")["reused_vectors"] == 20
    with pytest.raises(ModelError, match=r"no ONNX model"):
        built("onnx")
    with pytest.raises(ModelError, match=r"no backend 'torch-float8'; did you mean"):
        built("torch-float8")
    with pytest.raises(RecipeError, match=r"model_options: no 'backends'; did you mean backend"):
        Dense.build(data, tmp_path, model=model, model_options={"backends": "onnx"})
