"""Ctrl-C while a model is trained: the step that is being made is finished, and nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers

from rankpipe.progress import notice

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # a scheduler's, before it kills


class Ending(transformers.TrainerCallback):  # type: ignore[misc]
    """A first Ctrl-C, or SIGTERM, ends the training behind its step, with a checkpoint; a second one ends it at once.

    Not with several processes: they would have to agree on the step.
    """

    def __init__(self) -> None:
        self._asked = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Inside, signals are heard; in other threads than the first, Python lets nobody hear them.

        :raises KeyboardInterrupt: When the checkpoint is written.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """Have a checkpoint written, if that was asked for."""
        control.should_save |= self._asked

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        """It is written."""
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, *_: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        notice("it ends when this step is made and kept; once more ends it at once")
