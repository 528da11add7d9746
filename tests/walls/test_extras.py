"""Extras stand together: each with each other, and ``all``, on every Python we name. Installs nothing.

uv resolves, because pip's dry run downloads whole wheels; it reads the versions of the index's metadata alone.
"""

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from rankpipe.catalog import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13")
APART = {  # not in ``all``, and why
    "gpu": "needs an NVIDIA GPU, and owns the module faiss together with the base's faiss-cpu",
    "vllm": "needs a GPU, and holds these back",
}
HELD_BACK = {"vllm": {"torch", "transformers", "numpy", "numba"}}  # the only versions that one extra changes in another
PAIRS = [*combinations(sorted(EXTRAS), 2)]


def direct(extra: str) -> set[str]:
    """The packages that an extra asks for by name, those of the extras inside it too."""
    found: set[str] = set()
    for requirement in DECLARED[extra]:
        if inner := re.match(r"rankpipe\[(.+)\]", requirement):
            found |= {p for e in inner[1].split(",") for p in direct(e)}
        else:
            found.add(re.split(r"[^\w-]", requirement)[0].lower())
    return found


@cache
def resolved(python: str, extras: tuple[str, ...], *options: str) -> dict[str, str]:
    """Package to version, as an installer would take them; the resolver's words where there is no answer."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate",
        "--python", sys.executable, "--python-version", python, *options,
        *(word for e in extras for word in ("--extra", e)), "pyproject.toml",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | settings())
    if done.returncode:
        pytest.fail(f"{extras} on Python {python}: {done.stderr}")
    return dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)


@cache
def settings() -> dict[str, str]:
    """Pip's index, for uv, which does not read pip's settings."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found = re.search(r"^\S+\.index-url='(.+)'$", done.stdout, re.M)
    return {"UV_DEFAULT_INDEX": found[1]} if found and "UV_DEFAULT_INDEX" not in os.environ else {}


def test_all_is_all_but_those_apart() -> None:
    [whole] = DECLARED["all"]
    assert set(whole.removeprefix("rankpipe[").removesuffix("]").split(",")) == set(EXTRAS) - set(APART)


def test_the_reasons_are_told() -> None:
    told = (ROOT / "docs" / "versions.md").read_text("utf-8")
    assert all(f"`{extra}`" in told for extra in APART)


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_extras_stand_together(pair: tuple[str, str], python: str) -> None:
    both = resolved(python, pair)
    held = set().union(*(HELD_BACK.get(e, ()) for e in pair))
    for extra in pair:
        alone = resolved(python, (extra,))
        changed = {p: (alone[p], both[p]) for p in direct(extra) - held if alone[p] != both[p]}
        assert not changed, f"{pair} gives {extra} other versions than it has alone: {changed}"


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_all_stand_together(python: str) -> None:
    together = resolved(python, ("all",))
    for extra in set(EXTRAS) - set(APART):
        alone = resolved(python, (extra,))
        assert {p: together[p] for p in direct(extra)} == {p: alone[p] for p in direct(extra)}, extra


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_the_two_builds_of_faiss_are_of_one_version(python: str) -> None:
    """So that what faiss-gpu lays over faiss-cpu covers it whole."""
    found = resolved(python, ("gpu",))
    assert found["faiss-gpu"] == found["faiss-cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted({*EXTRAS, "dev"} - {"vllm"}))
def test_the_constraints_bear_every_extra_but_vllm(extra: str) -> None:
    resolved("3.11", (extra,), "--constraint", "constraints.txt")


@pytest.mark.slow
def test_the_constraints_do_not_bear_vllm() -> None:
    with pytest.raises(pytest.fail.Exception, match="transformers"):
        resolved("3.11", ("vllm",), "--constraint", "constraints.txt")


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - set(APART)))
def test_the_oldest_versions_we_name_can_be_had(extra: str) -> None:
    """``pyserini`` and some old releases come as source; the others have a wheel for the oldest Python."""
    resolved("3.11", (extra,), "--resolution", "lowest-direct", "--only-binary=:all:", "--no-binary=pyserini")
