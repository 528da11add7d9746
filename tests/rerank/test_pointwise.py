"""One passage at a time: mechanics on fakes, scores against a plain loop on a tiny model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, inf, log
from pathlib import Path
from typing import Any

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking, Step
from rankpipe.errors import DataError, ModelError, RecipeError
from rankpipe.lm import Chat, Choice
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Scripted
from rankpipe.lm.hf import HF
from rankpipe.lm.http import Http
from rankpipe.recipe import build, check
from rankpipe.rerank import ledger
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.first import First
from rankpipe.rerank.pointwise import UNRATED, OneByOne, Pointwise, QueryLikelihood, share, verdict
from rankpipe.rerank.prompts import PointPrompt, named, read
from rankpipe.rerank.template import Said
from tests.lm.server import completion, say, serving

PLAIN = PointPrompt("plain", (Said("user", "{query}? {passage}"),), titled="{text}")


class Judge(Scripted):
    """Passages are probabilities of yes, told by the given spellings; "?" is rated by no word."""

    def __init__(self, words: Sequence[str] = ("yes", "no"), context: int = 4096, seconds: float = 0) -> None:
        super().__init__([], context)
        self.words, self.seconds = words, seconds

    def is_token(self, text: str, *, begin: str = "") -> bool:
        return text in self.words

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        assert all(c in self.words for c in choices)
        time.sleep(self.seconds * len(chats))
        self.batches.append(len(chats))
        return [self._rate(chat, choices) for chat in chats]

    def _rate(self, chat: Chat, choices: Sequence[str]) -> Choice:
        self.heard.append(chat[-1]["content"])
        passage = self.heard[-1].partition("? ")[2]
        p = None if passage == "?" else float(passage.split()[0])
        of = {"y": p, "n": None if p is None else 1 - p}
        shares = [of[c[0].lower()] for c in choices]
        return Choice(tuple(-inf if not s else log(s / 4) for s in shares), self._fitting(chat, 1))


def ranking(*texts: str, question: str = "q", of: str = "1") -> Ranking:
    hits = (Hit(Doc(f"d{i}", text), -float(i)) for i, text in enumerate(texts))
    return Ranking(Query(of, question), tuple(hits))


def ids(made: Ranking) -> list[str]:
    return [h.doc.id for h in made.hits]


def scores(made: Ranking) -> list[float]:
    return [h.score for h in made.hits]


def told(made: Ranking) -> Step:
    [step] = made.steps
    return step


@pytest.mark.parametrize(
    ("yes", "no", "score"),
    [
        ([log(0.6)], [log(0.2)], log(3)),  # the reference's case, 0.75
        ([log(0.3), log(0.1)], [log(0.05), log(0.05), -inf], log(4)),
        ([-inf], [log(0.2)], UNRATED - log(0.2)),
        ([log(0.2)], [-inf], log(0.2) - UNRATED),
        ([-inf, -inf], [-inf], None),
        ([-9000.0], [-9001.0], 1.0),
        ([-1e-30], [-80.0], 80.0),
    ],
)
def test_verdict(yes: list[float], no: list[float], score: float | None) -> None:
    made = verdict(yes, no)
    assert made is score if score is None else made == pytest.approx(score, abs=1e-12)


def test_shares() -> None:
    assert share(log(3)) == pytest.approx(0.75)
    assert [share(odds) for odds in (0.0, 10_000.0, -10_000.0)] == [0.5, 1.0, 0.0]


def odds(p: float) -> float:
    return log(p / (1 - p))


def test_sorted_by_the_odds_of_yes() -> None:
    lm = Judge()
    [made] = Pointwise(lm, PLAIN).apply([ranking("0.2", "0.9", "0.5")])
    assert ids(made) == ["d1", "d2", "d0"]
    assert scores(made) == pytest.approx([odds(0.9), 0.0, odds(0.2)])
    step = told(made)
    assert (step.stage, step.calls, step.tokens_out, step.repaired, step.cut) == ("Pointwise", 3, 3, 0, 0)
    assert step.tokens_in == sum(lm.count([{"role": "user", "content": text}]) for text in lm.heard)


class Sure(Judge):
    """Passages are log-probabilities of no; yes is certain."""

    def _rate(self, chat: Chat, choices: Sequence[str]) -> Choice:
        no = float(chat[-1]["content"].partition("? ")[2])
        return Choice(tuple(0.0 if c == "yes" else no for c in choices), self._fitting(chat, 1))


def test_certain_ones_are_told_apart() -> None:
    """P(yes) is 1.0 for all of them."""
    [made] = Pointwise(Sure(), PLAIN).apply([ranking("-50", "-70", "-inf", "-60")])
    assert ids(made) == ["d2", "d1", "d3", "d0"]
    assert scores(made) == [-UNRATED, 70, 60, 50]


def test_all_spellings_that_are_tokens_count() -> None:
    given = ranking("0.2", "0.9")
    for words in (("yes", "YES", "no", "No", "NO"), ("Yes", "No"), ("yes", "Yes", "YES", "no", "No", "NO")):
        stage = Pointwise(Judge(words), PLAIN)
        n_yes = sum(w.lower() == "yes" for w in words)
        p = n_yes * 0.9 / (n_yes * 0.9 + (len(words) - n_yes) * 0.1)
        assert scores(stage.apply([given])[0])[0] == pytest.approx(odds(p))
        assert sorted([*stage.words[0], *stage.words[1]]) == sorted(words)


def test_no_spelling_is_a_token() -> None:
    with pytest.raises(ModelError, match="prompt 'plain': none of no, No, NO is a single token of the model after ''"):
        Pointwise(Judge(["yes"]), PLAIN).apply([ranking("0.2")])


def test_what_is_not_rated_stays_below_and_is_counted() -> None:
    [made] = Pointwise(Judge(), PLAIN, depth=5).apply([ranking("?", "0.1", "?", "0.5", "0.4", "0.9")])
    assert ids(made) == ["d3", "d4", "d1", "d0", "d2", "d5"]
    assert scores(made) == pytest.approx([0.0, odds(0.4), odds(0.1), odds(0.1) - 1, odds(0.1) - 2, odds(0.1) - 3])
    assert (told(made).calls, told(made).repaired) == (5, 2)
    [made] = Pointwise(Judge(), PLAIN).apply([ranking("?", "?")])
    assert (ids(made), scores(made), told(made).repaired) == (["d0", "d1"], [-1, -2], 2)


def test_ties_fall_as_trec_eval_breaks_them() -> None:
    [made] = Pointwise(Judge(), PLAIN).apply([ranking("0.5", "0.5", "0.9", "0.5")])
    assert ids(made) == ["d2", "d3", "d1", "d0"]


def test_nothing_to_rank_asks_nothing() -> None:
    lm = Judge([])
    (none,) = Pointwise(lm, PLAIN).apply([ranking()])
    assert (none.hits, lm.batches, told(none).calls) == ((), [], 0)
    assert Pointwise(lm, PLAIN).apply([]) == []


def test_all_queries_are_one_batch_and_companions_change_nothing() -> None:
    lm = Judge()
    asked = [ranking("0.1", "0.7", question="a", of="1"), ranking(), ranking("0.7", "0.3", "0.2", question="b", of="2")]
    together = Pointwise(lm, PLAIN).apply(asked)
    assert lm.batches == [5]
    alone = [Pointwise(lm, PLAIN).apply([one])[0] for one in asked]
    assert [scores(r) for r in together] == [scores(r) for r in alone]


@pytest.mark.parametrize("calls", [0, 1, 3, 4, 9])
def test_budget_of_calls(calls: int) -> None:
    [made] = Pointwise(Judge(), PLAIN, depth=4, budget=Budget(calls=calls)).apply([ranking(*["0.1", "0.9"] * 3)])
    step = told(made)
    assert (step.calls, step.skipped) == (min(calls, 4), 4 - min(calls, 4))
    assert ids(made)[step.calls :] == [f"d{i}" for i in range(step.calls, 6)]
    assert scores(made) == sorted(scores(made), reverse=True)


def test_budget_of_tokens() -> None:
    given = [ranking(*["0.5 word"] * 10), ranking("0.5", of="2")]
    whole = told(Pointwise(Judge(), PLAIN).apply(given)[0])
    used = whole.tokens_in + whole.tokens_out
    for most in (0, 1, used // 2, used - 1, used):
        step = told(Pointwise(Judge(), PLAIN, budget=Budget(tokens=most)).apply(given)[0])
        assert step.tokens_in + step.tokens_out <= most
        assert (step.skipped == 0) == (most == used)
        assert step.calls + step.skipped == 10
        assert step.calls == most * 10 // used


def test_budget_of_seconds_goes_in_rounds_of_eight() -> None:
    lm = Judge()
    [step] = Pointwise(lm, PLAIN, budget=Budget(seconds=1e-9)).apply([ranking(*["0.5"] * 30)])[0].steps
    assert (lm.batches, step.calls, step.skipped) == ([1], 1, 29)  # what the first one takes is not known before
    [step] = Pointwise(lm, PLAIN, budget=Budget(seconds=0)).apply([ranking(*["0.5"] * 30)])[0].steps
    assert (lm.batches, step.calls, step.skipped) == ([1], 0, 30)
    lm = Judge(seconds=0.002)
    [made] = Pointwise(lm, PLAIN, budget=Budget(seconds=0.05)).apply([ranking(*["0.5"] * 100)])
    assert 1 <= told(made).calls <= 25
    assert told(made).calls + told(made).skipped == 100
    lm = Judge()
    [made] = Pointwise(lm, PLAIN, budget=Budget(seconds=60)).apply([ranking(*["0.5"] * 30)])
    assert (lm.batches, told(made).skipped) == ([1, 8, 8, 8, 5], 0)


def test_long_passages_are_cut_and_counted() -> None:
    lm = Judge(context=60)
    [made] = Pointwise(lm, PLAIN).apply([ranking("0.5 " + "word " * 100, "0.4", "0.3 " + "字" * 500_000)])
    assert (told(made).cut, ids(made)) == (2, ["d0", "d1", "d2"])
    assert all(lm.count([{"role": "user", "content": text}]) <= 59 for text in lm.heard)
    start = time.perf_counter()
    [made] = Pointwise(Judge(), PLAIN).apply([ranking("0.5 " + "word " * 200_000)])
    assert time.perf_counter() - start < 2
    assert told(made).cut == 1
    assert len(lm.heard[0].split()) < 301


@pytest.mark.parametrize("kind", [Pointwise, QueryLikelihood])
def test_a_query_that_is_too_long_says_the_numbers(kind: type[Pointwise | QueryLikelihood]) -> None:
    with pytest.raises(
        ModelError,
        match=r"query '1': \d+ tokens with one word of the passage \(\d+ without any\), but of the model's 99 ",
    ):
        kind(Judge(context=99)).apply([ranking("0.5", question="word " * 300)])


def test_empty_texts() -> None:
    [made] = QueryLikelihood(Scripted([])).apply([ranking("", "q", question="q")])
    assert ids(made) == ["d1", "d0"]
    [made] = QueryLikelihood(Scripted([])).apply([ranking("a", "b", question="")])
    assert (ids(made), told(made).repaired) == (["d0", "d1"], 2)


def test_likelihood_is_a_mean_over_the_querys_tokens() -> None:
    lm = Scripted([])
    [made] = QueryLikelihood(lm).apply([ranking("a dog", "the red fox", "a fox", question="red fox")])
    assert ids(made) == ["d1", "d2", "d0"]
    assert scores(made) == pytest.approx([log(0.9), (log(0.9) + log(0.01)) / 2, log(0.01)])
    step = told(made)
    assert (step.stage, step.calls, step.tokens_out, step.repaired) == ("QueryLikelihood", 3, 0, 0)


def test_every_passage_is_noted() -> None:
    noted: list[ledger.Entry] = []
    with ledger.written(noted.append):
        Pointwise(Judge(), PLAIN).apply([ranking("0.25", "?")])
    assert [(e.docs, e.order, e.reply, e.kind, e.missing) for e in noted] == [
        (("d0",), ("d0",), "yes 0.25, log-odds -1.09861", "ok", 0),
        (("d1",), ("d1",), "neither yes nor no", "missing_documents", 1),
    ]
    assert noted[0].messages == [{"role": "user", "content": "q? 0.25"}]


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(ModelError, match="Pointwise: no finite score for query '1', document 'd0'"):
        Pointwise(Judge(), PLAIN).apply([ranking("nan")])


def test_prompts_of_another_kind() -> None:
    with pytest.raises(
        DataError, match="prompt 'upr' asks for a query, not for yes or no\nknown: pointwise, qwen3_rer"
    ):
        Pointwise(Judge(), "upr")
    with pytest.raises(DataError, match=r"prompt 'first' asks for an order, not for a query\nknown: upr; for a file"):
        QueryLikelihood(Judge(), "first")
    with pytest.raises(DataError, match="prompt 'plain' asks for yes or no, not for an order or the best passage"):
        First(Judge(), prompt=PLAIN)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no prompt 'pointwize'; did you mean pointwise"):
        Pointwise(Judge(), "pointwize")
    with pytest.raises(RecipeError, match="max_words=0, depth=100"):
        Pointwise(Judge(), max_words=0)
    with pytest.raises(DataError, match="prompt 'pointwise' asks for yes or no"):
        named("pointwise")


def test_from_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('answer: verdict\nmessages: [{user: "Query: {query}\\nPassage: {passage}"}]')
    mine = {"use": "prompt", "file": "mine.yaml"}
    nodes = [
        {
            "use": "pointwise",
            "lm": {"use": "fake", "noise": 0.0},
            "prompt": mine,
            "budget": {"use": "budget", "calls": 3},
        },
        {"use": "upr", "lm": {"use": "fake"}, "depth": 3},
    ]
    assert check(nodes, root=tmp_path) == []
    for node in nodes:
        [made] = build(node, tmp_path).apply([ranking("blue", "a red fox", "fox", "red fox", question="red fox")])
        assert ids(made) == ["d1", "d2", "d0", "d3"]


@pytest.mark.slow
def test_smollm2_asks_for_the_passage_that_answers(embedded: Callable[[str], Path]) -> None:
    lm = HF(str(embedded("smollm2")), dtype="float32")
    given = ranking(
        "Bananas are yellow when they are ripe.", "", "Paris is the capital of France.", "Cats sleep a lot.",
        question="What is the capital of France?",
    )  # fmt: skip
    assert ids(QueryLikelihood(lm).apply([given])[0])[0] == "d2"
    stage = Pointwise(lm)  # with 135 million parameters its yes and no are worth little
    assert told(stage.apply([given])[0]).repaired == 0
    assert stage.words == (["yes", "Yes"], ["no", "No", "NO"])


# against a plain loop


TEXTS = ["a cat", "", "the dog sat on the mat", "x" * 60, "a cat", "naïve café"]


def exact(folder: Path, **options: Any) -> HF:
    return HF(str(folder), dtype="float32", **options)


def logits(folder: Path, text: str) -> Any:
    """At every place of a text, (T, vocabulary), computed alone and without padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        return ids, AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].double()


def test_verdicts_are_those_of_a_plain_loop(tiny_lm: Path) -> None:
    """Qwen3-Reranker's wording, with letters that the model knows in place of yes and no."""
    prompt = replace(read_short(tiny_lm), yes_words=("y", "Y", "yes"), no_words=("n", "no"))
    stage = Pointwise(exact(tiny_lm, batch_tokens=150), prompt)
    [made] = stage.apply([ranking(*TEXTS, question="which pet")])
    assert stage.words == (["y", "Y"], ["n"])
    by_id = {h.doc.id: h.score for h in made.hits}
    for i, text in enumerate(TEXTS):
        chat = f"<user>Q: which pet D: {text}</s><assistant><think>\n\n</think>\n\n"
        _, table = logits(tiny_lm, chat)
        yes, no = table[-1, [ord("y") - 33, ord("Y") - 33]].exp().sum(), table[-1, ord("n") - 33].exp()
        assert by_id[f"d{i}"] == pytest.approx((yes.log() - no.log()).item(), abs=1e-5)
    assert by_id["d0"] == pytest.approx(by_id["d4"], abs=1e-6)


def test_a_replay_from_a_cache_asks_nothing_and_says_the_same(tiny_lm: Path, tmp_path: Path) -> None:
    prompt = replace(read_short(tiny_lm), yes_words=("y", "Y", "yes"), no_words=("n", "no"))
    given = [ranking(*TEXTS)]
    made = [
        kind(Cached(lm, tmp_path / "c.sqlite", offline=offline), *more).apply(given)[0]
        for lm, offline in ((exact(tiny_lm), False), (Absent(exact(tiny_lm).identity), True))
        for kind, more in ((Pointwise, [prompt]), (QueryLikelihood, []))
    ]
    for asked, replayed in (made[::2], made[1::2]):
        assert (asked.hits, replace(told(asked), seconds=0)) == (replayed.hits, replace(told(replayed), seconds=0))


class Absent:
    """A model of which only the name is left."""

    def __init__(self, identity: str) -> None:
        self.identity = identity


def read_short(folder: Path) -> PointPrompt:
    """The official wording is too long for the tiny model's context."""
    file = folder / "short.yaml"
    file.write_text(
        'answer: verdict\nbegin: "<think>\\n\\n</think>\\n\\n"\nmessages: [{user: "Q: {query} D: {passage}"}]'
    )
    prompt = read(file)
    assert isinstance(prompt, PointPrompt)
    return prompt


def test_likelihoods_are_those_of_a_plain_loop(tiny_lm: Path) -> None:
    [made] = QueryLikelihood(exact(tiny_lm)).apply([ranking(*TEXTS, question="which pet")])
    by_id = {h.doc.id: h.score for h in made.hits}
    for i, text in enumerate(TEXTS):
        start = f"<user>Passage: {text}. Please write a question based on this passage.</s><assistant>"
        ids, table = logits(tiny_lm, start + "which pet")
        rows = table.log_softmax(-1)
        n = len("which pet")
        mean = sum(rows[place - 1, ids[place]].item() for place in range(len(ids) - n, len(ids))) / n
        assert by_id[f"d{i}"] == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("kind", [Pointwise, QueryLikelihood])
def test_a_score_does_not_depend_on_its_companions(tiny_lm: Path, kind: type[Pointwise | QueryLikelihood]) -> None:
    prompt = {"prompt": replace(read_short(tiny_lm), yes_words=("y",), no_words=("n",))} if kind is Pointwise else {}
    stage: OneByOne = kind(exact(tiny_lm), **prompt)
    given = ranking(*TEXTS)
    together = {h.doc.id: h.score for h in stage.apply([given, ranking("b" * 90, of="2")])[0].hits}
    backwards = {
        h.doc.id: h.score
        for h in stage.apply(
            [replace(given, hits=tuple(Hit(h.doc, float(i)) for i, h in reversed(list(enumerate(given.hits)))))]
        )[0].hits
    }
    alone = {h.doc.id: stage.apply([replace(given, hits=(h,))])[0].hits[0].score for h in given.hits}
    assert together == pytest.approx(alone, abs=1e-5)
    assert backwards == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", [Pointwise, QueryLikelihood])
def test_no_context_is_overrun(tiny_lm: Path, kind: type[Pointwise | QueryLikelihood]) -> None:
    prompt = {"prompt": replace(read_short(tiny_lm), yes_words=("y",), no_words=("n",))} if kind is Pointwise else {}
    for context in (140, 147, 155):
        [made] = kind(exact(tiny_lm, context=context), **prompt).apply([ranking("a b c d e f g h i j k " * 9)])
        assert told(made).cut == 1


def test_qwen3s_wording_word_for_word(tiny_lm: Path) -> None:
    """As the model card puts it together, prefix and suffix around the user's text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    prompt = Pointwise(Judge(), "qwen3_reranker").prompt
    chat = prompt.render("What is the capital of China?", ["The capital of China is Beijing."])
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + prompt.begin
    assert text == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: What is the capital of China?\n<Document>: The capital of China is Beijing."
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert (prompt.yes_words, prompt.no_words) == (("yes",), ("no",))


def test_qwen3s_yes_and_no_are_tokens_after_what_the_reply_begins_with(tiny_lm: Path, tmp_path: Path) -> None:
    """With the way that Qwen's tokenizer splits a text, two line ends stay together before a word."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    pairs = [("Ċ", "Ċ"), ("y", "e"), ("ye", "s"), ("n", "o")]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*letters, *("".join(pair) for pair in pairs)])}
    words = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.add_tokens(["<think>", "</think>"])
    shutil.copytree(tiny_lm, tmp_path, dirs_exist_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    assert Pointwise(HF(str(tmp_path)), "qwen3_reranker").words == (["yes"], ["no"])


def test_a_server_that_tells_its_likeliest_tokens() -> None:
    """Passages are rated by what it tells, those of which it tells neither yes nor no stay below."""

    def act(handler: Any, body: Any) -> None:
        passage = body["messages"][-1]["content"].partition("? ")[2]
        told = {"a": {"Yes": -1.0, "no": -2.0}, "b": {"yes": -0.5, "Yes": -3.0, "x": -1.0}, "c": {"x": -0.1}}[passage]
        rows = [{"token": token, "logprob": logprob} for token, logprob in told.items()]
        logprobs = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": rows}]}
        say(completion("x", logprobs=logprobs))(handler, body)

    with serving([act]) as server:
        [made] = Pointwise(Http("m", server.url, context=4096), PLAIN).apply([ranking("c", "a", "b")])
    assert ids(made) == ["d2", "d1", "d0"]
    assert scores(made) == pytest.approx([log(exp(-0.5) + exp(-3)) - UNRATED, 1.0, 0.0])
    assert told(made).repaired == 1
