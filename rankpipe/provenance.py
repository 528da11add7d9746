"""Where a figure comes from: which recipe, which code, and which versions of the packages under it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

PACKAGES = (
    "rankpipe", "numpy", "numba", "bm25s", "PyStemmer", "faiss-cpu", "onnxruntime", "tokenizers", "ir-measures",
    "pytrec_eval-terrier", "torch", "transformers", "sentence-transformers", "peft", "accelerate", "datasets",
)  # fmt: skip


def digest(tree: Any) -> str:
    """A recipe's hash: sha256 of its canonical JSON, 16 hex digits."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed; asked once a process."""
    found = {"python": python_version()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str:
    """The commit of the working folder, 12 digits, ``+`` where tracked files differ; ``none`` outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"
