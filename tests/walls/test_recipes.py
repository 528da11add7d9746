"""Every recipe on the shelves can be built."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rankpipe import recipe
from rankpipe.datasets import open_dataset
from rankpipe.errors import ArtefactError, DataError, Fault, MissingExtra
from rankpipe.measure.experiment import Experiment
from rankpipe.retrieve import shelf

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted(ROOT.glob("indexes/*/recipe.yaml")), ids=lambda p: p.parent.name)
def test_index_recipe(path: Path) -> None:
    refused(shelf.check(recipe.load(path)))


@pytest.mark.parametrize("path", sorted(ROOT.glob("eval/*/recipe.yaml")), ids=lambda p: p.parent.name)
def test_eval_recipe(path: Path, data_root: Path) -> None:
    try:
        open_dataset(recipe.load(path)["data"])
    except DataError as error:
        pytest.skip(str(error))
    refused(Experiment(path).check())


def refused(faults: Sequence[str]) -> None:
    """Nothing, but for what is not installed here, or models that are not tuned here."""
    if faults and all(isinstance(fault, Fault) and fault.kind in (MissingExtra, ArtefactError) for fault in faults):
        pytest.skip(faults[0])
    assert faults == []


def test_manifests_are_not_kept_in_git() -> None:
    """They would name files that git has not, and change with every build."""
    shelves = [f"{shelf}/*/manifest.json" for shelf in ("indexes", "eval")]
    done = subprocess.run(["git", "ls-files", *shelves], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(done.stderr)
    assert done.stdout == ""


def test_the_house_has_its_rooms() -> None:
    for name in ("rankpipe", "indexes", "models", "eval", "tests", "pyproject.toml", "Makefile", ".ci/run"):
        assert (ROOT / name).exists()
