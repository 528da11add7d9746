"""Late interaction: against onnxruntime and sentence-transformers themselves, and how scores become a ranking."""

import string
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankpipe import weights
from rankpipe.colbert import Read, TokenEncoder
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.late import Late, maxsim

PASSAGES = {
    "bananas": "Bananas are yellow when they are ripe.",
    "cities": "France has many large cities.",
    "empty": "",
    "marks": "?!",
    "paris": "Paris is the capital of France.",
}


class Letters:
    """A letter is a token, its vector says which."""

    def query(self, text: str) -> Read:
        return Read(self._vectors(text), len(text), False)

    def docs(self, texts: Sequence[str]) -> Iterator[Read]:
        for text in texts:
            yield Read(self._vectors(text), len(text), len(text) > 3)

    def _vectors(self, text: str) -> NDArray[np.float32]:
        return np.eye(128, dtype=np.float32)[[ord(c) for c in text]]


class Lettered(Late):
    """Scores are how many of the query's letters a passage has."""

    @property
    def encoder(self) -> TokenEncoder:  # type: ignore[override]  # no weights to keep
        return Letters()


def ranking(texts: dict[str, str] | Sequence[str], question: str) -> Ranking:
    items = texts.items() if isinstance(texts, dict) else ((f"d{i}", t) for i, t in enumerate(texts))
    docs = [Doc(i, t) for i, t in items]
    return Ranking(Query(question, question), tuple(Hit(d, -float(i)) for i, d in enumerate(docs)))


def ids(made: Ranking) -> list[str]:
    return [h.doc.id for h in made.hits]


def scores(made: Ranking) -> dict[str, float]:
    return {h.doc.id: h.score for h in made.hits}


@pytest.fixture(scope="module")
def colbert(embedded: Callable[[str], Path]) -> Path:
    return embedded("colbert-small")


def test_a_letter_counts_once_for_each_time_it_is_asked() -> None:
    first, second = Lettered(depth=3).apply(
        [ranking(["x", "a", "aabbb", "z", "zz"], "aab"), ranking(["zc", "d"], "cd")]
    )
    assert list(scores(first).items()) == [("d2", 3), ("d1", 2), ("d0", 0), ("d3", -1), ("d4", -2)]
    assert list(scores(second).items()) == [("d1", 1), ("d0", 1)]
    assert [(s.calls, s.tokens_in, s.cut) for s in (first.steps[-1], second.steps[-1])] == [(4, 10, 1), (3, 5, 0)]


def test_maxsim_is_what_two_loops_say() -> None:
    random = np.random.default_rng(1)
    query, doc = (random.normal(size=(n, 5)).astype(np.float32) for n in (3, 7))
    assert maxsim(query, doc) == pytest.approx(sum(max(float(q @ d) for d in doc) for q in query), rel=1e-5)


def test_nothing_to_rank_loads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path))
    monkeypatch.setenv("RANKPIPE_OFFLINE", "1")
    [made] = Late().apply([ranking([], "q")])
    assert (made.hits, made.steps[-1].calls) == ((), 0)


@cache
def session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def plain(folder: Path, question: str, passage: str) -> float:
    """ColBERT's score, step by step: 32 tokens of the query, none of which sees a mask; no punctuation."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def vectors(tokens: list[int], seen: int) -> NDArray[np.float32]:
        mask = [int(i < seen) for i in range(len(tokens))]
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": [0] * len(tokens)}
        [made] = session(folder).run(["last_hidden_state"], {k: np.array([v], np.int64) for k, v in feed.items()})
        return np.array([v / np.linalg.norm(v) for v in made[0]])

    words = tokenizer.encode(question, add_special_tokens=False).ids
    asked = [101, tokenizer.token_to_id("[unused0]"), *words, 102]
    query = vectors(asked + [103] * (32 - len(asked)), len(asked))
    told = [101, tokenizer.token_to_id("[unused1]"), *tokenizer.encode(passage, add_special_tokens=False).ids, 102]
    marks = {tokenizer.token_to_id(c) for c in string.punctuation}
    doc = vectors(told, len(told))[[t not in marks for t in told]]
    return float(sum(max(q @ d for d in doc) for q in query))


@pytest.mark.parametrize("calls", [0, 1, 3, 4, 9])
def test_a_budget_of_calls(calls: int) -> None:
    """The first one reads the query."""
    given = [ranking(["x", "a", "aabbb", "z"], "aab"), ranking(["zc"], "cd"), ranking([], "e")]
    made, other, none = Lettered(budget=Budget(calls=calls)).apply(given)
    order = {3: ["d1", "d0", "d2", "d3"], 4: ["d2", "d1", "d0", "d3"], 9: ["d2", "d1", "d3", "d0"]}
    assert ids(made) == order.get(calls, ["d0", "d1", "d2", "d3"])
    assert [(m.steps[-1].calls, m.steps[-1].skipped) for m in (made, other, none)] == [
        (min(calls, 5), max(5 - calls, 0)), (min(calls, 2), max(2 - calls, 0)), (0, 0)
    ]  # fmt: skip


def test_a_budget_of_seconds() -> None:
    given = [ranking(["x", "a", "aabbb", "z"], "aab"), ranking(["zc"], "cd")]
    for seconds, calls in ((0, [0, 0]), (1e-9, [1, 1]), (1e9, [5, 2])):
        made = Lettered(budget=Budget(seconds=seconds)).apply(given)
        assert [m.steps[-1].calls for m in made] == calls
        assert [m.steps[-1].calls + m.steps[-1].skipped for m in made] == [5, 2]
    assert [m.hits for m in made] == [m.hits for m in Lettered().apply(given)]
    with pytest.raises(RecipeError, match=r"budget\.tokens: how many a query has is known when it has been read"):
        Late(budget=Budget(tokens=9))


def test_scores_are_as_colbert_makes_them(colbert: Path) -> None:
    long = "who wrote it and when and where, " * 8
    for question in ("What is the capital of France?", "", long):
        [made] = Late().apply([ranking(PASSAGES, question)])
        expected = {i: plain(colbert, question, text) for i, text in PASSAGES.items()}
        assert scores(made) == pytest.approx(expected, abs=1e-3)
    assert made.steps[-1].tokens_in > 64  # a long query is read whole


def test_the_passage_that_answers_comes_first(colbert: Path) -> None:
    [made] = Late().apply([ranking(PASSAGES, "What is the capital of France?")])
    assert ids(made)[0] == "paris"
    assert 32 > scores(made)["paris"] > 20
    [step] = made.steps
    assert (step.stage, step.calls, step.cut) == ("Late", 6, 0)
    assert step.tokens_in == 32 + sum(len(_words(colbert, text)) + 3 for text in PASSAGES.values())


def _words(folder: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_other_queries_in_the_batch_change_nothing(colbert: Path) -> None:
    asked = [ranking(PASSAGES, q) for q in ("capital", "What colour is a ripe banana?", "")]
    stage = Late()
    together = [scores(r) for r in stage.apply(asked)]
    assert together == [scores(r) for one in asked for r in stage.apply([one])]


def test_long_passages_are_cut_and_counted(colbert: Path) -> None:
    [made] = Late(max_length=16).apply([ranking(["fox " * 1000, "fox"], "fox")])
    assert (made.steps[-1].cut, made.steps[-1].tokens_in) == (1, 32 + 16 + 4)
    [made] = Late().apply([ranking(["fox " * 1000], "fox " * 1000)])  # as long as its positions go
    assert made.steps[-1].tokens_in == 512 + 512


def test_what_is_no_late_interaction(embedded: Callable[[str], Path]) -> None:
    with pytest.raises(RecipeError, match="depth: 0"):
        Late(depth=0)
    embedded("minilm-l12")
    with pytest.raises(ModelError, match="nothing says which tokens mark"):
        Late("minilm-l12").apply([ranking(["a"], "q")])


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_sentence_transformers_models_score_as_by_themselves(tmp_path: Path, embedded: Callable[[str], Path]) -> None:
    library = pytest.importorskip("sentence_transformers")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    modules = pytest.importorskip("sentence_transformers.multi_vector_encoder.modules")
    source = embedded("minilm-l12")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    with weights.quiet():
        transformers.BertModel(config).save_pretrained(tmp_path / "bert")
        transformers.AutoTokenizer.from_pretrained(source, model_max_length=64).save_pretrained(tmp_path / "bert")
        text = library.base.modules.Transformer(
            str(tmp_path / "bert"), document_length=20, query_expansion={"strategy": "fixed", "length": 16}
        )
        parts = [text, library.base.modules.Dense(16, 8, bias=False, module_input_name="token_embeddings")]
        made = library.MultiVectorEncoder(
            modules=[*parts, modules.MultiVectorMask(list(string.punctuation))],
            prompts={"query": "asked: ", "document": "told: "},
        )
        made.save_pretrained(str(tmp_path / "late"))
        model = library.MultiVectorEncoder(str(tmp_path / "late"))
    texts = [*PASSAGES.values(), "word " * 5000] * 12
    [done] = Late(str(tmp_path / "late")).apply([ranking(texts, "which fruit")])
    expected = model.similarity(model.encode_query(["which fruit"]), model.encode_document(texts))[0].tolist()
    assert [scores(done)[f"d{i}"] for i in range(len(texts))] == pytest.approx(expected, abs=1e-5)
    assert done.steps[-1].cut == 12
    [longer] = Late(str(tmp_path / "late"), max_length=64).apply([ranking(texts[:6], "which fruit")])
    assert longer.steps[-1].tokens_in == done.steps[-1].tokens_in // 12 + 44 + 15
