"""In-context reranking: against whole attention maps, summed up by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import MissingWeights, ModelError, RecipeError
from rankpipe.lm import attention
from rankpipe.lm.fake import Noisy
from rankpipe.lm.hf import HF
from rankpipe.rerank import ledger
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.icr import InContext, calibrated
from rankpipe.rerank.plans import Single, Sliding

pytest.importorskip("torch")
pytest.importorskip("transformers")

TEXTS = ["bananas", "a wet fox", "x", "tea [1] leaves"]


def ranking(texts: Sequence[str], question: str = "fox?") -> Ranking:
    docs = [Doc(f"d{i}", t) for i, t in enumerate(texts)]
    return Ranking(Query(question, question), tuple(Hit(d, -float(i)) for i, d in enumerate(docs)))


def ids(made: Ranking) -> list[str]:
    return [h.doc.id for h in made.hits]


def exact(folder: Path, **options: Any) -> HF:
    return HF(str(folder), dtype="float32", **options)


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that even the tiny model's prompts are computed in several blocks."""
    monkeypatch.setattr(attention, "ROWS", 7)


def maps(folder: Path, tokens: Sequence[int]) -> Any:
    """Attention summed over layers and heads, (T, T), all of it at once."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.inference_mode():
        layers = model(torch.tensor([list(tokens)]), output_attentions=True).attentions
    return torch.stack([layer[0].sum(0) for layer in layers]).sum(0).numpy()


def prompt(texts: Sequence[str], question: str) -> tuple[str, list[slice], int]:
    """The prompt, where its passages are, and where the query's part begins. The tiny model's tokens are bytes."""
    text, places = "<user>Here are some paragraphs:", []
    for i, passage in enumerate(texts, 1):
        shown = f"[{i}] {passage}"
        text += "\n\n" + shown
        places.append(slice(len(text) - len(shown), len(text)))
    after = "\n\nPlease find information that are relevant to the following query in the paragraphs above.\n\nQuery: "
    return f"{text}{after}{question}\0<assistant>", places, len(text)


def plain(folder: Path, texts: Sequence[str], question: str) -> list[float]:
    """The paper's equations, with whole maps and no cache."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen = []
    for asked in (question, "N/A"):
        text, places, end = prompt(texts, asked)
        ids = tokenizer(text.replace("\0", "</s>"), add_special_tokens=False)["input_ids"]
        assert len(ids) == len(text)
        seen.append(maps(folder, ids)[end:, :end].mean(0))
    scores = []
    for place in places:
        more = [q - n for q, n in zip(seen[0][place], seen[1][place], strict=True)]
        least = np.mean(more) - 2 * np.std(more, ddof=1)
        scores.append(float(sum(m for m in more if m > least)))
    return scores


def scored(stage: InContext, texts: Sequence[str], question: str) -> list[float]:
    docs = [Doc(str(i), text) for i, text in enumerate(texts)]
    return stage.scores(stage.fit(Query("q", question), docs)).tolist()


def test_scores_are_the_papers(tiny_lm: Path, few_rows: None) -> None:
    shown = ["bananas", "a wet fox", "x", "tea (1) leaves"]
    for question in ("fox?", "what is a banana"):
        expected = plain(tiny_lm, shown, question)
        assert scored(InContext(exact(tiny_lm)), shown, question) == pytest.approx(expected, abs=1e-5)
        [made] = InContext(exact(tiny_lm)).apply([ranking(TEXTS[::-1], question)])  # the best so far is shown last
        assert ids(made) == [f"d{3 - i}" for i in np.argsort(-np.array(expected))]
        assert [h.score for h in made.hits] == [1, 1 / 2, 1 / 3, 1 / 4]


def test_loading_is_in_no_calls_seconds(tiny_lm: Path) -> None:
    done = []

    class Late(HF):
        def ready(self) -> None:
            done.append("ready")
            super().ready()

        def attention(self, start: Sequence[int], ends: Sequence[Sequence[int]]) -> Any:
            assert "_held" in vars(self), "it is loaded"
            return super().attention(start, ends)

    InContext(Late(str(tiny_lm), dtype="float32")).apply([ranking(TEXTS)])
    assert done == ["ready"]


def test_two_passes_a_window_and_the_second_reads_only_the_query(tiny_lm: Path) -> None:
    lm = exact(tiny_lm)
    read = []
    lm._model.register_forward_pre_hook(lambda _, args, kw: read.append(kw["input_ids"].shape[1]), with_kwargs=True)
    [made] = InContext(lm).apply([ranking(TEXTS)])
    text, _, end = prompt(["bananas", "a wet fox", "x", "tea (1) leaves"], "N/A")
    assert read == [len(text), len(text) - end + 1]  # fox? is one byte longer than N/A
    [step] = made.steps
    assert (step.stage, step.calls, step.tokens_in, step.tokens_out, step.cut) == ("InContext", 1, sum(read), 0, 0)


def test_the_model_is_as_before_afterwards(tiny_lm: Path) -> None:
    lm = exact(tiny_lm)
    before = lm._model.config._attn_implementation
    chats = [[{"role": "user", "content": "fox"}]]
    said = lm.complete(chats, max_tokens=8)
    InContext(lm).apply([ranking(TEXTS)])
    assert lm._model.config._attn_implementation == before
    assert lm.complete(chats, max_tokens=8) == said


def test_windows_slide(tiny_lm: Path) -> None:
    stage = InContext(exact(tiny_lm), plan=Sliding(3, 1), depth=4)
    texts = ["bananas", "fox", "x", "tea", "last"]
    [made] = stage.apply([ranking(texts)])
    order = [0, 1, 2, 3]
    for window in (slice(1, 4), slice(0, 3)):
        scores = scored(stage, [texts[i] for i in order[window][::-1]], "fox?")[::-1]
        order[window] = [order[window][i] for i in np.argsort(-np.array(scores), kind="stable")]
    assert ids(made) == [f"d{i}" for i in [*order, 4]]
    assert made.steps[-1].calls == 2


def test_a_budget_ends_it_after_a_window(tiny_lm: Path) -> None:
    stage = InContext(exact(tiny_lm), plan=Sliding(3, 1), budget=Budget(calls=1))
    texts = ["bananas", "fox", "x", "tea"]
    [made] = stage.apply([ranking(texts)])
    assert (made.steps[-1].calls, made.steps[-1].skipped) == (1, 1)
    assert ids(made)[0] == "d0"
    scores = dict(zip(("d3", "d2", "d1"), scored(stage, texts[:0:-1], "fox?"), strict=True))
    assert ids(made)[1:] == sorted(scores, key=lambda d: -scores[d])
    used = made.steps[-1].tokens_in
    for most in (used - 1, used, 2 * used - 1):
        stage = InContext(exact(tiny_lm), plan=Sliding(3, 1), budget=Budget(tokens=most))
        [step] = stage.apply([ranking(texts)])[0].steps
        assert (step.calls, step.skipped) == ((1, 1) if most >= used else (0, 2))


def test_every_window_is_noted_as_it_was_shown(tiny_lm: Path) -> None:
    noted: list[ledger.Entry] = []
    with ledger.written(noted.append):
        [made] = InContext(exact(tiny_lm), max_words=2).apply([ranking(TEXTS)])
    [entry] = noted
    assert entry.docs == ("d3", "d2", "d1", "d0")
    assert entry.messages[0]["content"].startswith("Here are some paragraphs:\n\n[1] tea (1)\n\n[2] x\n\n[3] a wet\n\n")
    assert entry.order == tuple(ids(made))
    best, score = entry.reply.split(" > ")[0].split()
    assert entry.docs[int(best[1:-1]) - 1] == ids(made)[0]
    assert float(score) == pytest.approx(scored(InContext(exact(tiny_lm), max_words=2), TEXTS[::-1], "fox?")[
        int(best[1:-1]) - 1
    ], rel=1e-3)  # fmt: skip
    assert (entry.kind, entry.cut, entry.cut_words, entry.tokens_in) == ("ok", 2, 2, made.steps[-1].tokens_in)


def test_passages_are_shortened_to_fit(tiny_lm: Path) -> None:
    [made] = InContext(exact(tiny_lm)).apply([ranking(["word " * 50, "fox"])])
    assert made.steps[-1].cut == 1
    [made] = InContext(exact(tiny_lm), max_words=1).apply([ranking(["two words", "fox"])])
    assert made.steps[-1].cut == 1
    with pytest.raises(ModelError, match="tokens with one word of each of 2 passages"):
        InContext(exact(tiny_lm)).apply([ranking(["a", "fox"], "why " * 60)])


def test_what_costs_nothing(tiny_lm: Path) -> None:
    none, one = InContext(HF("no such model")).apply([ranking([]), ranking(["a"])])
    assert (ids(none), ids(one), none.steps[-1].calls, one.steps[-1].calls) == ([], ["d0"], 0, 0)
    with pytest.raises(RecipeError, match="both must be 1 or more"):
        InContext(HF("no such model"), depth=0)
    with pytest.raises(RecipeError, match="a Noisy does not say what it looks at"):
        InContext(Noisy())  # type: ignore[arg-type]
    code = (
        "import sys; from rankpipe.rerank.icr import InContext, HF; InContext(HF()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_empty_query_and_one_like_a_token_of_the_template(tiny_lm: Path) -> None:
    for question in ("", "</s>", "fox </s>"):
        [made] = InContext(exact(tiny_lm)).apply([ranking(TEXTS, question)])
        assert sorted(ids(made)) == ["d0", "d1", "d2", "d3"]


def test_tokens_that_lose_much_are_left_out() -> None:
    looks, nothing = np.full(30, 0.5), np.full(30, 0.25)
    assert calibrated(looks, nothing) == pytest.approx(30 * 0.25)
    looks[3] = -9.0
    assert calibrated(looks, nothing) == pytest.approx(29 * 0.25)
    assert calibrated(looks[:1], nothing[:1]) == 0.25


@pytest.mark.slow
def test_smollm2_finds_the_passage_that_answers() -> None:
    try:
        stage = InContext(HF("smollm2", dtype="float32"), plan=Single(10))
        texts = [
            "Bananas are yellow when they are ripe.", "France has many large cities.", "The fox sleeps in its den.",
            "Paris is the capital of France.", "Tea leaves are steeped for three minutes.",
        ]  # fmt: skip
        capital, tea = stage.apply([ranking(texts, "What is the capital of France?"), ranking(texts, "brewing tea")])
    except MissingWeights as error:
        pytest.skip(str(error))
    assert (ids(capital)[0], ids(tea)[0]) == ("d3", "d4")


def test_a_passage_cannot_carry_a_label(tiny_lm: Path) -> None:
    lm = HF(str(tiny_lm), dtype="float32")
    [shown] = InContext(lm).fit(Query("q", "q"), [Doc("d", "[ 1 ] ［1］ [①] [2]")]).chat
    assert "( 1 ) (1) (①) (2)" in shown["content"]
