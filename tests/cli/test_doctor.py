"""The doctor's cures: each is the one command for that fault of that part."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from rankpipe.catalog import EXTRAS, installed
from rankpipe.cli.doctor import cure, examine, last_error
from rankpipe.cli.probes import PARTS
from rankpipe.errors import DataError

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_extra_has_a_part_that_tries_it() -> None:
    declared = set(PROJECT["optional-dependencies"]) - {"all", "dev", "mutants"}
    assert declared == set(EXTRAS) == {p.extra for p in PARTS.values()} - {""}


@pytest.mark.parametrize(
    ("part", "kind", "said", "command"),
    [
        ("model smollm2", "MissingWeights", "smollm2 is not in the cache", "rankpipe pull smollm2"),
        ("model bge-small", "ArtefactError", "changed on disk", "rankpipe pull bge-small"),
        ("model minilm", "RuntimeError", "header too large", "rankpipe pull minilm"),
        ("java", "MissingExtra", "lucene needs 'Java 21 or newer'", "pip install 'rankpipe[java]'"),
        ("torch", "ModuleNotFoundError", "No module named 'no_such_part_of_torch'", "pip install 'rankpipe[lm]'"),
        ("bm25", "ModuleNotFoundError", "No module named 'no_such_module'", "pip install rankpipe"),
        # installed by its metadata, yet not there: what a package leaves that was removed by hand
        ("bm25", "ModuleNotFoundError", "No module named 'Stemmer'", "REINSTALL PyStemmer"),
        ("measures", "ModuleNotFoundError", "No module named 'scipy.stats'", "REINSTALL scipy"),
        # there, and fails
        ("bm25", "signal", "ended by signal 11", "REINSTALL bm25s PyStemmer"),
        ("model bge-small", "ImportError", "libonnx.so: bad header", "REINSTALL onnxruntime tokenizers"),
        ("faiss", "AttributeError", "module 'faiss' has no attribute 'IndexFlatIP'", "REINSTALL faiss-cpu"),
    ],
)
def test_cures(part: str, kind: str, said: str, command: str) -> None:
    words = command.split()
    if words[0] == "REINSTALL":
        pins = " ".join(f"{name}=={version(name)}" for name in words[1:])
        command = f"pip install --force-reinstall --no-deps {pins}"
    assert cure(part, kind, said) == command


def test_the_last_error_of_a_process() -> None:
    stderr = (
        "a remark\nTraceback (most recent call last):\n  File 'a'\nKeyError: 'x'\n\nDuring handling, another:\n\n"
        "Traceback (most recent call last):\n  File 'b'\nrankpipe.errors.DataError: a: first\nsecond: line\n"
    )
    assert last_error(stderr, 1) == ("DataError", "a: first\nsecond: line")
    assert last_error("", -11) == ("signal", "ended by signal 11")
    assert last_error("Killed\n", 1) == ("Killed", "Killed")


def test_an_extra_is_tried_by_its_parts() -> None:
    absent = [e for e in EXTRAS if not all(map(installed, EXTRAS[e]))]
    for found in examine(absent) if absent else []:
        assert (found.state, found.cure) == ("absent", f"pip install 'rankpipe[{PARTS[found.part].extra}]'")
    with pytest.raises(DataError, match="did you mean java"):
        examine(["jaba"])


@pytest.mark.slow
def test_the_cures_mend(tmp_path: Path) -> None:
    """Break an environment in three ways; what the doctor says, typed as it stands, mends it."""
    root = Path(__file__).parents[2]
    bin = tmp_path / "venv" / "bin"
    env = {
        **os.environ,
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(root / "constraints.txt"),
    }
    env.pop("PYTHONPATH", None)

    def sh(command: str, code: int = 0) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == code, (command, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    sh(f"pip install -q '{root}'")
    packages = next((tmp_path / "venv" / "lib").iterdir()) / "site-packages"
    breaks = {
        "pip uninstall -q -y PyStemmer": "pip install rankpipe",
        f"echo 'raise AttributeError(1)' > {packages}/bm25s/__init__.py": "--force-reinstall --no-deps bm25s==",
        f"rm -r {packages}/bm25s": "--force-reinstall --no-deps bm25s==",
    }
    for command, expected in breaks.items():
        sh(command)
        [found] = json.loads(sh("rankpipe doctor bm25 --json --quiet", code=5))
        assert found["state"] == "broken"
        assert expected in found["cure"]
        sh(found["cure"])
        [found] = json.loads(sh("rankpipe doctor bm25 --json --quiet"))
        assert found["state"] == "works"
