"""The fakes answer the real chat, and the same chat the same way."""

from __future__ import annotations

from math import exp, inf

import pytest

from rankpipe.errors import ModelError
from rankpipe.lm import LM, Chat
from rankpipe.lm.fake import Noisy, Oracle, Scripted
from rankpipe.rerank.parse import parse
from rankpipe.rerank.prompts import PointPrompt, Prompt, chosen, named, ours, read

FAKES: list[LM] = [Oracle(len), Scripted(["a"]), Noisy()]  # mypy: they are what Listwise takes


def chat(*passages: str, query: str = "red fox") -> Chat:
    return named("rank_zephyr").render(query, passages)


def test_oracle_reads_the_passages() -> None:
    [said] = Oracle(len).complete([chat("aa", "", "aaaa", "a > b [x]")], max_tokens=20)
    assert said.text == "[4] > [3] > [1] > [2]"
    assert said.tokens_in == Oracle(len).count(chat("aa", "", "aaaa", "a > b [x]"))


def test_scripted_says_and_hears() -> None:
    lm = Scripted(["one", "two"])
    assert [c.text for c in lm.complete([chat("a"), chat("b")], max_tokens=5)] == ["one", "two"]
    assert "[1] b" in lm.heard[1]
    with pytest.raises(ModelError, match="has 2 replies"):
        lm.complete([chat("c")], max_tokens=5)


def test_noisy_without_noise_counts_the_querys_words() -> None:
    [said] = Noisy(noise=0).complete([chat("a blue fox", "nothing", "The Red FOX.")], max_tokens=20)
    assert said.text == "[3] > [1] > [2]"


@pytest.mark.parametrize("name", [n for n, file in ours().items() if isinstance(read(file), Prompt)])
def test_noisy_reads_every_prompt_of_ours(name: str) -> None:
    prompt = named(name)
    chats = [prompt.render("red fox", passages) for passages in (("a blue fox", "query: a fox"), ("a", "The Red FOX."))]
    replies = [prompt.read(c.text, 2) for c in Noisy(noise=0).complete(chats, max_tokens=20)]
    assert [r.order for r in replies] == [(0, 1), (1, 0)]
    assert not any(r.mended for r in replies)


def test_noise_is_of_the_seed_and_the_chat() -> None:
    chats = [chat("a", "b", "c", "d", "e", query=f"q{i}") for i in range(20)]
    one, other = Noisy(noise=1, seed=1), Noisy(noise=1, seed=2)
    together = one.complete(chats, max_tokens=20)
    assert [one.complete([c], max_tokens=20)[0] for c in reversed(chats)] == list(reversed(together))
    assert together != other.complete(chats, max_tokens=20)


def test_malformed_in_every_way() -> None:
    chats = [chat("a", "b", "c", "d", query=f"q{i}") for i in range(60)]
    replies = [parse(c.text, 4) for c in Noisy(malformed=1).complete(chats, max_tokens=20)]
    kinds = {(r.missing > 0, r.repeated > 0, r.foreign > 0, r.wrong_format) for r in replies}
    assert kinds == {
        (True, False, False, False),
        (True, True, False, False),
        (False, False, True, False),
        (False, False, False, True),
        (True, False, False, True),
    }
    some = [parse(c.text, 4) for c in Noisy(malformed=0.3).complete(chats, max_tokens=20)]
    assert 5 < sum(r.mended or r.wrong_format for r in some) < 35


def test_too_long_and_no_query() -> None:
    with pytest.raises(ModelError, match=r"\d+ tokens and a reply of 20 do not fit into 100"):
        Noisy(context=100).complete([chat("a")], max_tokens=20)
    with pytest.raises(ModelError, match="query: "):
        Noisy().complete([[{"role": "user", "content": "[1] a"}]], max_tokens=20)


@pytest.mark.parametrize("name", ["pointwise", "qwen3_reranker"])
def test_noisy_says_yes_and_no(name: str) -> None:
    prompt = chosen(name, PointPrompt, "verdict")
    chats = [prompt.render("red fox", [passage]) for passage in ("a blue fox", "nothing", "The Red FOX.")]
    said = Noisy(noise=0).choose(chats, ["yes", "Yes", "no"])
    shares = [(exp(c.logprobs[0]) + exp(c.logprobs[1]), exp(c.logprobs[2])) for c in said]
    assert shares == [pytest.approx((p, 1 - p)) for p in (0.5, 0.01, 0.99)]
    [silent] = Noisy(malformed=1).choose(chats[:1], ["yes", "no"])
    assert silent.logprobs == (-inf, -inf)
