"""Do the tests fail when they should? mutmut breaks the code in one small place at a time; some test must notice.

python eval/bench/mutants.py [--workers 1]

A mutant that no test notices survives. ``[tool.mutmut]`` says which modules are mutated, and by which tests they are
tried. Only the copy in ``mutants/`` is ever changed: ``mutmut results`` lists its survivors, ``mutmut show NAME`` says
what was done. What stands outside of functions is left alone, and so are functions with a decorator, properties too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from common import HERE, ROOT, Row, file

CAUGHT = ("killed", "timeout", "segfault")  # what a test run can tell from the whole code


def main() -> None:
    """Run mutmut anew, and file the score of each module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="mutants tested at once")
    parser.add_argument("--into", type=Path, default=HERE, help="where the result is filed")
    told = parser.parse_args()
    copy = ROOT / "mutants"
    shutil.rmtree(copy, ignore_errors=True)
    run("--max-children", str(told.workers))
    if slow := [name for path in metas(copy) for name, outcome in outcomes(path).items() if outcome == "timeout"]:
        run("--max-children", "1", *slow)  # it may have been the machine
    file("mutants", rows(copy), told.into, {p: version(p) for p in ("mutmut", "pytest", "hypothesis")})


def run(*words: str) -> None:
    """Make what mutants there are not yet, and test them; those named once more."""
    subprocess.run([str(Path(sys.executable).with_name("mutmut")), "run", *words], cwd=ROOT, check=True)


def metas(copy: Path) -> list[Path]:
    """Where mutmut notes what became of the mutants of a module."""
    return sorted(copy.rglob("*.py.meta"))


def outcomes(meta: Path) -> dict[str, str]:
    """What became of each mutant, in mutmut's words: killed, survived, ..."""
    from mutmut.stats import status_by_exit_code

    return {name: status_by_exit_code[code] for name, code in json.loads(meta.read_text())["exit_code_by_key"].items()}


def rows(copy: Path) -> list[Row]:
    """A row for each mutated module, and one for all."""
    found = {str(path.relative_to(copy).with_suffix("")): Counter(outcomes(path).values()) for path in metas(copy)}
    modules = {module: counts for module, counts in found.items() if counts}
    return [row(name, counts) for name, counts in (*modules.items(), ("all", sum(modules.values(), Counter())))]


def row(name: str, counts: Counter[str]) -> Row:
    """The score, and what it is made of."""
    if unknown := [status for status in counts if status not in (*CAUGHT, "survived", "no tests")]:
        raise SystemExit(f"{name}: mutants {', '.join(unknown)}: the run is not whole")
    caught = sum(counts[status] for status in CAUGHT)
    return {
        "module": name,
        "mutants": counts.total(),
        "caught": caught,
        "by_timeout": counts["timeout"],
        "survived": counts["survived"],
        "no_test": counts["no tests"],
        "percent": round(100 * caught / counts.total(), 1),
    }


if __name__ == "__main__":
    main()
