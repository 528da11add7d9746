"""Transformers without its chatter."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from rankpipe.catalog import need


@contextmanager
def quiet() -> Iterator[None]:
    """Load models without log lines and progress bars; errors are raised as ever. Needs transformers."""
    log = need("transformers.utils.logging", name="this model", extra="lm")
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # some bars heed no setting
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
