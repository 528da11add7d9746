"""Nothing is asked twice: after a kill, in a second run, offline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from rankpipe import recipe
from rankpipe.errors import ArtefactError, ModelError, RecipeError
from rankpipe.lm import LM, Chat, Choice, Completion, Likelihood
from rankpipe.lm.cache import Absent, Cached
from rankpipe.lm.fake import Noisy, Scripted
from rankpipe.lm.http import Http
from rankpipe.rerank.listwise import Listwise
from tests.lm import slow
from tests.lm.server import Handler, echo, serving

ROOT = Path(__file__).parents[2]
CACHED: type[LM] = Cached  # mypy: it is what rerankers take


def ask(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def chat(i: int) -> Chat:
    return ask(f"query: tea {i}\n[1] tea\n[2] bike {i}\n[3] tea and bike")


class Strange(Noisy):
    """Says what is hard to write down."""

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        return [Completion('é\ud800\x00"\n🙂', 3, 1) for _ in chats]

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        return [Choice((-inf, -0.1 - 0.2, -1e-300), 7) for _ in chats]

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        return [Likelihood(-1 / 3, 2, 9) for _ in chats]


# --- a run that is killed ---


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "tests.lm.slow", *map(str, words)]


def run(*words: object) -> None:
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def lines(log: Path, kind: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith(kind)] if log.exists() else []


def kill_when(ready: Callable[[], bool], *words: object) -> None:
    with subprocess.Popen(command(*words), cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int]:
    """The run file, and the number of windows."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "c.sqlite", folder / "run.trec", folder / "log")
    return (folder / "run.trec").read_bytes(), len(lines(folder / "log", "answered"))


def test_killed_resumed_and_replayed_byte_for_byte(tmp_path: Path, uninterrupted: tuple[bytes, int]) -> None:
    whole, windows = uninterrupted
    cache, log = tmp_path / "c.sqlite", tmp_path / "log"
    made = [tmp_path / f"{name}.trec" for name in ("killed", "resumed", "again", "offline")]
    at = windows // 2
    kill_when(lambda: bool(lines(log, "hangs")), cache, made[0], log, "--hang-at", at, "--slice", 1)
    assert not made[0].exists()
    assert len(lines(log, "answered")) == at
    run(cache, made[1], log)
    assert len(lines(log, "answered")) == len(set(lines(log, "answered"))) == windows
    run(cache, made[2], log)
    run(cache, made[3], log, "--offline")
    assert len(lines(log, "answered")) == windows
    assert {file.read_bytes() for file in made[1:]} == {whole}


def test_killed_again_and_again_at_any_moment(tmp_path: Path, uninterrupted: tuple[bytes, int]) -> None:
    """What is lost is a slice at most; the file is never damaged."""
    whole, windows = uninterrupted
    cache, log, made = tmp_path / "c.sqlite", tmp_path / "log", tmp_path / "run.trec"
    for kills in range(1, 5):
        enough = kills * windows // 6
        kill_when(lambda enough=enough: len(lines(log, "answered")) >= enough, cache, made, log, "--slice", 2)
    run(cache, made, log)
    assert made.read_bytes() == whole
    assert windows <= len(lines(log, "answered")) <= windows + 4 * 2


def test_offline_says_what_is_missing(tmp_path: Path) -> None:
    lm, path = Noisy(), tmp_path / "c.sqlite"
    Cached(lm, path).complete([chat(1)], max_tokens=9)
    offline = Cached(lm, path, offline=True)
    assert offline.complete([chat(1)], max_tokens=9) == lm.complete([chat(1)], max_tokens=9)
    with pytest.raises(ModelError) as caught:
        offline.complete([chat(1), chat(2), chat(3), chat(2)], max_tokens=9)
    said = f"{path}: offline, and it lacks 2 of 4 answers, the first to 'query: tea 2"
    assert str(caught.value).startswith(said)
    assert f" [9]; of {lm.identity} it has 1 such (complete). Run it once without offline" in str(caught.value)
    with pytest.raises(ModelError, match=r"lacks the context; of .* it has 0 such"):
        _ = offline.context
    with pytest.raises(ModelError, match=r"lacks the count of 'query: tea 1"):
        offline.count(chat(1))
    with pytest.raises(ModelError, match=r"lacks 1 of 1 answers, .*'seed': 9} it has 0 such"):
        Cached(Noisy(seed=9), path, offline=True).complete([chat(1)], max_tokens=9)
    with pytest.raises(ArtefactError, match=r"none\.sqlite: there is nothing to replay; run it once with its model"):
        Cached(lm, tmp_path / "none.sqlite", offline=True)


@pytest.mark.parametrize("context", [350, 20_000])
def test_a_run_over_http_is_replayed_without_the_server(tmp_path: Path, context: int) -> None:
    """The server counted the tokens, too, if they might have been too many, and said how long its context is."""
    from tests.lm.test_http import Behind, rankings

    behind, path = Behind(Noisy(noise=0.3, context=context)), tmp_path / "c.sqlite"
    with serving([behind.chat], tokenize=[behind.tokenize], models=[behind.models]) as server:
        live = Listwise(Cached(Http("m", server.url), path)).run(rankings())
        counted = [body.get("messages") for body in server.bodies("/tokenize")]
        assert any(body["messages"] in counted for body in server.bodies()) == (context == 350)
        asked = len(server.asked)
        Listwise(Cached(Http("m", server.url, context=context), path)).run(rankings())
        assert {p for p, _, _ in server.asked[asked:]} == {"/tokenize"}
    gone = Http("m", server.url, key="NOT_SET_ANYWHERE")
    assert Listwise(Cached(gone, path, offline=True)).run(rankings()) == live
    assert gone.totals.requests == 0
    absent = Cached(Absent(gone.identity), path, offline=True)  # type: ignore[arg-type]
    assert Listwise(absent).run(rankings()) == live
    with pytest.raises(ModelError, match=r"it lacks the .*\. A replay is of what its run was asked: give it the same$"):
        absent.count(chat(1))


# --- what is asked ---


def test_the_same_as_without_and_asked_once(tmp_path: Path) -> None:
    lm, path = Noisy(), tmp_path / "c.sqlite"
    plain, chats = Noisy(), [chat(i % 6) for i in range(10)]
    cached = Cached(lm, path, slice=4)
    for _ in range(2):
        assert cached.complete(chats, max_tokens=9) == plain.complete(chats, max_tokens=9)
    assert lm.batches == [4, 2]
    assert (cached.totals.known, cached.totals.asked) == (4 + 10, 6)
    later = Cached(Noisy(), path)
    assert later.complete(chats, max_tokens=9) == plain.complete(chats, max_tokens=9)
    assert (later.totals.known, later.totals.asked, later.lm.batches) == (10, 0, [])  # type: ignore[attr-defined]
    assert later.complete([], max_tokens=9) == []
    assert (cached.identity, cached.context, cached.count(chats[0])) == (lm.identity, 4096, lm.count(chats[0]))


class Wide(Noisy):
    at_once, together = 50, 7


@pytest.mark.parametrize(
    ("kind", "slice", "batches"),
    [(Noisy, None, [32, 32, 6]), (Wide, None, [50, 20]), (Wide, 60, [60, 10]), (Noisy, 99, [70])],
)
def test_slices(tmp_path: Path, kind: type[Noisy], slice: int | None, batches: list[int]) -> None:
    """A cache around a cache does not cut them smaller."""
    lm = kind()
    Cached(Cached(lm, tmp_path / "a", slice), tmp_path / "b").complete([chat(i) for i in range(70)], max_tokens=9)
    assert lm.batches == batches


def test_what_the_model_says_of_itself_is_heard(tmp_path: Path) -> None:
    assert Listwise(Cached(Wide(), tmp_path / "a")).batch == Listwise(Wide()).batch == 7
    assert Listwise(Cached(Noisy(), tmp_path / "a")).batch == Listwise(Noisy()).batch
    with serving([echo]) as server:
        around = Cached(Cached(Http("m", server.url), tmp_path / "a"), tmp_path / "b")
        around.complete([ask(str(i)) for i in range(40)], max_tokens=9)
        assert around.at_once > 10**9


def test_a_slice_of_none(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="slice=0"):
        Cached(Noisy(), tmp_path / "a", slice=0)


def test_every_kind_comes_back_exactly(tmp_path: Path) -> None:
    lm = Strange()
    for _ in range(2):
        cached = Cached(lm, tmp_path / "c.sqlite")
        assert cached.complete([ask("a")], max_tokens=1) == lm.complete([ask("a")], max_tokens=1)
        assert cached.choose([ask("a")], ["A", "B", "C"]) == lm.choose([ask("a")], ["A", "B", "C"])
        assert cached.likelihood([ask("a")], ["b"]) == lm.likelihood([ask("a")], ["b"])
    assert (cached.totals.known, cached.totals.asked) == (3, 0)


def test_anything_that_decides_the_answer_is_in_the_key(tmp_path: Path) -> None:
    path, lm = tmp_path / "c.sqlite", Noisy()
    cached = Cached(lm, path)
    questions: list[Callable[[Cached], Any]] = [
        lambda c: c.complete([chat(1)], max_tokens=9),
        lambda c: c.complete([chat(1)], max_tokens=8),
        lambda c: c.complete([chat(2)], max_tokens=9),
        lambda c: c.complete([[{"role": "system", "content": chat(1)[0]["content"]}]], max_tokens=9),
        lambda c: c.complete([[*chat(1), *chat(1)]], max_tokens=9),
        lambda c: c.choose([chat(1)], ["1", "2"]),
        lambda c: c.choose([chat(1)], ["2", "1"]),
        lambda c: c.choose([chat(1)], ["12"]),
        lambda c: c.choose([chat(1)], ["1", "2"], begin="["),
        lambda c: c.likelihood([chat(1)], ["1"]),
        lambda c: c.likelihood([chat(1)], ["2"]),
        lambda c: Cached(Noisy(seed=1), path).complete([chat(1)], max_tokens=9) and c.book.read([]),
    ]
    for question in questions:
        question(cached)
    assert (cached.totals.known, cached.totals.asked) == (0, len(questions) - 1)
    same = [{"content": chat(1)[0]["content"], "role": "user"}]  # the order of its keys does not matter
    cached.complete([same], max_tokens=9)
    assert cached.totals.known == 1


def test_an_error_is_no_answer(tmp_path: Path) -> None:
    """What was answered before it, slice by slice, is kept."""
    lm = Scripted(["a", "b", "c"])
    cached = Cached(lm, tmp_path / "c.sqlite", slice=2)
    with pytest.raises(ModelError, match="was asked once more"):
        cached.complete([ask(str(i)) for i in range(5)], max_tokens=9)
    assert (cached.totals.known, cached.totals.asked) == (0, 2)
    lm.replies.extend("defg")
    again = cached.complete([ask(str(i)) for i in range(5)], max_tokens=9)
    assert [c.text for c in again][:2] == ["a", "b"]
    assert len(lm.heard) == 4 + 3  # the third was lost with its slice


def test_a_model_that_tells_loses_nothing(tmp_path: Path) -> None:
    """Whatever the server answered, before and after the request that failed, is in the file."""
    path, chats = tmp_path / "c.sqlite", [ask(str(i)) for i in range(30)]
    bad = {"13"}

    def act(handler: Handler, body: Any) -> None:
        if body["messages"][0]["content"] in bad:
            handler.send(400, b"no")
        else:
            echo(handler, body)

    with serving([act]) as server:
        with pytest.raises(ModelError, match="400 Bad Request: no"):
            Cached(Http("m", server.url), path).complete(chats, max_tokens=9)
        first = len(server.asked)
        assert 13 < first < 30
        bad.clear()
        cached = Cached(Http("m", server.url), path)
        assert [c.text for c in cached.complete(chats, max_tokens=9)] == [str(i) for i in range(30)]
    assert cached.totals.known == first - 1
    assert len(server.asked) == 30 + 1


def test_counts_and_context_are_the_models_own_unless_offline(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    online = Cached(lm := slow.Slow(tmp_path / "log"), path)
    for context in (100, 200, 200):
        lm.context = context
        assert online.context == context
    assert online.count(chat(1)) == lm.count(chat(1))
    assert (online.totals.known, online.totals.asked) == (0, 0)
    offline = Cached(slow.Dumb(), path, offline=True)  # type: ignore[arg-type]
    assert (offline.context, offline.count(chat(1))) == (200, lm.count(chat(1)))


# --- several at once ---


def test_threads(tmp_path: Path) -> None:
    plain, cached = Noisy(), Cached(Noisy(), tmp_path / "c.sqlite", slice=3)

    def ask_some(n: int) -> bool:
        chats = [chat(i) for i in range(n, n + 12)]
        counted = all(cached.count(c) == plain.count(c) for c in chats)
        return counted and cached.complete(chats, max_tokens=9) == plain.complete(chats, max_tokens=9)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask_some, [*range(16)] * 3))
    assert cached.totals.known + cached.totals.asked == 48 * 12
    assert cached.totals.asked >= 27


PROCESS = """
import sys
from pathlib import Path
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Noisy
from tests.lm.test_cache import chat
path, own = Path(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
for i in range(20):
    asked = [chat(i), chat(100 + 100 * own + i)]
    assert Cached(Noisy(), path).complete(asked, max_tokens=9) == Noisy().complete(asked, max_tokens=9)
"""


def test_processes_that_make_the_file_together(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.sqlite"
    words = [sys.executable, "-c", PROCESS, str(path)]
    crowd = [
        subprocess.Popen([*words, str(n)], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(6)
    ]
    for process in crowd:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in crowd:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    everything = [chat(i) for i in range(20)] + [chat(100 + 100 * n + i) for n in range(6) for i in range(20)]
    assert Cached(Noisy(), path, offline=True).complete(everything, max_tokens=9)


FORK = """
import os, sys
from pathlib import Path
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Noisy
from tests.lm.test_cache import chat
cached = Cached(Noisy(), Path(sys.argv[1]))
cached.complete([chat(0)], max_tokens=9)
inherited = cached.book._open
child = os.fork()
for i in range(200):
    cached.complete([chat(i + (1000 if child else 0))], max_tokens=9)
assert (cached.book._open is inherited) == bool(child)
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""


def test_a_forked_process_opens_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    subprocess.run([sys.executable, "-c", FORK, str(path)], cwd=ROOT, check=True)
    everything = [chat(i) for i in range(200)] + [chat(1000 + i) for i in range(200)]
    assert len(Cached(Noisy(), path, offline=True).complete(everything, max_tokens=9)) == 400


def test_the_first_answer_is_given_to_all(tmp_path: Path) -> None:
    """Two that ask at the same time may be told different things by a server; the file holds one of them."""

    class Rivalled(Noisy):
        def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
            said = super().complete(chats, max_tokens=max_tokens)
            Cached(other, path).complete(chats, max_tokens=max_tokens)  # meanwhile
            return [replace(c, text="too late") for c in said]

    path = tmp_path / "c.sqlite"
    lm, other = Rivalled(), Noisy()
    assert lm.identity.replace("Rivalled", "Noisy") == other.identity
    other.__class__ = type("Rivalled", (Noisy,), {})
    assert Cached(lm, path).complete([chat(1)], max_tokens=9) == Noisy().complete([chat(1)], max_tokens=9)


def test_written_in_a_recipe(tmp_path: Path) -> None:
    node = {"use": "listwise", "lm": {"use": "cache", "path": "kept/c.sqlite", "lm": {"use": "fake"}}}
    assert recipe.check(node) == []
    made = recipe.build(node, tmp_path).lm
    assert made.book.path == tmp_path / "kept" / "c.sqlite"
    assert not os.listdir(tmp_path)  # before anything is asked
    made.complete([chat(1)], max_tokens=9)
    assert os.listdir(tmp_path / "kept")
