"""rerank and view as a user types them: models, budgets, ledgers, caches, and runs that are killed."""

import json
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.cli.test_cli import COMMAND, Rankpipe, rankpipe

__all__ = ["rankpipe"]
FAKE = ("--use", "listwise", "--set", "lm={use: fake}", "--set", "plan={use: sliding, size: 2, step: 1}")


@pytest.fixture
def first(rankpipe: Rankpipe, tiny_path: Path) -> tuple[object, ...]:
    """A run of BM25, and how it is reranked."""
    rankpipe("index", "build", "words", "--data", tiny_path)
    rankpipe("search", "words", "--data", tiny_path, "--out", "a.trec")
    return ("rerank", "a.trec", "--data", tiny_path)


def test_what_the_model_was_shown_and_said(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    assert "say with --out" in rankpipe(*first, *FAKE, "--ledger", code=3).stderr
    said = rankpipe(*first, *FAKE, "--ledger", "--out", "b.trec")
    assert "rankpipe view b.trec" in said.stderr
    made = json.loads(rankpipe("view", "b.trec", "--json").stdout)
    run = (tmp_path / "b.trec").read_text().split()
    assert made["windows"] == sum(made["kinds"].values()) == sum(q["windows"] for q in made["queries"]) > 0
    assert sum(made["percent"].values()) == pytest.approx(100, abs=0.02)
    query = made["queries"][0]["query"]
    windows = json.loads(rankpipe("view", "b.trec", "--query", query, "--json").stdout)
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
    assert "no argument 'budget'" in rankpipe(*first, "--use", "top", "--set", "k=3", "--max-calls", 2, code=3).stderr


def test_answers_are_asked_for_once(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    online = json.loads(rankpipe(*first, *FAKE, "--cache", "c.sqlite", "--out", "b.trec", "--json").stdout)
    assert online["lm"]["cached"]["asked"] > 0
    again = rankpipe(*first, *FAKE, "--cache", "c.sqlite", "--offline", "--out", "c.trec")
    assert "cached: " in again.stderr
    assert " 0 asked" in again.stderr
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "c.trec").read_bytes()
    assert "offline, and it lacks" in rankpipe(*first, *FAKE, "--set", "max_words=1", "--cache", "c.sqlite",
                                               "--offline", code=7).stderr  # fmt: skip
    assert "say with --cache" in rankpipe(*first, *FAKE, "--offline", code=3).stderr
    assert "asks no language model" in rankpipe(*first, "--cache", "c.sqlite", code=3).stderr


def test_a_part_of_an_argument(rankpipe: Rankpipe, first: tuple[object, ...]) -> None:
    noisy = json.loads(rankpipe(*first, *FAKE, "--set", "lm.malformed=1", "--json").stdout)
    assert noisy["steps"][-1]["repaired"] > 0
    assert "lm: fake: no argument 'key'" in rankpipe(*first, *FAKE, "--set", "lm.key=X", code=3).stderr
    assert "use has no arguments to set" in rankpipe(*first, *FAKE, "--set", "use.key=X", code=3).stderr
    both = ("--model", "smollm2", "--set", "lm={use: fake}")
    assert "give one of them" in rankpipe(*first, *both, code=3).stderr


def test_what_goes_where(rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path) -> None:
    rankpipe(*first, *FAKE, "--out", "b.jsonl.gz")
    rankpipe("rerank", "b.jsonl.gz", "--use", "top", "--set", "k=2", "--out", "c.trec")
    assert "asks no language model" in rankpipe(*first, "--ledger", "--out", "d.trec", code=3).stderr
    (tmp_path / "no.sqlite").write_text("something else, and long enough to be looked at " * 40)
    said = rankpipe(*first, *FAKE, "--cache", "no.sqlite", code=6).stderr
    assert "no cache of answers, or damaged; name another path" in said


def test_models(rankpipe: Rankpipe, first: tuple[object, ...]) -> None:
    assert "'encoder', which reranks nothing" in rankpipe(*first, "--model", "bge-small", code=7).stderr
    assert "say which model" in rankpipe(*first, "--lm", "vllm", code=3).stderr
    assert "top takes no model" in rankpipe(*first, "--use", "top", "--model", "smollm2", code=3).stderr


def test_a_killed_rerank_goes_on_where_it_stopped(
    rankpipe: Rankpipe, first: tuple[object, ...], tmp_path: Path
) -> None:
    """What the model has answered a killed run is not asked again, and the run is the same to the byte."""
    rankpipe(*first, *FAKE, "--out", "whole.trec")
    killed(tmp_path, [*first, *FAKE, "--out", "b.trec"], tmp_path / ".b.trec.answers.sqlite")
    done = rankpipe(*first, *FAKE, "--out", "b.trec")
    assert "going on where it stopped" in done.stderr
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "whole.trec").read_bytes()
    assert not [*tmp_path.glob(".b.trec*")]


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
    """Real models, as they are used: whatever was done when the process was killed, the run is the same to the byte."""
    run = [
        "rerank",
        data_root / "trec-dl19-pool" / "runs" / "BM25.trec",
        "--data",
        data_root / "trec-dl19-pool",
        *words,
    ]
    rankpipe(*run, "--out", "whole.trec")
    killed(tmp_path, [*run, "--out", "b.trec"], tmp_path / kept, done=1)
    assert not (tmp_path / "b.trec").exists()
    assert "going on where it stopped" in rankpipe(*run, "--out", "b.trec").stderr
    assert (tmp_path / "b.trec").read_bytes() == (tmp_path / "whole.trec").read_bytes()
    assert len({line.split()[0] for line in (tmp_path / "b.trec").read_text().splitlines()}) == 43


def killed(folder: Path, words: list[object], kept: Path, done: int = 0) -> None:
    """Run a command and kill it as soon as it has kept so many rankings or answers; 0: as soon as there is a file."""
    command = [COMMAND, *map(str, words)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (kept.exists() and _kept(kept) >= done):
            time.sleep(0.001)
        process.kill()
    if not kept.exists():
        pytest.skip("the run ended before it could be killed")


def _kept(path: Path) -> int:
    if path.suffix == ".jsonl":
        return path.read_bytes().count(b"\n")
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM answers WHERE kind IN ('complete', 'choose')").fetchone()[0])
    return 0
