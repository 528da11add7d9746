"""The class for servers against vLLM's own: it answers as vLLM in this process does, on a good line and a bad one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

from rankpipe.errors import ModelError
from rankpipe.lm import Chat
from rankpipe.lm.http import Http
from rankpipe.lm.vllm import VLLM
from rankpipe.lm.wire import Manners
from tests.lm.server import Act, Handler, Server, hang_up, reset, say, serving, stall

CLOSE = 1e-3  # of log-probabilities, in single precision
LABELS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
WHOLE_S = 60  # longer than a reply takes on a busy machine
CHATS: list[Chat] = [
    [{"role": "system", "content": "You are brief."}, {"role": "user", "content": f"Where is {place}?"}]
    for place in ("Paris", "Kyoto", "Lima", "the " * 300 + "moon")
]


def client(url: str, tries: int = 3, whole_s: float = WHOLE_S) -> Http:
    return Http("smollm2", url, manners=Manners(parallel=4, tries=tries, wait_s=0.05, whole_s=whole_s))


def test_replies_are_those_of_vllm_in_this_process(server: str, vllm: VLLM) -> None:
    http = client(server)
    said = http.complete(CHATS, max_tokens=16)
    assert said == vllm.complete(CHATS, max_tokens=16)
    assert http.totals.answers == len(CHATS)
    assert http.totals.tokens_out == sum(c.tokens_out for c in said)


def test_so_are_choices_every_one_of_them(server: str, vllm: VLLM) -> None:
    """26 labels, and the likeliest 20 of all tokens would hardly have one of them."""
    both = [lm.choose(CHATS, LABELS, begin="[") for lm in (client(server), vllm)]
    for theirs, ours in zip(*both, strict=True):
        assert theirs.logprobs == pytest.approx(ours.logprobs, abs=CLOSE)
        assert theirs.tokens_in == ours.tokens_in


def test_so_is_what_is_counted(server: str, vllm: VLLM) -> None:
    http = client(server)
    assert http.context == vllm.context
    assert [http.count(chat) for chat in CHATS] == [vllm.count(chat) for chat in CHATS]
    assert [http.is_token(text, begin="[") for text in ("A", "ABXQ")] == [True, False]


def test_what_the_server_refuses_is_not_tried_again(server: str) -> None:
    http = client(server)
    with pytest.raises(ModelError, match=r"400 Bad Request: .*4096"):
        http.complete([[{"role": "user", "content": "word " * 5000}]], max_tokens=9)
    assert http.wire.requests == 1
    with pytest.raises(ModelError, match=r"404 Not Found: .*nobody"):
        Http("nobody", server).complete(CHATS[:1], max_tokens=9)


def forward(url: str) -> Act:
    """Hand the request on to the real server, and its reply back."""

    def act(handler: Handler, body: Any) -> None:
        handler.send(200, _reply(url, handler, body))

    return act


def truncated(url: str) -> Act:
    """Half of the real reply, as if it were the whole."""

    def act(handler: Handler, body: Any) -> None:
        content = _reply(url, handler, body)
        handler.send(200, content[: len(content) // 2])

    return act


def broken_off(url: str) -> Act:
    """Half of the real reply; the other half was promised."""

    def act(handler: Handler, body: Any) -> None:
        content = _reply(url, handler, body)
        handler.send(200, content[: len(content) // 2], promised=len(content))

    return act


def _reply(url: str, handler: Handler, body: Any) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url.removesuffix("/v1") + handler.path, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=WHOLE_S) as reply:
        content: bytes = reply.read()
    return content


def mishaps(url: str) -> dict[str, Act]:
    busy = {"error": {"message": "too many requests"}}
    return {
        "reset": reset,
        "hung up": hang_up,
        "429": say(busy, 429, Retry_After="1"),
        "500": say({"error": {"message": "out of order"}}, 500),
        "truncated JSON": truncated(url),
        "broken off": broken_off(url),
        "stalled": stall,
    }


NAMES = [*mishaps("")]


@contextmanager
def behind(url: str, *acts: Act) -> Iterator[Server]:
    """A proxy before the real server, on which chat completions go as told."""
    well = forward(url)
    with serving([*acts], models=[well], tokenize=[well]) as proxy:
        yield proxy


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_line_changes_no_answer(server: str, vllm: VLLM, name: str) -> None:
    """The first two requests go wrong."""
    bad = mishaps(server)[name]
    whole_s = 15 if name == "stalled" else WHOLE_S
    with behind(server, bad, bad, forward(server)) as proxy:
        http = client(proxy.url, whole_s=whole_s)
        assert http.complete(CHATS[:2], max_tokens=8) == vllm.complete(CHATS[:2], max_tokens=8)
        assert len(proxy.bodies()) == 4
        assert http.totals.answers == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_line_that_stays_bad_is_given_up(server: str, name: str) -> None:
    with behind(server, mishaps(server)[name]) as proxy:
        http = client(proxy.url, tries=2, whole_s=2 if name == "stalled" else WHOLE_S)
        with pytest.raises(ModelError, match=r"chat/completions: .*tried 2 times"):
            http.complete(CHATS[:1], max_tokens=8)
        assert len(proxy.bodies()) == 2


def test_choices_on_a_bad_line(server: str, vllm: VLLM) -> None:
    with behind(server, truncated(server), reset, forward(server)) as proxy:
        [said] = client(proxy.url).choose(CHATS[:1], LABELS, begin="[")
    [ours] = vllm.choose(CHATS[:1], LABELS, begin="[")
    assert said.logprobs == pytest.approx(ours.logprobs, abs=CLOSE)
