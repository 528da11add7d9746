"""Commands in processes of their own that need not load everybody's packages again: forked from one that has."""

from __future__ import annotations

import atexit
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

COMMAND = str(Path(sys.executable).parent / "rankpipe")
LOADED = ("typer._adapters", "rich.table", "rich.progress", "scipy.sparse", "yaml", "logging")  # nothing of ours
_context = get_context("forkserver")
_context.set_forkserver_preload([*LOADED])


def run(words: Sequence[str], cwd: Path) -> CompletedProcess[str]:
    """``rankpipe`` with these arguments, in a folder, as ``subprocess.run`` would; what it says is captured."""
    with TemporaryDirectory() as said:
        files = [f"{said}/{name}" for name in ("out", "err")]
        child = _context.Process(target=_command, args=(words, cwd, dict(os.environ), files))
        child.start()
        child.join()
        out, err = (Path(file).read_text("utf-8") for file in files)
    return CompletedProcess([*words], child.exitcode or 0, out, err)


def _command(words: Sequence[str], cwd: Path, env: Mapping[str, str], files: Sequence[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))  # which is read at the start only
    os.chdir(cwd)
    sys.argv = [COMMAND, *words]
    try:
        runpy.run_path(COMMAND, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a forked process has none
