"""The benchmark programs start, race fairly and file what tables can show; what they measure is nobody's test."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "eval" / "bench"
PROGRAMS = (
    "differences", "encode", "engines", "index", "install", "layers", "listwise", "mutants", "plans", "scaling",
    "scifact", "startup", "train",
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_starts(program: str) -> None:
    done = subprocess.run([sys.executable, BENCH / f"{program}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--into" in done.stdout


def test_a_race_is_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from common import race

    seen: list[str] = []

    def runner(name: str, *seconds: float):  # type: ignore[no-untyped-def]
        left = iter(seconds)
        return lambda: (next(left), seen.append(name))

    done = race({"a": runner("a", 1.0, 5.0, 2.0), "b": runner("b", 4.0, 3.0, 9.0)}, 3)
    rounds = [seen[i : i + 2] for i in range(0, 6, 2)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(rounds[2]) == ["a", "b"]
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]
    assert [*done] == ["a", "b"]
    assert {name: timed.median for name, timed in done.items()} == {"a": 2.0, "b": 4.0}


def test_what_is_filed_can_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from common import file

    filed = file("race", [{"who": "a", "seconds": 2.0}, {"who": "b", "seconds": None}], tmp_path, {"b": "1.0"})
    assert filed.parent == tmp_path / "race" / "results"
    assert "| a | 2 |" in capsys.readouterr().out
