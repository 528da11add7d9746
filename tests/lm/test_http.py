"""A model on a server answers as one in this process: in order, no more at once than agreed, every token counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf, log
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import LM, Chat
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Noisy
from rankpipe.lm.http import Http, Totals
from rankpipe.lm.wire import Manners
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.first import First
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.pointwise import Pointwise
from rankpipe.rerank.prompts import named
from rankpipe.stage import Reranker
from tests.lm.server import Handler, completion, echo, say, serving, well


def ask(text: str) -> Chat:
    return [{"role": "system", "content": "s"}, {"role": "user", "content": text}]


def rated(*top: tuple[str, float], **more: Any) -> dict[str, Any]:
    told = [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in top]
    return completion("A", tokens_out=1, logprobs={"content": [{**told[0], "top_logprobs": told}]}, **more)


class Behind:
    """Any of our models, behind HTTP as vLLM would serve it."""

    def __init__(self, lm: LM) -> None:
        self.lm = lm

    def chat(self, handler: Handler, body: Any) -> None:
        handler.send(200, json.dumps(self.rate(body) if body.get("logprobs") else self.write(body)).encode())

    def write(self, body: Any) -> dict[str, Any]:
        [said] = self.lm.complete([body["messages"]], max_tokens=body["max_tokens"])
        return completion(said.text, said.tokens_in, said.tokens_out)

    def rate(self, body: Any) -> dict[str, Any]:
        *chat, start = body["messages"]
        prefilled = (start["role"], body["continue_final_message"], body["add_generation_prompt"])
        assert prefilled == ("assistant", True, False)
        labels = [chr(c) for c in range(ord("A"), ord("Z") + 1)]
        [said] = self.lm.choose([chat], labels, begin=start["content"])
        best = sorted(zip(said.logprobs, labels, strict=True), reverse=True)
        ids = body.get("logprob_token_ids")
        best = [(p, c) for p, c in best if ord(c) in ids] if ids else best[: body["top_logprobs"]]
        return rated(*((label, max(logprob, -9999.0)) for logprob, label in best), tokens_in=said.tokens_in)

    def tokenize(self, handler: Handler, body: Any) -> None:
        ids = [0] * self.lm.count(body["messages"]) if "messages" in body else [ord(c) for c in body["prompt"]]
        told = {"tokens": ids, "count": len(ids), "max_model_len": self.lm.context}
        handler.send(200, json.dumps(told).encode())

    def models(self, handler: Handler, body: Any) -> None:
        handler.send(200, json.dumps({"data": [{"id": "m", "max_model_len": self.lm.context}]}).encode())


class Agreeing(Behind):
    """Says yes, a word of one token."""

    def rate(self, body: Any) -> dict[str, Any]:
        return rated(("yes", -0.1))

    def tokenize(self, handler: Handler, body: Any) -> None:
        super().tokenize(handler, {"prompt": "y" * bool(body["prompt"])} if "prompt" in body else body)


def rankings() -> list[Ranking]:
    words = ["tea", "leaves", "steep", "three", "minutes", "glue", "patch", "tube", "bike", "wheel"]
    docs = [Doc(f"d{i}", " ".join(words[i % 7 : i % 7 + 4]) + f" {i}" * (3 * i % 10)) for i in range(30)]
    return [
        Ranking(Query(f"q{i}", q), tuple(Hit(d, 30.0 - r) for r, d in enumerate(docs)))
        for i, q in enumerate(["tea leaves", "patch a tube", "bike wheel glue"])
    ]


@pytest.mark.parametrize("kind", [Listwise, First])
def test_a_rerank_over_http_is_the_same(kind: type[Reranker]) -> None:
    here = Noisy(noise=0.3, malformed=0.2, context=350)
    behind = Behind(here)
    with serving([behind.chat], tokenize=[behind.tokenize], models=[behind.models]) as server:
        there = Http("m", server.url)
        over, direct = kind(there).run(rankings()), kind(here).run(rankings())  # type: ignore[call-arg]
    assert [[h.doc.id for h in r.hits] for r in over] == [[h.doc.id for h in r.hits] for r in direct]
    assert [r.steps[-1] for r in over] == [r.steps[-1] for r in direct]
    assert over[0].steps[-1].cut > 0  # so that counting is part of it
    assert there.totals.tokens_in == sum(r.steps[-1].tokens_in for r in over)
    assert server.most <= 8


@pytest.mark.parametrize("kind", [Listwise, Pointwise])
@pytest.mark.parametrize("budget", [Budget(calls=90), Budget(tokens=10**6)])
def test_what_surely_fits_is_counted_for_a_budget_only(kind: type[Reranker], budget: Budget) -> None:
    behind = Agreeing(Noisy(context=20_000))
    with serving([behind.chat], tokenize=[behind.tokenize], models=[behind.models]) as server:
        kind(Http("m", server.url), budget=budget).run(rankings())  # type: ignore[call-arg]
    counted = [body.get("messages") for body in server.bodies("/tokenize")]
    shown = [body["messages"] for body in server.bodies()]
    assert len(shown) == (6 if kind is Listwise else 90)
    assert {chat in counted for chat in shown} == {budget.tokens is not None}


def test_windows_of_several_queries_are_counted_at_once(tmp_path: Path) -> None:
    behind, three = Behind(Noisy(context=1500)), Barrier(3, timeout=20)

    def tokenize(handler: Handler, body: Any) -> None:
        if len(str(body)) > 1500:  # a window, which may be too long
            three.wait()
        behind.tokenize(handler, body)

    with serving([behind.chat], tokenize=[tokenize], models=[behind.models]) as server:
        lm = Http("m", server.url, manners=Manners(parallel=3, tries=1))
        Listwise(Cached(lm, tmp_path / "c.sqlite")).run(rankings())
    assert len(server.bodies()) == 6
    assert lm.totals.estimated == 0  # no count has failed


def test_in_order_and_as_many_at_once_as_agreed_but_no_more() -> None:
    three = Barrier(3, timeout=60)  # none is answered before two others are there

    def together(handler: Handler, body: Any) -> None:
        three.wait()
        echo(handler, body)

    with serving([together]) as server:
        lm = Http("m", server.url, price=(2.0, 10.0), manners=Manners(parallel=3))
        said = lm.complete([ask(f"chat {i}") for i in range(39)], max_tokens=7)
    assert [c.text for c in said] == [f"CHAT {i}" for i in range(39)]
    assert (said[12].tokens_in, said[12].tokens_out) == (7, 2)
    assert server.most == 3
    tokens_in = 10 * 6 + 29 * 7
    assert lm.totals == Totals(39, 39, tokens_in, 78, (tokens_in * 2 + 78 * 10) / 1e6)


def test_several_callers_share_what_is_agreed() -> None:
    with serving([echo]) as server, ThreadPoolExecutor(4) as callers:
        lm = Http("m", server.url, manners=Manners(parallel=2))
        said = callers.map(lambda n: lm.complete([ask(f"{n} {i}") for i in range(6)], max_tokens=7), range(4))
        assert [c.text for batch in said for c in batch] == [f"{n} {i}" for n in range(4) for i in range(6)]
    assert server.most == 2


def test_what_is_sent() -> None:
    with serving([well()]) as server:
        Http("m", server.url).complete([ask("a")], max_tokens=7)
        named = Manners(limit="max_completion_tokens")
        Http("m", server.url, parameters={"temperature": None, "seed": 1}, manners=named).complete(
            [ask("a")], max_tokens=7
        )
    assert server.bodies() == [
        {"model": "m", "messages": ask("a"), "temperature": 0, "max_tokens": 7},
        {"model": "m", "messages": ask("a"), "seed": 1, "max_completion_tokens": 7},
    ]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (completion("[1] > [", finish_reason="length"), "[1] > ["),
        (completion(""), ""),
        (completion(None), ""),
    ],
)
def test_replies_that_are_none_too_good_are_replies(reply: dict[str, Any], text: str) -> None:
    with serving([say(reply)]) as server:
        [said] = Http("m", server.url).complete([ask("a")], max_tokens=3)
    assert (said.text, said.tokens_in, said.tokens_out) == (text, 10, 5)


@pytest.mark.parametrize("content", [None, ""])
def test_a_reply_that_never_began_is_an_error(content: str | None) -> None:
    cut = completion(content, finish_reason="length", tokens_out=3)
    cut["choices"][0]["message"]["reasoning"] = "hm"
    with (
        serving([say(cut)]) as server,
        pytest.raises(ModelError, match=r"m: broken off after 3 tokens, before .* needs more room than thinking=0"),
    ):
        Http("m", server.url).complete([ask("a")], max_tokens=3)
    assert len(server.asked) == 1


def test_thoughts_have_room_of_their_own() -> None:
    with serving([well()], models=[models({"id": "m", "max_model_len": 4096})]) as server:
        lm = Http("m", server.url, thinking=1000)
        assert (lm.context, Http("m", server.url, context=2000, thinking=1000).context) == (3096, 1000)
        lm.complete([ask("a")], max_tokens=7)
        assert server.bodies()[0]["max_tokens"] == 1007
        assert lm.identity == f"{Http('m', server.url).identity} thinking 1000"
        with pytest.raises(ModelError, match="thinks before it answers, so that what comes next is no answer"):
            lm.choose([ask("a")], ["A"])
        with pytest.raises(ModelError, match="its context is 4096 tokens, of which thinking=4096 leaves none"):
            _ = Http("m", server.url, thinking=4096).context
    with pytest.raises(RecipeError, match="thinking=-1: a number of tokens, 0 or more"):
        Http("m", thinking=-1)


@pytest.mark.parametrize(
    ("reply", "apart", "order"),
    [
        ("is it 3, or 2?</think>\n[1] > [2] > [3]", "", (0, 1, 2)),  # the template began the thought
        ("<think>is it 3, or 2?</think>[1] > [3", "", (0, 2, 1)),
        ("is it 3, or 2", "", (0, 1, 2)),  # ... and the thought never ended
        ("[3] > [2", "is it 3?", (2, 1, 0)),  # the server told them apart
    ],
)
def test_thoughts_are_not_read_for_an_answer(reply: str, apart: str, order: tuple[int, ...]) -> None:
    cut = completion(reply, finish_reason="length")
    cut["choices"][0]["message"]["reasoning_content"] = apart or None
    with serving([say(cut)]) as server:
        [said] = Http("m", server.url, thinking=4).complete([ask("a")], max_tokens=4)
    assert named("rank_zephyr").read(said.text, 3).order == order


def test_nothing_asked_nothing_sent() -> None:
    lm = Http("m", "http://127.0.0.1:9/v1")
    assert list(lm.complete([], max_tokens=3)) == list(lm.choose([], [])) == []


def test_choices_are_rated_as_far_as_the_server_tells() -> None:
    """Of tokens that read alike (▁A and A decode to the same) the likeliest counts; a blank or a small letter not."""
    reply = rated(("B", -0.1), (" A", -0.2), ("A", -1.5), ("a", -1.7), ("A", -1.2), ("D", -9999.0))
    with serving([say(reply)]) as server:
        lm = Http("m", server.url, parameters={"top_logprobs": 30})
        [said] = lm.choose([ask("a")], ["A", "B", "C", "D"], begin="[")
        assert said.logprobs == (-1.2, -0.1, -inf, -inf)
        assert said.tokens_in == 10
        lm.choose([ask("a")], ["A"])
    body = {"model": "m", "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 30}
    prefill = {"continue_final_message": True, "add_generation_prompt": False}
    start = {"role": "assistant", "content": "["}
    assert server.bodies() == [{**body, **prefill, "messages": [*ask("a"), start]}, {**body, "messages": ask("a")}]
    assert lm.totals.tokens_out == 2


def test_vllm_is_asked_for_the_choices_themselves() -> None:
    behind = Behind(Noisy(noise=0))
    chats = [named("first").render("tea", ["bike", "tea", "cup"])]
    parameters = {"top_logprobs": 1}
    with serving([behind.chat]) as other, serving([behind.chat], tokenize=[behind.tokenize]) as vllm:
        [few] = Http("m", other.url, parameters=parameters).choose(chats, list("ABC"), begin="[")
        [all_of_them] = Http("m", vllm.url, parameters=parameters).choose(chats, list("ABC"), begin="[")
    assert [logprob > -inf for logprob in few.logprobs] == [False, True, False]
    assert [all_of_them] == behind.lm.choose(chats, list("ABC"), begin="[")
    assert "logprob_token_ids" not in other.bodies()[0]
    assert vllm.bodies()[0]["logprob_token_ids"] == [65, 66, 67]


@pytest.mark.parametrize(("begin", "first"), [("[", "["), ("<think>\n\n</think>\n\n", "<think>"), ("Passage", "Pass")])
def test_a_server_that_does_not_go_on_from_the_beginning(begin: str, first: str) -> None:
    """It begins itself, where FIRST wants to know how the labels are rated after that."""
    with (
        serving([say(rated(("C", -7.0), (first, -0.01), ("A", -8.0)))]) as server,
        pytest.raises(ModelError, match=r"m: the reply .* ignores continue_final_message; take a server that has it"),
    ):
        Http("m", server.url).choose([ask("a")], ["A", "B", "C"], begin=begin)
    assert len(server.asked) == 1 + 1  # the server does not count tokens


@pytest.mark.parametrize(
    ("begin", "top"),
    [
        ("[", [("C", -0.1), ("[", -0.2), ("A", -8.0)]),
        ("", [("[", -0.1), ("C", -0.2), ("A", -8.0)]),
        ("[", [("", -0.1), ("C", -0.2), ("A", -8.0)]),  # a mark of the chat
        ("Choice:", [("C", -0.1), ("A", -8.0)]),
    ],
)
def test_a_server_that_may_well_go_on(begin: str, top: list[tuple[str, float]]) -> None:
    with serving([say(rated(*top))]) as server:
        [said] = Http("m", server.url).choose([ask("a")], ["A", "C"], begin=begin)
    assert said.logprobs == (-8.0, dict(top)["C"])


def test_probabilities_come_through_exactly() -> None:
    values = [log(p) for p in (0.5, 0.3, 0.1 + 0.2 - 0.3 + 1e-9)]
    with serving([say(rated(*zip("ABC", values, strict=True)))]) as server:
        [said] = Http("m", server.url).choose([ask("a")], list("ABC"))
    assert list(said.logprobs) == values


@pytest.mark.parametrize("logprobs", [None, {"content": None}, {"content": []}, {"content": [{"token": "A"}]}])
def test_a_server_without_probabilities(logprobs: Any) -> None:
    with (
        serving([say(completion("A", logprobs=logprobs))]) as server,
        pytest.raises(ModelError, match="m: the server tells no log-probabilities; it said"),
    ):
        Http("m", server.url).choose([ask("a")], ["A"])
    assert len(server.bodies()) == 1


def test_a_label_of_two_tokens_is_refused_before_anything_is_paid() -> None:
    behind = Behind(Noisy())
    with (
        serving([behind.chat], tokenize=[behind.tokenize]) as server,
        pytest.raises(ModelError, match=r"m: '10' after '\[' is no single token; take other labels"),
    ):
        Http("m", server.url).choose([ask("a")], ["1", "10"], begin="[")
    assert server.bodies() == []


def test_likelihood_is_refused() -> None:
    with pytest.raises(ModelError, match="m: a server cannot say how likely a whole reply is"):
        Http("m").likelihood([ask("a")], ["b"])


def models(*served: dict[str, Any]) -> Any:
    return say({"object": "list", "data": list(served)})


def test_the_context_is_the_servers_or_the_one_given() -> None:
    with serving(models=[models({"id": "base", "max_model_len": 9}, {"id": "m", "max_model_len": 4096})]) as server:
        lm = Http("m", server.url)
        assert [lm.context for _ in range(3)] == [4096] * 3
        assert Http("m", server.url, context=2000).context == 2000
    assert [path for path, _, _ in server.asked] == ["/v1/models"]


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (models({"id": "llama-3", "max_model_len": 9}, {"id": "b"}), "no model 'lama-3'; did you mean llama-3.*, b"),
        (models({"id": "lama-3", "owned_by": "openai"}), "not say how long the context of lama-3 is; give context="),
        (models({"id": "lama-3", "max_model_len": -1}), "not say how long the context"),
        (models({"id": "lama-3", "max_model_len": True}), "not say how long the context"),
        (say({"data": {"id": 3}}), "no list of models"),
        (say({"data": [3]}), "no list of models"),
    ],
)  # fmt: skip
def test_a_context_that_is_not_told(served: Any, said: str) -> None:
    with serving(models=[served]) as server, pytest.raises(ModelError, match=said):
        _ = Http("lama-3", server.url, manners=Manners(tries=1)).context


def test_identity_is_what_decides_the_reply() -> None:
    """Where the model is served, too: another server may have another one under the same name."""
    url = "http://127.0.0.1:1/v1"
    plain = Http("m", url)
    same = Http("m", f"{url}/", "KEY", 4096, Path("t"), (1, 2), manners=Manners(limit="max_completion_tokens"))
    assert plain.identity == same.identity
    others = [
        Http("n", url),
        Http("m", "http://127.0.0.1:2/v1"),
        Http("m", url, parameters={"seed": 1}),
        Http("m", url, thinking=1),
    ]
    assert len({lm.identity for lm in (plain, *others)}) == 5


@pytest.mark.parametrize(
    "options",
    [{"context": 0}, {"price": [1]}, {"price": [1, -1]}, {"parameters": {"stream": True}}, {"parameters": {"n": 2}}],
)
def test_arguments_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"two numbers|cannot be set"):
        Http("m", **options)


def test_telling_is_the_same_model() -> None:
    told: list[tuple[int, str]] = []

    def hear(place: int, answer: Any) -> None:
        told.append((place, answer.text))

    chats: Sequence[Chat] = [ask(str(i)) for i in range(5)]
    with serving([echo]) as server:
        lm = Http("m", server.url)
        lm.telling(hear).complete(chats, max_tokens=5)
        lm.complete(chats, max_tokens=5)
    assert sorted(told) == [(i, str(i)) for i in range(5)]
    assert lm.totals.answers == 10


def test_written_in_a_recipe() -> None:
    node = {
        "use": "listwise",
        "lm": {"use": "http", "model": "m", "url": "http://127.0.0.1:1/v1", "key": "SOME_KEY", "price": [0.1, 0.4],
               "parameters": {"chat_template_kwargs": {"enable_thinking": False}},
               "manners": {"use": "manners", "parallel": 2, "whole_s": 30}},
    }  # fmt: skip
    assert recipe.check(node) == []
    lm = recipe.build(node, Path.cwd()).lm
    assert (lm.wire.manners.parallel, lm.parameters["chat_template_kwargs"]) == (2, {"enable_thinking": False})
    node["lm"]["manners"]["limit"] = "max_length"
    assert "is not one of max_tokens" in recipe.check(node)[0]
