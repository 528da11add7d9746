"""Progress, as a person sees it: on a terminal, and in a log."""

import io
import json
import sys
import time
from contextlib import redirect_stderr

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from rankpipe.cli import show
from rankpipe.cli.shown import Shown
from rankpipe.progress import listening, track, working


class Clock:
    """Goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def in_log() -> tuple[Shown, io.StringIO, Clock]:
    seen, clock = io.StringIO(), Clock()
    return Shown(Console(file=seen, width=120), clock=clock), seen, clock


def test_json_is_alone_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "manner", show.Manner())
    app = typer.Typer()

    @show.verb(app, "it", bare=True)
    def it() -> None:
        print("a library speaks")
        show.emit({"a": 1}, lambda: print("a is 1"))

    alone, words = (CliRunner().invoke(app, options) for options in (["--json"], []))
    assert json.loads(alone.stdout) == {"a": 1}
    assert "a library speaks" in alone.stderr
    assert words.stdout.splitlines() == ["a library speaks", "a is 1"]


def test_nobody_listens() -> None:
    with working("work"):
        assert list(track([1, 2], "items")) == [1, 2]


def test_a_log_has_a_line_at_the_end_of_long_work() -> None:
    listener, seen, clock = in_log()
    with listening(listener):
        with working("short"):
            clock.now += 2
        with working("long [work]"):
            clock.now += 21
        for _ in track(range(4), "some [items]"):
            clock.now += 2
    assert seen.getvalue().splitlines() == ["long [work]: 21 s", "some [items]: 4/4, 0.5/s, 8 s"]


def test_a_log_is_told_the_time_left_after_ten_seconds_and_then_every_thirty() -> None:
    listener, seen, clock = in_log()
    with listening(listener):
        for label, items in (("a", range(10)), ("b", iter(range(3)))):
            for _ in track(items, label):
                clock.now += 6
    assert seen.getvalue().splitlines() == [
        "a: 2/10, 0.167/s, 12 s, 48 s left", "a: 7/10, 0.167/s, 42 s, 18 s left", "a: 10/10, 0.167/s, 60 s",
        "b: 2, 0.167/s, 12 s", "b: 3, 0.167/s, 18 s",
    ]  # fmt: skip


def test_failed_work_is_not_told_as_done() -> None:
    listener, seen, clock = in_log()
    with listening(listener), pytest.raises(ZeroDivisionError), working("work"):
        clock.now += 5
        raise ZeroDivisionError
    assert seen.getvalue() == ""


def test_a_terminal_shows_work_while_it_goes_on_and_not_when_it_is_short() -> None:
    seen, sizes = io.StringIO(), []
    listener = Shown(Console(file=seen, force_terminal=True, width=120), patience_s=0.5)
    with listening(listener):
        with working("short"):
            pass
        assert "short" not in seen.getvalue()
        with working("long"), redirect_stderr(io.StringIO()):  # as around libraries with bars of their own
            for _ in range(4):
                time.sleep(0.4)
                sizes.append(len(seen.getvalue()))
            assert "long" in seen.getvalue()
            for _ in track(range(2), "some [work]"):
                time.sleep(0.6)
    assert sizes[-1] > sizes[0]
    assert "some [work]" in seen.getvalue(), repr(seen.getvalue()[-1500:])
    assert listener.bars is None


def test_what_replaces_standard_error_does_not_hide_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", seen)
    console = Console(stderr=True, force_terminal=True, width=120)
    with listening(Shown(console, patience_s=0.05)), working("long"), redirect_stderr(io.StringIO()):
        time.sleep(0.5)
        assert "long" in seen.getvalue()
    monkeypatch.undo()
    assert console.file is sys.stderr


@pytest.mark.parametrize("width", [80, 120])
def test_a_wide_table_stacks_its_headings_and_loses_nothing(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    seen = io.StringIO()
    monkeypatch.setattr(show, "out", Console(file=seen, width=width))
    columns = ("query", "windows", "ok", "wrong format", "repetition", "missing documents", "tokens in", "seconds")
    show.table("", columns, [(1037798, 9, 0, 8, 1, 0, 17234, "44.80"), ("q[2]", None, 1, 2, 3, 4, 5, "6.00")])
    told = seen.getvalue()
    assert max(map(len, told.splitlines())) <= width
    assert {*" ".join(columns).split(), "1037798", "17234", "44.80", "q[2]"} <= {
        *told.replace("┃", " ").replace("│", " ").split()
    }
