"""Cross-encoders: real ones, and how their scores become a ranking."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rankpipe import weights
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.progress import listening
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.cross import CrossEncoder, Scored, Scorer
from tests.heard import Heard

PASSAGES = {
    "bananas": "Bananas are yellow when they are ripe.",
    "cities": "France has many large cities.",
    "empty": "",
    "paris": "Paris is the capital of France.",
    "skin": "The skin of a ripe banana is yellow; of an unripe one, green.",
}


class Fixed(CrossEncoder):
    """Scores are written in the passages."""

    @property
    def scorer(self) -> Scorer:  # type: ignore[override]  # no weights to keep
        return lambda pairs: [Scored(float(text), 7, text == "3") for _, text in pairs]


def ranking(texts: dict[str, str] | Sequence[str], question: str = "q") -> Ranking:
    items = texts.items() if isinstance(texts, dict) else ((f"d{i}", t) for i, t in enumerate(texts))
    docs = [Doc(i, t) for i, t in items]
    return Ranking(Query(question, question), tuple(Hit(d, -float(i)) for i, d in enumerate(docs)))


def ids(made: Ranking) -> list[str]:
    return [h.doc.id for h in made.hits]


def scores(made: Ranking) -> list[float]:
    return [h.score for h in made.hits]


@pytest.fixture(scope="module")
def real(embedded: Callable[[str], Path]) -> CrossEncoder:
    embedded("minilm-l12")
    return CrossEncoder()


def test_the_passage_that_answers_comes_first(real: CrossEncoder) -> None:
    asked = ["What is the capital of France?", "What colour is a ripe banana?"]
    capital, colour = real.apply([ranking(PASSAGES, question) for question in asked])
    assert ids(capital)[:2] == ["paris", "cities"]
    assert set(ids(colour)[:2]) == {"bananas", "skin"}
    assert scores(capital)[0] > 5 > 0 > scores(capital)[-1]  # raw logits
    [step] = capital.steps
    assert (step.stage, step.calls, step.cut) == ("CrossEncoder", 5, 0)
    assert step.tokens_in > 5 * 10


def test_a_graph_in_a_folder_of_its_own(real: CrossEncoder, embedded: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(embedded("minilm-l12"), tmp_path / "mine")
    (tmp_path / "mine" / "onnx").mkdir()
    (tmp_path / "mine" / "model.onnx").rename(tmp_path / "mine" / "onnx" / "model.onnx")
    [ours], [theirs] = (c.apply([ranking(PASSAGES, "fruit")]) for c in (CrossEncoder(str(tmp_path / "mine")), real))
    assert ours.hits == theirs.hits


def test_other_queries_in_the_batch_change_nothing(real: CrossEncoder) -> None:
    asked = [ranking(PASSAGES, q) for q in ("capital", "What colour is a ripe banana?", "")]
    together = [scores(r) for r in real.apply(asked)]
    assert together == [scores(r) for one in asked for r in real.apply([one])]


def test_long_passages_are_cut_and_counted(embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")
    [made] = CrossEncoder(max_length=16).apply([ranking(["fox " * 1000, "fox"], "fox")])
    [step] = made.steps
    assert (step.cut, step.tokens_in) == (1, 16 + 5)


def test_which_query_is_too_long_is_told(embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")
    with listening(heard := Heard()):
        made = CrossEncoder(max_length=16).apply([ranking(["a fox"], "fox " * 600), ranking(["a fox"], "fox")])
    [said] = [text for text in heard.notices if "tokens" in text]
    assert said.endswith("600 tokens, but minilm-l12 reads 16 of query and passage together: its end may be left out")
    assert [r.steps[0].cut for r in made] == [1, 0]


def test_hits_below_the_depth_stay_in_their_order() -> None:
    [made] = Fixed(depth=3).apply([ranking(["1", "2", "-3", "9", "8"])])
    assert ids(made) == ["d1", "d0", "d2", "d3", "d4"]
    assert scores(made) == [2, 1, -3, -4, -5]
    assert made.steps[-1].calls == 3


@pytest.mark.parametrize("calls", [0, 1, 3, 4])
def test_a_budget_of_passages(calls: int) -> None:
    given = [ranking(["1", "2", "-3", "9", "8"]), ranking(["5", "6"], "other")]
    made, other = Fixed(depth=4, budget=Budget(calls=calls)).apply(given)
    assert ids(made) == {
        0: ["d0", "d1", "d2", "d3", "d4"], 1: ["d0", "d1", "d2", "d3", "d4"], 3: ["d1", "d0", "d2", "d3", "d4"],
        4: ["d3", "d1", "d0", "d2", "d4"],
    }[calls]  # fmt: skip
    assert (made.steps[-1].calls, made.steps[-1].skipped) == (calls, 4 - calls)
    assert (other.steps[-1].calls, other.steps[-1].skipped) == (min(calls, 2), 2 - min(calls, 2))


def test_a_budget_of_tokens_is_never_exceeded() -> None:
    """A pair may have 20, and has 7: the last one is not asked for which 20 are not left."""
    [made] = Fixed(max_length=20, budget=Budget(tokens=50)).apply([ranking([str(i) for i in range(9)])])
    assert (made.steps[-1].tokens_in, made.steps[-1].calls, made.steps[-1].skipped) == (35, 5, 4)
    with pytest.raises(RecipeError, match=r"budget\.tokens: say with max_length how many a pair may have"):
        CrossEncoder(budget=Budget(tokens=50))


def test_a_budget_of_seconds() -> None:
    asked: list[int] = []

    class Slow(Fixed):
        @property
        def scorer(self) -> Scorer:  # type: ignore[override]
            def score(pairs: Sequence[tuple[str, str]]) -> list[Scored]:
                asked.append(len(pairs))
                time.sleep(0.001)
                return [Scored(1.0, 7, False) for _ in pairs]

            return score

    [none] = Slow(budget=Budget(seconds=0)).apply([ranking(["1"] * 20)])
    assert (asked, none.steps[-1].calls, none.steps[-1].skipped) == ([], 0, 20)
    [some] = Slow(budget=Budget(seconds=1e-9)).apply([ranking(["1"] * 20)])
    assert (asked, some.steps[-1].calls, some.steps[-1].skipped) == ([1], 1, 19)


def test_ties_fall_as_trec_eval_breaks_them() -> None:
    [made] = Fixed().apply([ranking(["1", "1", "2"])])
    assert ids(made) == ["d2", "d1", "d0"]


def test_few_hits_or_none() -> None:
    none, one = Fixed().apply([ranking([]), ranking(["3"])])
    assert (ids(none), ids(one)) == ([], ["d0"])
    assert [(s.calls, s.tokens_in, s.cut) for s in (none.steps[-1], one.steps[-1])] == [(0, 0, 0), (1, 7, 1)]


def test_nothing_to_rank_loads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANKPIPE_CACHE", str(tmp_path))
    monkeypatch.setenv("RANKPIPE_OFFLINE", "1")
    [made] = CrossEncoder().apply([ranking([])])
    assert made.hits == ()


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(ModelError, match=r"no finite score for query 'q', document 'd1'"):
        Fixed().apply([ranking(["1", "nan"])])


def test_what_no_cross_encoder_is(embedded: Callable[[str], Path]) -> None:
    with pytest.raises(RecipeError, match="depth: 0"):
        CrossEncoder(depth=0)
    embedded("bge-small")
    with pytest.raises(ModelError, match=r"numbers of shape \(\d+, 384\) for a pair"):
        CrossEncoder("bge-small").apply([ranking(["a"])])


@pytest.mark.slow  # torch and sentence-transformers take a while to import
def test_sentence_transformers_models_score_as_by_themselves(tmp_path: Path, embedded: Callable[[str], Path]) -> None:
    library = pytest.importorskip("sentence_transformers")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    source = embedded("minilm")
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=1, max_position_embeddings=64,
    )  # fmt: skip
    with weights.quiet():
        transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
        transformers.AutoTokenizer.from_pretrained(source, model_max_length=64).save_pretrained(tmp_path)
        plain = library.CrossEncoder(str(tmp_path))
    texts = [*PASSAGES.values(), "word " * 5000]
    [made] = CrossEncoder(str(tmp_path)).apply([ranking(texts, "which fruit")])
    logits = plain.predict([("which fruit", t) for t in texts], activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(scores(made), sorted(logits.tolist(), reverse=True), atol=1e-6)
    assert ids(made) == [f"d{i}" for i in np.argsort(-logits)]
    assert made.steps[-1].cut == 1


def test_a_model_without_a_head_is_refused(embedded: Callable[[str], Path]) -> None:
    """sentence-transformers would give it a random one."""
    pytest.importorskip("sentence_transformers")
    for model, kind in (("splade-tiny", "BertForMaskedLM"), ("minilm", "BertModel")):
        with pytest.raises(ModelError, match=f"no cross-encoder but {kind}; its scores would come from random"):
            CrossEncoder(str(embedded(model))).apply([ranking(PASSAGES)])
