"""Transformers without its chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rankpipe.catalog import need


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars, logs no warnings and announces no removals, and bitsandbytes does
    not tell which of its kernels it does without; errors are raised as ever. Afterwards all is as before.
    """
    log = need("transformers.utils.logging", name="this model", extra="lm")
    bits = logging.getLogger("bitsandbytes")
    level, bars, told = log.get_verbosity(), log.is_progress_bar_enabled(), bits.level
    log.set_verbosity_error()
    bits.setLevel(logging.ERROR)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        log.set_verbosity(level)
        bits.setLevel(told)
        if bars:
            log.enable_progress_bar()
