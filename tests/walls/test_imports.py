"""Importing is free."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "rankpipe"
# classes of torch's and transformers' own kind, and what Numba compiles; no other module imports these on import
HEAVY_ONES = ("rankpipe.train.optimizers.lowrank", "rankpipe.train.loop", "rankpipe.retrieve.compiled")
MODULES = [
    name
    for p in sorted(ROOT.rglob("*.py"))
    if not (
        name := ".".join(("rankpipe", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    ).startswith(HEAVY_ONES)
]
HEAVY = {
    "torch", "transformers", "sentence_transformers", "faiss", "bm25s", "onnxruntime", "tokenizers", "scipy",
    "ir_measures", "ir_datasets", "datasets", "peft", "lightgbm", "catboost", "jnius", "pyserini", "vllm",
    "huggingface_hub", "yaml", "numba",
}  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """The top-level modules that running ``code`` in a fresh interpreter loads, beyond the standard library."""
    code = f"import sys, json; had = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - had)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {m.split(".")[0] for m in json.loads(done.stdout)} - set(sys.stdlib_module_names)


def test_the_package_loads_no_third_party_module() -> None:
    assert loaded_by("import rankpipe, rankpipe.recipe, rankpipe.catalog, rankpipe.store, rankpipe.trec") == {
        "rankpipe"
    }


def test_no_module_loads_a_heavy_one() -> None:
    code = "import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in MODULES)
    assert not loaded_by(code) & HEAVY


def test_importing_changes_nothing(tmp_path: Path) -> None:
    code = (
        "import os, threading, importlib; before = dict(os.environ)\n"
        + "\n".join(f"importlib.import_module({m!r})" for m in MODULES)
        + "\nassert dict(os.environ) == before and threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", __import__("rankpipe").__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(__import__("rankpipe"), name)


def test_the_catalogue_names_real_components() -> None:
    from rankpipe.catalog import CATALOG, find

    for name, entry in CATALOG.items():
        assert find(name).__doc__, name
        assert importlib.util.find_spec(entry.target.split(":")[0])
