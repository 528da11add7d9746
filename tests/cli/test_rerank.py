"""rerank and view as a user types them: models, budgets, ledgers, caches, and runs that are killed."""

import json
import shlex
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from rankpipe.lm.fake import Noisy
from tests.cli.test_cli import COMMAND, Rankpipe, rankpipe
from tests.lm.server import CHAT, Handler, serving
from tests.lm.server import say as says
from tests.lm.test_http import Behind

__all__ = ["rankpipe"]
FAKE = ("--use", "listwise", "--set", "lm={use: fake}", "--set", "plan={use: sliding, size: 2, step: 1}")


@pytest.fixture
def first(rankpipe: Rankpipe, tiny_path: Path) -> tuple[object, ...]:
    """A run of BM25, and how it is reranked."""
    rankpipe("index", "build", "words", "--data", tiny_path)
    rankpipe("search", "words", "--data", tiny_path, "--out", "a.trec")
    return ("rerank", "a.trec", "--data", tiny_path)


def test_what_the_model_was_shown_and_said(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    assert "say with --out" in rankpipe(*first, *FAKE, "--ledger", code=2).stderr
    said = rankpipe(*first, *FAKE, "--ledger", "--out", "b.trec")
    assert "rankpipe view b.trec" in said.stderr
    made = json.loads(rankpipe("view", "b.trec", "--json").stdout)
    run = (tmp_path / "b.trec").read_text().split()
    assert made["windows"] == sum(made["kinds"].values()) == sum(q["windows"] for q in made["queries"]) > 0
    assert sum(made["percent"].values()) == pytest.approx(100, abs=0.02)
    query = made["queries"][0]["query"]
    windows = json.loads(rankpipe("view", "b.trec", "--query", query, "--json").stdout)
    assert {windows[0]["cut_words"], made["queries"][0]["cut_words"]} == {0}
    assert len(windows) == made["queries"][0]["windows"]
    assert windows[-1]["order"][0] == next(run[i + 2] for i in range(0, len(run), 6) if run[i] == query)
    last = rankpipe("view", "b.trec", "--query", query, "--window", len(windows)).stdout
    for text in (windows[-1]["messages"][-1]["content"][-40:], windows[-1]["reply"], windows[-1]["order"][0]):
        assert text in last
    for words, said_of in (
        (("view", "a.trec"), "rankpipe rerank --ledger --out a.trec"),
        (("view", "b.trec", "--query", "nobody"), "no window of query 'nobody'"),
        (("view", "b.trec", "--query", query, "--window", 99), f"has {len(windows)} windows, no number 99"),
        (("view", "b.trec", "--window", 1), "--query ID says"),
    ):
        assert said_of in rankpipe(*words, code=4).stderr
    (tmp_path / "b.trec.ledger.jsonl").write_text("{}\n")
    assert "ledger.jsonl:1: damaged line; rerank again" in rankpipe("view", "b.trec", code=6).stderr


def test_who_was_ended_by_a_budget(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    given = by_query(tmp_path / "a.trec")
    for calls in (0, 2):
        rankpipe(*first, *FAKE, "--max-calls", calls, "--ledger", "--out", "b.trec")
        made = {q["query"]: q for q in json.loads(rankpipe("view", "b.trec", "--json").stdout)["queries"]}
        for query, hits in given.items():
            whole = max(len(hits) - 1, 0)
            told = made.get(query, {"windows": 0, "skipped": 0})
            assert (told["windows"], told["skipped"]) == (min(whole, calls), max(whole - calls, 0))
        longest = max(given, key=lambda q: len(given[q]))
        seen = rankpipe("view", "b.trec", "--query", longest)
        assert f"ended by the budget: {made[longest]['skipped']} more call" in seen.stderr
    assert "skipped" in rankpipe("view", "b.trec").stdout


def test_budgets(rankpipe: Rankpipe, first: tuple[object, ...]) -> None:
    whole = json.loads(rankpipe(*first, *FAKE, "--json").stdout)["steps"][-1]
    some = rankpipe(*first, *FAKE, "--max-calls", 2)
    assert "were ended by the budget" in some.stderr
    cut = json.loads(rankpipe(*first, *FAKE, "--max-calls", 2, "--json").stdout)["steps"][-1]
    assert (cut["calls"] + cut["skipped"], whole["skipped"]) == (whole["calls"], 0)
    assert 0 < cut["calls"] < whole["calls"]
    assert json.loads(rankpipe(*first, *FAKE, "--max-tokens", 0, "--json").stdout)["steps"][-1]["calls"] == 0
    assert json.loads(rankpipe(*first, *FAKE, "--max-seconds-per-query", 99, "--json").stdout)["steps"][-1] == {
        **whole, "seconds": pytest.approx(0, abs=99),
    }  # fmt: skip
    assert (
        "--max-seconds-per-query: top has no budget"
        in rankpipe(*first, "--use", "top", "--set", "k=3", "--max-calls", 2, code=2).stderr
    )


def by_query(path: Path) -> dict[str, list[str]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return {q: [d for of, _, d, *_ in rows if of == q] for q in dict.fromkeys(row[0] for row in rows)}


def test_depth(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    """Hits below those that are read stay below them, in their order."""
    said = rankpipe(*first, *FAKE, "--set", "max_words=2", "--depth", 3, "--out", "b.trec").stderr
    given, made = by_query(tmp_path / "a.trec"), by_query(tmp_path / "b.trec")
    deeper = [q for q in given if len(given[q]) > 3]
    more = sum(len(given[q]) - 3 for q in deeper)
    told = f"the first 3 hits of each query are reranked; {more} more, of {len(deeper)} queries, stay below"
    assert told in " ".join(said.split())
    assert deeper
    assert all(made[q][3:] == given[q][3:] and sorted(made[q][:3]) == sorted(given[q][:3]) for q in given)
    whole = json.loads(rankpipe(*first, *FAKE, "--depth", 200, "--json").stdout)["steps"][-1]
    assert whole["calls"] == sum(len(hits) - 1 for hits in given.values() if hits)
    assert "top reads all hits" in rankpipe(*first, "--use", "top", "--set", "k=3", "--depth", 2, code=2).stderr
    probed = json.loads(rankpipe("probe", *first[1:], *FAKE, "--depth", 3, "--json").stdout)
    assert len(probed["position"]["curve"]) == 3


def test_a_budget_for_those_who_say_scores(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    given = by_query(tmp_path / "a.trec")
    model = ("--model", "minilm-l12", "--max-calls", 2)
    step = json.loads(rankpipe(*first, *model, "--json").stdout)["steps"][-1]
    assert step["calls"] == sum(min(len(hits), 2) for hits in given.values())
    assert step["skipped"] == sum(max(len(hits) - 2, 0) for hits in given.values())
    assert "say with max_length" in rankpipe(*first, "--max-tokens", 99, code=2).stderr
    late = json.loads(rankpipe(*first, "--model", "colbert-small", "--max-calls", 2, "--json").stdout)["steps"][-1]
    assert late["calls"] == sum(2 for hits in given.values() if hits)


def test_a_budget_of_seconds_is_replayed(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    """From the seconds that the answers took: the cache is as fast as it likes."""
    how = (*FAKE, "--max-seconds-per-query", "0.000002", "--cache", "c.sqlite")
    step = json.loads(rankpipe(*first, *how, "--out", "b.trec", "--json").stdout)["steps"][-1]
    assert 0 not in (step["calls"], step["skipped"])
    again = json.loads(rankpipe(*first, *how, "--offline", "--out", "c.trec", "--json").stdout)["steps"][-1]
    assert {**again, "seconds": 0} == {**step, "seconds": 0}
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "c.trec").read_bytes()


def test_answers_are_asked_for_once(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    online = json.loads(rankpipe(*first, *FAKE, "--cache", "c.sqlite", "--out", "b.trec", "--json").stdout)
    assert online["lm"]["cached"]["asked"] > 0
    again = rankpipe(*first, *FAKE, "--cache", "c.sqlite", "--offline", "--out", "c.trec")
    assert "cached: " in again.stderr
    assert " 0 asked" in again.stderr
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "c.trec").read_bytes()
    assert "offline, and it lacks" in rankpipe(*first, *FAKE, "--set", "max_words=1", "--cache", "c.sqlite",
                                               "--offline", code=7).stderr  # fmt: skip
    assert "say with --cache" in rankpipe(*first, *FAKE, "--offline", code=2).stderr
    assert "asks no language model" in rankpipe(*first, "--cache", "c.sqlite", code=2).stderr


def test_a_part_of_an_argument(rankpipe: Rankpipe, first: tuple[object, ...]) -> None:
    noisy = json.loads(rankpipe(*first, *FAKE, "--set", "lm.malformed=1", "--json").stdout)
    assert noisy["steps"][-1]["repaired"] > 0
    assert "lm: fake: no argument 'key'" in rankpipe(*first, *FAKE, "--set", "lm.key=X", code=2).stderr
    assert "use has no arguments to set" in rankpipe(*first, *FAKE, "--set", "use.key=X", code=2).stderr
    both = ("--model", "smollm2", "--set", "lm={use: fake}")
    assert "give one of them" in rankpipe(*first, *both, code=2).stderr


def test_what_goes_where(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    rankpipe(*first, *FAKE, "--out", "b.jsonl.gz")
    rankpipe("rerank", "b.jsonl.gz", "--use", "top", "--set", "k=2", "--out", "c.trec")
    said = rankpipe(*first, "--ledger", "--out", "d.trec", code=2).stderr
    assert "all that cross-encoder says of a passage is its score" in said
    (tmp_path / "no.sqlite").write_text("something else, and long enough to be looked at " * 40)
    said = rankpipe(*first, *FAKE, "--cache", "no.sqlite", code=6).stderr
    assert "no cache of answers, or damaged; name another path" in said


def test_models(rankpipe: Rankpipe, first: tuple[object, ...]) -> None:
    assert "'encoder', which reranks nothing" in rankpipe(*first, "--model", "bge-small", code=7).stderr
    assert "say which model" in rankpipe(*first, "--lm", "vllm", code=2).stderr
    assert "top takes no model" in rankpipe(*first, "--use", "top", "--model", "smollm2", code=2).stderr


MINE = """
from rankpipe.lm.fake import Noisy

class Mine(Noisy):
    identity = "mine, but for the seed"
"""


@pytest.mark.parametrize("use", [("listwise", "plan={use: sliding, size: 2, step: 1}"), ("first", "max_words=5")])
def test_a_run_is_replayed_without_its_model(
    rankpipe: Rankpipe,
    first: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: tuple[str, str],
) -> None:
    """To the byte, by what lies beside it, though nothing is left of what made it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "mine.py").write_text(MINE)
    how = ("--use", use[0], "--set", use[1], "--set", "lm={use: 'mine:Mine', noise: 0.3, malformed: 0.2}")
    said = rankpipe(*first, *how, "--ledger", "--out", "b.trec").stderr
    assert "to make it again without the model: --replay b.trec" in said
    rankpipe(*first, *how, "--ledger", "--cache", "c.sqlite", "--out", "c.trec")
    for gone in ("mine.py", "c.sqlite"):
        (tmp_path / gone).unlink()
    assert rankpipe(*first, *how, "--out", "d.trec", code=2)
    whole = (tmp_path / "b.trec").read_bytes()
    for old, new, more in (
        ("b", "d", ()), ("c", "e", ()), ("b", "f", ["--ledger"]), ("f", "f", ["--ledger"]), ("f", "g", ()),
    ):  # fmt: skip
        told = rankpipe(*first, "--replay", f"{old}.trec", "--out", f"{new}.trec", *more, "--json").stdout
        assert json.loads(told)["lm"]["cached"]["asked"] == 0
        assert (tmp_path / f"{new}.trec").read_bytes() == whole
    assert json.loads(rankpipe("view", "f.trec", "--json").stdout)["windows"] > 0
    beside = {p.name for p in tmp_path.iterdir() if "sqlite" in p.name or p.name.startswith(".")}
    assert beside == {f"{name}.trec.answers.sqlite" for name in "bcf"}


TELLING = """
import os
from rankpipe.rerank import ledger
from rankpipe.stage import Reranker

class Telling(Reranker):
    tells, batch = True, 1

    def __init__(self, say):
        self.say, self.asked = say, 0

    def run(self, batch):
        for r in batch:
            for half in range(2):
                ids = tuple(h.doc.id for h in r.hits)
                ledger.note(lambda: ledger.Entry(r.query.id, ids, [], self.say, ids, "ok", *[0] * 7, 0, 0.5))
                self.asked += 1
                if self.asked == int(os.environ.get("DIES_AT", 0)):
                    os._exit(9)
        return [r.reordered(range(len(r.hits))[::-1]) for r in batch]
"""


@pytest.fixture
def telling(
    rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Rerank by one that asks no language model, notes two windows a query, and dies where it is told to."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "mine.py").write_text(TELLING)

    def run(say: str, *words: object, dies_at: int = 0) -> str:
        monkeypatch.setenv("DIES_AT", str(dies_at))
        said = ("--use", "mine:Telling", "--set", f"say={say}", *words, "--out", "b.trec")
        return rankpipe(*first, *said, code=9 if dies_at else 0).stderr

    return run


Run = tuple[str, bool, int]  # what it says, whether with --ledger, the window at which it dies


@pytest.mark.parametrize(
    ("before", "known"),
    [
        ([("a", True, 0), ("b", False, 7)], 0),  # another run's windows lie there
        ([("b", False, 7)], 0),  # there are no windows
        ([("b", True, 7)], 3),  # and half of the fourth query's
        ([("b", True, 7), ("a", True, 5)], 0),  # another run has begun meanwhile
        ([("b", True, 7), ("b", False, 3)], 3),
    ],
)
def test_a_ledger_has_all_windows_of_its_own_run_and_no_others(
    telling: Callable[..., str], tmp_path: Path, before: list[Run], known: int
) -> None:
    for say, ledger, dies_at in before:
        telling(say, *["--ledger"] * ledger, dies_at=dies_at)
    said = telling("b", "--ledger")
    queries = list(by_query(tmp_path / "b.trec"))
    entries = [json.loads(line) for line in (tmp_path / "b.trec.ledger.jsonl").read_text().splitlines()]
    assert Counter(e["query"] for e in entries) == dict.fromkeys(queries, 2)
    assert {e["reply"] for e in entries} == {"b"}
    assert (f"going on where it stopped: {known} ranking" in said) == (known > 0)
    assert (f"kept: {known} known, {len(queries) - known} asked" in said) == (known > 0)
    assert {p.name for p in tmp_path.glob("*b.trec*")} == {"b.trec", "b.trec.ledger.jsonl", "b.trec.scores.jsonl"}


def test_a_run_of_scores_is_replayed(
    telling: Callable[..., str], rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path
) -> None:
    """From what was given for each query: nothing is shown or said again."""
    assert "to make it again without the model: --replay b.trec" in telling("a", "--ledger")
    (tmp_path / "mine.py").unlink()
    replay = ("--replay", "b.trec", "--out", "c.trec")
    rankpipe(*first, *replay)
    assert (tmp_path / "c.trec").read_bytes() == (tmp_path / "b.trec").read_bytes()
    said = rankpipe(*first, *replay, "--ledger", code=2).stderr
    assert "nothing is shown or said again; the windows are in b.trec.ledger.jsonl" in said
    said = rankpipe("rerank", "c.trec", *first[2:], *replay[:2], code=4).stderr
    assert "b.trec was made from a.trec (checksum " in said
    rankpipe(*first, *FAKE, "--ledger", "--out", "b.trec")
    assert {p.name for p in tmp_path.glob("b.trec*")} == {"b.trec", "b.trec.ledger.jsonl", "b.trec.answers.sqlite"}


def test_what_cannot_be_replayed(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    rankpipe(*first, *FAKE, "--ledger", "--out", "b.trec")
    assert "leave the other options out" in rankpipe(*first, *FAKE, "--replay", "b.trec", code=2).stderr
    missing = rankpipe(*first, "--replay", "a.trec", code=6).stderr
    assert "a.trec: no answers were kept of it, to make it again from." in missing
    assert not (tmp_path / "a.trec.answers.sqlite").exists()
    assert "leave the other options out" in rankpipe(*first, "--depth", 2, "--replay", "b.trec", code=2).stderr
    rankpipe(*first, "--use", "top", "--set", "k=2", "--out", "c.trec")
    said = " ".join(rankpipe("rerank", "c.trec", *first[2:], "--replay", "b.trec", code=4).stderr.split())
    assert "b.trec was made from a.trec (checksum " in said
    assert ", but c.trec (checksum " in said
    said = rankpipe(*first, *FAKE, "--out", "b.trec").stderr
    assert all(f"b.trec.{what}: of the run that was here before" in said for what in ("ledger.jsonl", "answers.sqlite"))


def test_where_a_run_cannot_be_written(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    """It is refused before anything is read."""
    for out in (tmp_path, "words"):
        said = rankpipe("rerank", "nowhere.trec", "--data", "nowhere", "--out", out, code=8).stderr
        assert f"{out}: a folder; name a file in it" in said.replace("\n", "")
    assert "cannot be written" in rankpipe("rerank", "nowhere.trec", *FAKE, "--out", "a.trec/b", code=8).stderr
    assert "a folder" in rankpipe("search", "words", "tea", "--out", "words", code=8).stderr


def test_a_run_without_a_query(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "empty.trec").touch()
    done = rankpipe("rerank", "empty.trec", *first[2:], *FAKE, "--out", "b.trec")
    assert "there was no query" in done.stderr
    assert (tmp_path / "b.trec").read_bytes() == b""


class Held(Behind):
    """Answers so many chats, and leaves the others waiting; knows which."""

    def __init__(self) -> None:
        super().__init__(Noisy(noise=0.3, malformed=0.2))
        self.answers: float = inf
        self.answered, self.waiting, self.lock = list[str](), list[str](), Lock()

    def chat(self, handler: Handler, body: Any) -> None:
        with self.lock:
            answers = len(self.answered) < self.answers
            (self.answered if answers else self.waiting).append(json.dumps(body["messages"]))
        if answers:
            super().chat(handler, body)
        else:
            handler.server.over.wait(300)


def test_a_killed_rerank_goes_on_where_it_stopped(
    rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path
) -> None:
    """Only what the server had not answered at the kill is asked again, and the run is the same to the byte."""
    model = Held()
    kept = tmp_path / ".b.trec.answers.sqlite"
    with serving([model.chat]) as server:
        run = [*first, "--model", "m", "--lm", server.url, "--set", "lm.context=4000", *FAKE[4:]]
        rankpipe(*run, "--out", "whole.trec")
        windows, queries = Counter(model.answered), Counter(map(_query, model.answered))
        assert set(windows.values()) == {1}
        model.answered.clear()
        model.answers = known = len(queries)  # their first windows
        second = sum(n > 1 for n in queries.values())  # and none of these is still on its way at the kill
        killed(tmp_path, [*run, "--out", "b.trec"], lambda: len(model.waiting) == second and _kept(kept) == known)
        assert not (tmp_path / "b.trec").exists()
        model.answers = inf
        done = rankpipe(*run, "--out", "b.trec")
    assert Counter(model.answered) == windows
    assert "going on where it stopped" in done.stderr
    assert f"cached: {known} known, {windows.total() - known} asked" in done.stderr
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "whole.trec").read_bytes()
    assert not [*tmp_path.glob(".b.trec*")]


def test_another_model_does_not_go_on(rankpipe: Rankpipe, first: tuple[object, ...]) -> None:
    """Nor one that has answered nothing yet; what failed at the same place is nothing to it."""
    behind = Behind(Noisy())
    with serving([says({}, 400), behind.chat, says({}, 400), behind.chat]) as server:
        how = ("--lm", server.url, "--set", "lm.context=4000", "--set", "lm.manners={use: manners, parallel: 1}")

        def goes_on(model: str, code: int) -> bool:
            done = rankpipe(*first, "--model", model, *how, *FAKE[4:], "--out", "b.trec", code=code)
            return "going on where it stopped" in done.stderr

        assert [goes_on("m", 7), goes_on("m", 7), goes_on("n", 0)] == [False] * 3
        server.scripts[CHAT] = [behind.chat, says({}, 400), behind.chat]
        assert [goes_on("m", 7), goes_on("m", 0)] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--model", "minilm-l12", "--depth", 30], ".b.trec.kept.jsonl"),
        (["--model", "smollm2", "--use", "first", "--depth", 20, "--set", "max_words=12"], ".b.trec.answers.sqlite"),
        (["--model", "smollm2", "--depth", 20, "--set", "max_words=12"], ".b.trec.answers.sqlite"),
        (["--model", "smollm2", "--use", "icr", "--depth", 10, "--set", "max_words=12"], ".b.trec.kept.jsonl"),
    ],
)
def test_kill_9_in_the_middle_of_43_queries(
    rankpipe: Rankpipe, data_root: Path, tmp_path: Path, words: list[object], kept: str
) -> None:
    """Real models, as they are used: whatever was done when the process was killed is not asked again, and the run is
    the same to the byte.
    """
    run = [
        "rerank",
        data_root / "trec-dl19-pool" / "runs" / "BM25.trec",
        "--data",
        data_root / "trec-dl19-pool",
        *words,
    ]
    whole = json.loads(rankpipe(*run, "--out", "whole.trec", "--json").stdout)
    total = whole["queries"] if kept.endswith(".jsonl") else whole["steps"][-1]["calls"]
    killed(tmp_path, [*run, "--out", "b.trec"], lambda: _kept(tmp_path / kept) > 0)
    there = _kept(tmp_path / kept)
    assert not (tmp_path / "b.trec").exists()
    done = rankpipe(*run, "--out", "b.trec", "--json")
    assert "going on where it stopped" in done.stderr
    [counted] = json.loads(done.stdout)["lm"].values()
    assert 0 < counted["asked"] <= total - there
    assert counted["known"] + counted["asked"] == total
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "whole.trec").read_bytes()
    assert len({line.split()[0] for line in (tmp_path / "b.trec").read_text().splitlines()}) == 43


@pytest.mark.parametrize("answers", [5, 0])
def test_who_interrupts_is_told_what_is_kept(
    rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path, answers: int
) -> None:
    """At once, although a server has still to answer."""
    model = Held()
    kept, model.answers = tmp_path / ".b.trec.answers.sqlite", answers
    with serving([model.chat]) as server:
        run = [*first, "--model", "m", "--lm", server.url, "--set", "lm.context=4000", *FAKE[4:], "--out", "b.trec"]
        done = killed(tmp_path, run, lambda: bool(model.waiting) and _kept(kept) == answers, signal.SIGINT)
        assert done.returncode == 130
        again = f"rankpipe {shlex.join(map(str, run))}"
        goes_on = f"interrupted; what is done is kept beside b.trec; to go on from there: {again}"
        assert (goes_on if answers else "interrupted; nothing is half-written") in done.stderr.splitlines()
        model.answers = inf
        assert ("going on where it stopped" in rankpipe(*run).stderr) == bool(answers)


def killed(
    folder: Path, words: list[object], ready: Callable[[], bool], how: signal.Signals = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    """Run a command, and kill it as soon as it is time."""
    command = [COMMAND, *map(str, words)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(how)
        _, said = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, "", said)


def _query(chat: str) -> str:
    return chat.split("search query: ")[1].split("\\n")[0]


def _kept(path: Path) -> int:
    """How many rankings or answers of a model there are."""
    if not path.exists():
        return 0
    if path.suffix == ".jsonl":
        return path.read_bytes().count(b"\n")
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM answers WHERE kind IN ('complete', 'choose')").fetchone()[0])
    return 0
