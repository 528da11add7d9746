"""How long until something happens: fresh processes that import or show help, interleaved with rivals'.

python eval/bench/startup.py [--times 9] [--pyserini PYTHON]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from common import HERE, OUR_CODE, Row, Timed, clocked, file, race, version_in

VERB = "import sys; sys.argv = {words!r}\nfrom rankpipe.cli import main\ntry: main()\nexcept SystemExit: pass\n"
FOREIGN = """
names = {m.split(".")[0] for m in sys.modules} - set(sys.stdlib_module_names) - {"rankpipe", "__main__"}
print(len({m for m in names if not m.startswith("_")}), file=sys.stderr)
"""
BOUNDS_S = {"import rankpipe": 0.15, "rankpipe --help": 0.6}
LUCENE = "pyserini, its JVM started"


def main() -> None:
    """Race, and file the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=9, help="fresh processes of each")
    parser.add_argument("--pyserini", type=Path, metavar="PYTHON", help="of an environment that has pyserini")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    runners = {name: clocked(partial(quietly, command)) for name, command in processes(told.pyserini).items()}
    race(runners, 1)  # brings their files into the disk's cache
    also = {"pyserini": version_in(told.pyserini, "pyserini")} if told.pyserini else {}
    file("startup", rows(race(runners, told.times)), told.into, also)


def processes(pyserini: Path | None) -> dict[str, list[str]]:
    """The command of each rival."""
    python, rankpipe = sys.executable, str(Path(sys.executable).with_name("rankpipe"))
    commands = {
        "python -c pass": [python, "-c", "pass"],
        "import rankpipe": [python, "-c", "import rankpipe"],
        "rankpipe --help": [rankpipe, "--help"],
        "rankpipe search --help": [rankpipe, "search", "--help"],
        "import bm25s": [python, "-c", "import bm25s"],
        "import sentence_transformers": [python, "-c", "import sentence_transformers"],
    }
    if pyserini:
        commands[LUCENE] = [str(pyserini), "-c", "from rankpipe.java import start; start()"]
    return commands


def rows(done: dict[str, Timed[None]]) -> list[Row]:
    """Medians, what is beyond the bare interpreter's, and the bounds we set ourselves."""
    bare = done["python -c pass"].median
    return [
        {
            "process": name,
            "median_s": round(timed.median, 4),
            "least_s": round(min(timed.seconds), 4),
            "beyond_python_s": round(timed.median - bare, 4),
            "third_party_modules": foreign(name),
            "bound_s": BOUNDS_S.get(name),
            "runs": len(timed.seconds),
        }
        for name, timed in done.items()
    ]


def foreign(name: str) -> int | None:
    """How many packages beyond the standard library are loaded; None for one that lives in another environment."""
    if name == LUCENE:
        return None
    code = VERB.format(words=name.split()) if name.startswith("rankpipe") else name.removeprefix("python -c ")
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys{FOREIGN}"], check=True, capture_output=True, text=True, env=OUR_CODE
    )
    return int(done.stderr.splitlines()[-1])


def quietly(command: list[str]) -> None:
    """Run it to its end; its output is nobody's."""
    subprocess.run(command, check=True, capture_output=True, env=OUR_CODE)


if __name__ == "__main__":
    main()
