"""The one way to a language model: many chats in, as many completions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Message = dict[str, str]  # role: system, user or assistant; content
Chat = Sequence[Message]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote, and what it cost in tokens."""

    text: str
    tokens_in: int
    tokens_out: int  # the stop token included


class LM(Protocol):
    """Anything that completes chats. Chat templates, batching, threads and retries are its own business."""

    @property
    def context(self) -> int:
        """How many tokens a chat and its completion may have together."""
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
