"""Tables on a narrow terminal: nothing is cut, and nothing is left out."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from rankpipe.cli import app, evaluate, house, index, probe, rerank, search, show, view

assert all((evaluate.compare, house.ls, index.info, probe.probe, rerank.rerank, search.search, view.view))  # verbs
FRAME = re.compile(r"[\s┏┳┓┃┡╇┩│└┴┘┌┐━─]")
FIRST, SECOND = "bm25-of-the-tiny-collection.trec", "reranked.by.listwise.trec"
FAKE = ("--use", "listwise", "--set", "lm={use: fake}", "--set", "plan={use: sliding, size: 5, step: 2}")


def ran(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def drawn(words: list[str], width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(show, "out", Console(width=width))
    return ran(*words).partition("┃stage")[0]  # what its stages cost is never the same


def whole(narrow: str, wide: str, width: int) -> None:
    """All that the wide one shows is in the narrow one, and no line of a table is too long."""
    lost = Counter(FRAME.sub("", wide)) - Counter(FRAME.sub("", narrow))
    assert not lost, (lost, narrow)
    framed = [line for line in narrow.splitlines() if line[:1] in "┏┃┡│└┌"]
    assert max(map(cell_len, framed), default=0) <= width, narrow


@pytest.fixture(scope="module")
def made(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index, a run, and one that was reranked; of names as people give them."""
    folder, data = tmp_path_factory.mktemp("made"), ("--data", str(tiny_path))
    ran("index", "build", str(folder / "words"), *data)
    ran("search", str(folder / "words"), *data, "--out", str(folder / FIRST))
    ran("rerank", str(folder / FIRST), *data, *FAKE, "--ledger", "--out", str(folder / SECOND))
    return folder


@pytest.fixture
def runs(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder."""
    monkeypatch.chdir(made)
    return made


MEASURES = "-m nDCG@10 -m R@100 -m RR(rel=2)@10 -m nDCG(dcg='exp-log2')@10"
COMMANDS = [
    f"compare {FIRST} {SECOND} --data DATA {MEASURES}",
    f"eval {FIRST} {SECOND} --data DATA --per-query",
    f"eval {FIRST} {SECOND} --data DATA {MEASURES} --per-query",
    f"view {SECOND}",
    f"view {SECOND} --query q4",
    "search words herring",
    "search words herring --show colour,a-field-with-a-long-name",
    "ls",
    "ls first",
    "ls rank-zephyr",
    "ls lm",
    "index info words",
    "data DATA",
    "doctor gpu",
    f"probe {FIRST} --data DATA {' '.join(FAKE[:4])}".replace("lm={use: fake}", "lm=fake"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_all_on_eighty_columns(
    runs: Path, tiny_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (runs / FIRST).exists()
    words = [word.replace("DATA", str(tiny_path)) for word in command.split()]
    whole(drawn(words, 80, monkeypatch), drawn(words, 1000, monkeypatch), 80)


def verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", {})
    for name, one in inner.items():
        yield from verbs(one, (*words, name))
    if not inner:
        yield words


def test_help_is_whole_on_eighty_columns() -> None:
    asked = [*verbs(typer.main.get_command(app))]
    assert {("search",), ("index", "build"), ("rerank",)} <= {*asked}
    for words in asked:
        told = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output
        assert max(map(len, told.splitlines())) <= 80
        assert "…" not in told, told


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_no_table_loses_anything(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("a text", "a number", "a second number", "[text]", "", "a sixth, longer than others")
    rows = [
        ("x" * 40, "1" * 9, 2.5, "word " * 30, "漢字" * 12, None),
        ("", 0, 1, "one\ntwo", "", "[red]12345678"),
    ]
    seen = []
    for columns_wide in (width, 2000):
        console = Console(width=columns_wide)
        monkeypatch.setattr(show, "out", console)
        with console.capture() as got:
            show.table("", columns, rows, text=("[text]", ""))
        seen.append(got.get())
    whole(*seen, width)


def test_rows_become_lines_where_columns_do_not_fit(
    runs: Path, tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (runs / SECOND).exists()
    said = drawn(["view", SECOND, "--query", "q4"], 80, monkeypatch).splitlines()
    assert said[:2] == ["query q4", "window 1"]
    assert re.fullmatch(r"  shown( [a-z]+-\d){5}", said[2])
    compared = drawn(["compare", FIRST, SECOND, "--data", str(tiny_path)], 80, monkeypatch)
    assert f"{SECOND} against {FIRST}" in compared
    assert re.search(r"│nDCG@10 +│ [+-]0\.\d{4} │ \[[+-]0\.\d{4}, [+-]0\.\d{4}\] │", compared)
