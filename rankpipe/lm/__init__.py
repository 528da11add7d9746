"""The one way to a language model: it completes many chats at once, or says how likely a few continuations are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Message = dict[str, str]  # role: system, user or assistant; content
Chat = Sequence[Message]
AT_ONCE = 32  # chats of a call, for a model that does not say


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote, and what it cost in tokens."""

    text: str
    tokens_in: int
    tokens_out: int  # the stop token included
    seconds: float | None = field(default=None, compare=False)  # that it took when it was asked: a cache remembers
    late: bool = False  # there is no answer, for it was not there in time (rankpipe/lm/due.py)


@dataclass(frozen=True, slots=True)
class Choice:
    """How likely a model finds each of a few next tokens."""

    logprobs: tuple[float, ...]  # natural logarithms, in the order asked; -inf where the model does not say
    tokens_in: int
    seconds: float | None = field(default=None, compare=False)  # that it took when it was asked: a cache remembers
    late: bool = False  # as of a completion


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a whole reply."""

    logprob: float  # the sum over its tokens, natural logarithm
    tokens: int  # of the reply
    tokens_in: int
    seconds: float | None = field(default=None, compare=False)  # that it took when it was asked: a cache remembers
    late: bool = False  # as of a completion


class LM(Protocol):
    """Anything that completes chats. Chat templates, batching, threads and retries are its own business.

    One that has ``together`` says for how many queries it is best asked at once, and so how much a kill may lose; one
    that has ``at_once``, how many chats a call should bring where there are more to be asked; one that has
    ``thinking``, how many tokens a completion may have beyond ``max_tokens``; one that has ``at_most(chat)`` need not
    ``count`` where that many fit; one that has ``parallel`` counts so many chats at once, in as many threads; and one
    that has ``ready()`` is loaded by it, see :func:`prepare`.
    """

    @property
    def context(self) -> int:
        """How many tokens a chat and its completion may have together."""
        ...

    @property
    def identity(self) -> str:
        """What decides its replies: model, weights, adapter, number format; what a cache is keyed by."""
        ...

    def count(self, chat: Chat) -> int:
        """Tokens of the chat as the model is shown it: with its chat template, ready for the reply."""
        ...

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One completion for each chat, in order: the likeliest tokens, so that the same chat gets the same reply.

        :param max_tokens: where a reply is broken off that the model has not ended by itself.
        :raises ModelError: If a chat cannot be completed, such as one too long for ``context``.
        """
        ...

    def is_token(self, text: str, *, begin: str = "") -> bool:
        """Whether ``text`` is a single token as it stands after ``begin``, so that :meth:`choose` takes it.

        True where nobody can say.
        """
        ...

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """How likely each of ``choices`` is as the next token; one forward pass for each chat, nothing is generated.

        :param choices: texts of one token each, as they stand after ``begin``.
        :param begin: how the reply is made to begin (FIRST: ``[``).
        :raises ModelError: If a choice is no single token, or this model cannot say.
        """
        ...

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """How likely each reply is to its chat (UPR, Sachan et al. 2022: the query, given a passage).

        :raises ModelError: If this model cannot say.
        """
        ...


def prepare(lm: LM) -> None:
    """Load a model that says how (``ready``), so that the seconds of its first answers are their own."""
    if ready := getattr(lm, "ready", None):
        ready()
