"""A server that stalls, breaks off, refuses or stutters; what is asked again, how often, and after which wait."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event, Lock
from typing import Any

import pytest

from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import Chat, Choice, Completion
from rankpipe.lm.due import within
from rankpipe.lm.http import Http
from rankpipe.lm.wire import Fault, Manners, Refusal, Wire
from rankpipe.lm.words import words
from rankpipe.progress import listening
from tests.heard import Heard
from tests.lm.server import (
    Act,
    Handler,
    break_off,
    chunked,
    completion,
    drip,
    flood,
    gone,
    hang_up,
    reset,
    say,
    serving,
    stall,
    well,
)

SECRET = "sk-not-for-anybody-0123456789"
ASKED: Chat = [{"role": "user", "content": "hello"}]


def patient(naps: list[float], **options: Any) -> Manners:
    """Waits no real time, and notes how long it would have."""
    return Manners(sleep=lambda _, s: naps.append(s), chance=lambda: 0.0, **{"whole_s": 60, **options})


def one(lm: Http) -> str:
    [said] = lm.complete([ASKED], max_tokens=9)
    return said.text


@contextmanager
def failing(match: str) -> Iterator[pytest.ExceptionInfo[ModelError]]:
    with pytest.raises(ModelError, match=match) as caught:
        yield caught


def test_whatever_happens_it_is_asked_again() -> None:
    naps: list[float] = []
    mishaps: list[Act] = [
        stall, reset, hang_up, break_off, say(b'{"choices": [{'), say({"choices": []}), say(["what?"]),
        say({"error": {"message": "busy"}}), say("overloaded", 529), say(b"<html>", 502), say({}, 500), say({}, 408),
        say({}, 409), say({"error": {"message": "slow down"}}, 429, Retry_After="17"),
    ]  # fmt: skip
    with serving([*mishaps, well("at last")]) as server:
        lm = Http("m", server.url, manners=patient(naps, tries=15, whole_s=3, longest_s=20))
        assert one(lm) == "at last"
    assert len(server.asked) == lm.totals.requests == 15
    assert naps == [1, 2, 4, 8, 16, 20, 20, 20, 20, 20, 20, 20, 20, 20]
    assert (lm.totals.answers, lm.totals.tokens_in) == (1, 10)


@pytest.mark.parametrize(
    ("mishap", "said"),
    [
        (stall, r"no whole reply within 0\.3 s"),
        (drip, r"no whole reply within 0\.3 s"),
        (reset, "ConnectionResetError"),
        (hang_up, "RemoteDisconnected"),
        (break_off, "the reply breaks off, 20 bytes before its end"),
        (say(b'{"choices": [{'), r"the reply is no JSON: '{\"choices\": \[{'"),
        (say(b"\xff\xfe[1] > [2]"), "the reply is no JSON"),
        (say({"choices": [{"message": 3}], "usage": {}}), r"no chat completion with its usage, but .*\"message\": 3"),
        (say({**completion("x"), "usage": None}), "no chat completion with its usage"),
        (say({**completion("x"), "usage": {"prompt_tokens": "3", "completion_tokens": 1}}), "usage"),
        (well(tokens_in=-3), "usage {'prompt_tokens': -3"),
        (well(tokens_in=True), "usage {'prompt_tokens': True"),
        (well(tokens_out=-1), "'completion_tokens': -1"),
        (well(tokens_out=False), "'completion_tokens': False"),
        (say(completion("x", message={"content": [1]})), "content is no text"),
        (say(completion("x", finish_reason="error")), "ends with 'error'"),
        (say({"error": {"message": "model 2 not found", "code": 7}}, 500), "500 Internal .*: model 2 not found"),
        (say(b"", 503), "503 Service Unavailable: without a word"),
    ],
)  # fmt: skip
def test_after_the_last_try_it_is_an_error_with_the_servers_words(mishap: Act, said: str) -> None:
    """RankLLM takes such words for the reply, and reorders the passages by the numbers in them."""
    naps: list[float] = []
    with serving([mishap]) as server:
        whole_s = 0.3 if mishap in (stall, drip) else 60
        lm = Http("m", server.url, manners=patient(naps, tries=3, whole_s=whole_s))
        with failing(said) as caught:
            one(lm)
    assert str(caught.value).startswith(f"{server.url}/chat/completions: ")
    assert "tried 3 times" in str(caught.value)
    assert (len(server.asked), naps) == (3, [1, 2])


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422, 501])
def test_a_refusal_is_final(status: int) -> None:
    naps: list[float] = []
    act = say({"error": {"message": "at most 4096\n tokens"}}, status, Location="http://127.0.0.1:9/v1")
    with serving([act]) as server, failing(f"{status} .*: at most 4096 tokens$"):
        one(Http("m", server.url, manners=patient(naps)))
    assert (len(server.asked), naps) == (1, [])


def test_headers_that_drip_are_not_waited_for() -> None:
    sent: list[str] = []

    def drip_headers(handler: Handler, body: Any) -> None:
        handler.send_response(200)
        handler.flush_headers()
        for letter in f"X-Slow: {'z' * 50}\r\n\r\n":
            if handler.server.over.wait(0.05):
                break
            handler.wfile.write(letter.encode())
            sent.append(letter)

    with serving([drip_headers]) as server, failing(r"no whole reply within 0\.3 s"):
        one(Http("m", server.url, manners=patient([], tries=1, whole_s=0.3)))
    assert len(sent) < 60  # it has hung up


def test_a_reply_without_end_is_not_kept_or_asked_for_again() -> None:
    with serving([flood]) as server, failing("a reply of more than 67108864 bytes; is this the address"):
        one(Http("m", server.url, manners=patient([])))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "choice", [{"message": {"content": None, "refusal": "I will not"}}, {"finish_reason": "content_filter"}]
)
def test_a_model_that_refuses_is_not_pressed(choice: dict[str, Any]) -> None:
    with serving([say(completion("I will not", **choice))]) as server, failing("m: refused .*I will not"):
        one(Http("m", server.url))
    assert len(server.asked) == 1


def test_who_was_never_there_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    naps: list[float] = []
    lm = Http("m", f"http://127.0.0.1:{port}/v1", manners=patient(naps))
    with failing(r"ConnectionRefusedError: .*; is the server up, and this its address\?$"):
        lm.complete([ASKED] * 20, max_tokens=9)
    assert naps == []


def test_who_was_there_is_waited_for() -> None:
    naps: list[float] = []
    with serving([well()]) as server:
        lm = Http("m", server.url, manners=patient(naps, tries=3))
        one(lm)
    with failing("ConnectionRefusedError.*tried 3 times"):
        one(lm)
    assert naps == [1, 2]


def test_connections_are_used_again() -> None:
    """Whatever the reply was, as long as it was read whole."""
    no = say({"error": "no"}, 500)
    with serving([well(), no, say(b"no JSON"), no, well()], alive=True) as server:
        lm = Http("m", server.url, manners=patient([], parallel=3))
        assert one(lm) == one(lm) == "fine"
        assert len(server.connections) == 1
        for _ in range(3):
            lm.complete([ASKED] * 7, max_tokens=9)
        assert len(server.asked) == lm.totals.requests == 5 + 3 * 7
        assert len(server.connections) <= 3


def test_a_connection_that_was_closed_meanwhile_is_no_fault() -> None:
    """With a single try any would be an error; only what breaks off inside a reply is one."""
    with serving([gone(well())] * 3 + [well(), gone(break_off)], alive=True) as server:
        lm = Http("m", server.url, manners=patient([], tries=1))
        assert [one(lm) for _ in range(4)] == ["fine"] * 4
        assert (len(server.connections), lm.totals.requests) == (4, 4)
        with failing("the reply breaks off, 20 bytes before its end"):
            one(lm)
        assert (len(server.connections), lm.totals.requests) == (4, 5)


@pytest.mark.parametrize("change", [{"pid": -1}, {"since": -1e9}])
def test_a_connection_of_another_process_or_long_ago_is_not_used(change: dict[str, Any]) -> None:
    with serving([well()], alive=True) as server:
        lm = Http("m", server.url)
        one(lm)
        [idle] = lm.wire._connections._idle
        lm.wire._connections._idle[:] = [idle._replace(**change)]
        one(lm)
        assert len(server.connections) == 2
        assert idle.connection.sock is None


def test_a_connection_that_does_not_come_about() -> None:
    """A full backlog: the system neither takes the connection nor refuses it."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy:
        waiting = [socket.socket() for _ in range(4)]
        try:
            for s in waiting:
                s.setblocking(False)
                s.connect_ex(busy.getsockname())
            start = time.monotonic()
            with failing(r"no connection within 0\.2 s \(tried once\)"):
                one(Http("m", f"http://127.0.0.1:{busy.getsockname()[1]}", manners=patient([], tries=1, connect_s=0.2)))
            assert time.monotonic() - start < 3
        finally:
            for s in waiting:
                s.close()


def test_a_reply_in_chunks() -> None:
    with serving([chunked]) as server:
        lm = Http("m", server.url, manners=patient([], tries=1))
        assert one(lm) == one(lm) == "in pieces"


def test_waits_double_are_bounded_and_up_to_half_chance() -> None:
    manners = Manners(wait_s=2, longest_s=30, chance=lambda: 1.0)
    assert [manners.wait(n, 0) for n in (1, 2, 3, 4, 5, 2000)] == [1, 2, 4, 8, 15, 15]
    assert manners.wait(1, 25) == 25
    assert all(15 <= Manners(longest_s=30).wait(9, 0) <= 30 for _ in range(50))


def test_what_the_server_asks_to_wait() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    naps: list[float] = []
    script = [say({}, 429, Retry_After=after) for after in ("30", soon, past, "soon", "-3", "")]
    with serving([*script, well()]) as server:
        one(Http("m", server.url, manners=patient(naps, tries=9)))
    assert naps[0] == 30
    assert 40 < naps[1] <= 50
    assert naps[2:] == [4, 8, 16, 32]


def test_a_server_that_asks_for_too_much_is_given_up() -> None:
    naps: list[float] = []
    said = r"429 Too Many Requests: quota \(tried once; it asks to wait 3600 s, and longest_s is 60\)"
    with serving([say({"detail": "quota"}, 429, Retry_After="3600")]) as server, failing(said):
        one(Http("m", server.url, manners=patient(naps)))
    assert (len(server.asked), naps) == (1, [])


def test_after_a_failure_for_good_nothing_is_begun_or_waited_for() -> None:
    def act(handler: Any, body: Any) -> None:
        bad = body["messages"][0]["content"] == "0"
        time.sleep(0.1 if bad else 0)
        handler.send(400 if bad else 500, b"no")

    chats: list[Chat] = [[{"role": "user", "content": str(i)}] for i in range(50)]
    start = time.monotonic()
    with serving([act]) as server, failing("400 Bad Request: no"):
        Http("m", server.url, manners=Manners(parallel=4, wait_s=30)).complete(chats, max_tokens=5)
    assert time.monotonic() - start < 5
    assert len(server.asked) == 4


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by a server that repeats it, in whatever way."""
    monkeypatch.setenv("SOME_KEY", f" {SECRET}\n")

    def tell(handler: Any, body: Any) -> None:
        sent = handler.headers["Authorization"]
        assert sent == f"Bearer {SECRET}"
        handler.send(500, f"{'x' * 280} you sent {sent}".encode())

    def tell_well(handler: Any, body: Any) -> None:
        handler.send(200, f'{{"you sent": "{handler.headers["Authorization"]}"}}'.encode())

    def tell_badly(handler: Any, body: Any) -> None:
        handler.wfile.write(handler.headers["Authorization"].encode() + b" is no status line\r\n\r\n")

    def refuse(handler: Any, body: Any) -> None:
        handler.send(401, f'{{"error": "wrong key: {SECRET}"}}'.encode())

    for act in (tell, tell_well, tell_badly, refuse):
        with serving([act]) as server, failing("you sent|status|wrong key|BadStatus|no chat") as caught:
            lm = Http("m", server.url, key="SOME_KEY", manners=patient([], tries=2))
            one(lm)
        told = "".join(traceback.format_exception(caught.value)) + repr(lm) + lm.identity + str(vars(lm))
        told += str(vars(lm.wire)) + str(lm.totals)
        assert SECRET not in told
        assert SECRET[:8] not in told
    assert "wrong key: ***" in str(caught.value)


@pytest.mark.parametrize("value", [None, " ", f"{SECRET}\r\nX-Evil: 1", "schlüssel"])
def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("SOME_KEY", raising=False)
    else:
        monkeypatch.setenv("SOME_KEY", value)
    with serving([well()]) as server, failing("variable SOME_KEY is to hold the key of http://127") as caught:
        one(Http("m", server.url, key="SOME_KEY"))
    assert server.asked == []
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": f"http://me:{SECRET}@127.0.0.1/v1"}, "url: only scheme, host and path"),
        ({"url": f"http://127.0.0.1/v1?key={SECRET}"}, "url: only scheme, host and path"),
        ({"url": "127.0.0.1:8000/v1"}, "expected something like http://"),
        ({"url": "http://127.0.0.1:port/v1"}, "port"),
        ({"key": SECRET}, "key: expected the name of an environment variable, not the key itself"),
    ],
)
def test_secrets_in_the_wrong_place(options: dict[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        Http("m", **options)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [{"parallel": 0}, {"tries": 0}, {"connect_s": 0}, {"whole_s": -1}, {"wait_s": -1}, {"longest_s": -1}]
)
def test_manners_that_are_none(bad: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="at least one request"):
        Manners(**bad)


def test_the_wire_itself() -> None:
    """A GET, a path beside /v1, and a reader that is not content."""
    seen: list[Any] = []

    def read(told: Any) -> str:
        seen.append(told)
        if len(seen) < 3:
            raise Fault("not yet")
        return "done"

    with serving(models=[say([1])], tokenize=[say({"n": 2})]) as server:
        wire = Wire(server.url + "/", None, patient([]))
        assert wire.ask("models", None, read, Event()) == "done"
        assert wire.ask("/tokenize", {"a": 1}, lambda told: told["n"], Event()) == 2
        with pytest.raises(Refusal) as caught:
            wire.ask("/else", {}, lambda told: told, Event())
    assert (seen, caught.value.status, wire.requests) == ([[1], [1], [1]], 404, 5)
    assert "Authorization" not in server.asked[0][2]


def test_words() -> None:
    assert words(b'{"error": {"message": "no\\n  such", "code": 3}}') == "no such"
    assert words({"object": "error", "message": "old form"}) == "old form"
    assert words({"detail": [{"loc": "x"}]}) == '[{"loc": "x"}]'
    assert words("a" * 400) == "a" * 300 + "..."


def test_every_further_try_is_told() -> None:
    with serving([say(b"<html><title>Bad\n gateway</title>", 502), say({}, 503), well()]) as server:
        with listening(heard := Heard()):
            one(Http("m", server.url, manners=patient([])))
        assert [text.removeprefix(f"{server.url}/chat/completions: ") for text in heard.notices] == [
            "502 Bad Gateway: an HTML page, 'Bad gateway'; asking again in 1 s (try 2 of 6)",
            "503 Service Unavailable: {}; asking again in 2 s (try 3 of 6)",
        ]


def test_questions_beside_the_work_are_not_waited_for() -> None:
    with serving(models=[stall]) as server, failing(r"/models: no whole reply within 0\.2 s \(tried 2 times\)"):
        _ = Http("m", server.url, manners=patient([], probe_s=0.2, tries=2)).context


@pytest.mark.parametrize(
    ("path", "act", "said"),
    [
        ("", say(b"<!doctype html><TITLE>It &amp; works</TITLE>"), "an HTML page, 'It & works'"),
        ("", say(b"<html><body>hello", 404), "404 Not Found: an HTML page"),
        ("", say({"detail": "Not Found"}, 404), "404 Not Found: Not Found"),
        ("/v1", say(b"<?xml version='1.0'?>\n<html>no", 401), "401 Unauthorized: an HTML page; is this the address"),
    ],
)
def test_who_is_no_server_of_models_is_asked_once(path: str, act: Act, said: str) -> None:
    with serving() as server:
        server.scripts = {"/models": [act], "/v1/models": [act]}
        url = server.url.removesuffix("/v1")
        with failing(said) as caught:
            _ = Http("m", url + path, manners=patient([])).context
        assert len(server.asked) == 1
        assert (f"is {url} its whole address? Most servers have the API at {url}/v1" in str(caught.value)) == (not path)


@pytest.mark.parametrize("act", [stall, say({}, 503)])
def test_what_is_not_there_when_it_is_due_is_no_answer(act: Act) -> None:
    with serving([act]) as server, listening(heard := Heard()):
        lm = Http("m", server.url, manners=Manners(wait_s=30))
        with within(0.3):
            assert lm.complete([ASKED], max_tokens=9) == [Completion("", 0, 0, late=True)]
            assert lm.choose([ASKED], []) == [Choice((), 0, late=True)]
    late = "1 of 1 requests were not answered in the 0.3 s that their queries have left, and count as empty replies"
    assert [text for text in heard.notices if late in text] == [f"{server.url}: {late}"] * 2
    assert lm.totals.answers == 0


def test_who_answers_slowly_is_waited_for() -> None:
    """The seconds are counted from answer to answer: a server that has no threads is not to be blamed."""
    turn = Lock()

    def slow(handler: Handler, body: Any) -> None:
        with turn:
            time.sleep(0.3)
        well()(handler, body)

    with serving([slow]) as server, within(9.0):
        said = Http("m", server.url).complete([ASKED] * 8, max_tokens=9)
    assert [s.text for s in said] == ["fine"] * 8
