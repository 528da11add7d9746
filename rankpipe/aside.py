"""What an engine is started in: settings of the environment for as long as that takes, and its chatter put aside."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryFile


@contextmanager
def settings(ours: Mapping[str, str]) -> Iterator[None]:
    """Inside, the environment has these too, where it does not say otherwise, and no warnings are shown."""
    lacking = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ |= lacking
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in lacking:
            os.environ.pop(name, None)


@contextmanager
def muted() -> Iterator[Callable[[], str]]:
    """Inside, what this process and those that it starts print goes elsewhere; gives what finds the error in it."""
    with TemporaryFile("w+", errors="replace") as kept:

        def said() -> str:
            kept.seek(0)
            errors = [line.strip() for line in kept if "Error: " in line]
            return f" ({errors[-1]})" if errors else ""

        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        before = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in before:
                os.dup2(kept.fileno(), number)
            yield said
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, old in before:
                os.dup2(old, number)
                os.close(old)
