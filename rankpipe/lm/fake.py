"""Language models without weights or network, for tests and documentation. They read the real chat."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random

from rankpipe.errors import ModelError
from rankpipe.lm import Chat, Completion

PASSAGE = re.compile(r"^\[(\w+)\] ?(.*)$", re.MULTILINE)
QUERY = re.compile(r"query: (.*)", re.IGNORECASE)
WORD = re.compile(r"\w+")
TOKEN = re.compile(r"\w+|[^\w\s]")


class Fake(ABC):
    """A model whose tokens are words and marks. ``batches`` holds how many chats each call brought."""

    def __init__(self, context: int = 4096) -> None:
        self.context, self.batches = context, list[int]()

    def count(self, chat: Chat) -> int:
        """Words and marks of all messages."""
        return len(TOKEN.findall(_text(chat)))

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One reply for each chat, whole even if it is longer than ``max_tokens``.

        :raises ModelError: If a chat and ``max_tokens`` are more than ``context``.
        """
        self.batches.append(len(chats))
        return [self._complete(chat, max_tokens) for chat in chats]

    def _complete(self, chat: Chat, max_tokens: int) -> Completion:
        tokens_in = self.count(chat)
        if tokens_in + max_tokens > self.context:
            raise ModelError(f"{tokens_in} tokens and a reply of {max_tokens} do not fit into {self.context}")
        reply = self.reply(_text(chat))
        return Completion(reply, tokens_in, len(TOKEN.findall(reply)))

    @abstractmethod
    def reply(self, text: str) -> str:
        """The reply to a chat's text."""


class Oracle(Fake):
    """A perfect listwise judge: names passages by falling worth of their text."""

    def __init__(self, worth: Callable[[str], float], context: int = 4096) -> None:
        super().__init__(context)
        self.worth = worth

    def reply(self, text: str) -> str:
        """``[2] > [1] > ...``."""
        passages = PASSAGE.findall(text)
        return _ranking([label for label, _ in sorted(passages, key=lambda p: self.worth(p[1]), reverse=True)])


class Scripted(Fake):
    """Says the given replies, one after the other."""

    def __init__(self, replies: Sequence[str], context: int = 4096) -> None:
        super().__init__(context)
        self.replies, self.heard = list(replies), list[str]()

    def reply(self, text: str) -> str:
        """The next reply; what was asked goes to ``heard``.

        :raises ModelError: If there is none left.
        """
        self.heard.append(text)
        if len(self.heard) > len(self.replies):
            raise ModelError(f"Scripted has {len(self.replies)} replies and was asked once more")
        return self.replies[len(self.heard) - 1]


class Noisy(Fake):
    """Judges a passage by the share of the query's words in it, with noise; some of its replies are malformed.

    The same chat gets the same reply, whatever else is asked.

    :param noise: standard deviation of what is added to each share (0 to 1).
    :param malformed: share of the replies that miss, repeat or invent passages, are no ranking, or look otherwise.
    """

    def __init__(self, noise: float = 0.1, malformed: float = 0.0, seed: int = 0, context: int = 4096) -> None:
        super().__init__(context)
        self.noise, self.malformed, self.seed = noise, malformed, seed

    def reply(self, text: str) -> str:
        """``[2] > [1] > ...``, or something like it.

        :raises ModelError: If no line of the chat says ``query: ...``.
        """
        queries = QUERY.findall(text)
        if not queries:
            raise ModelError("the fake model looks for a line 'query: ...' in the prompt, and there is none")
        wanted = set(WORD.findall(queries[-1].lower()))
        random = Random(f"{self.seed} {text}")

        def worth(passage: str) -> float:
            found = wanted & set(WORD.findall(passage.lower()))
            return len(found) / max(len(wanted), 1) + random.gauss(0, self.noise)

        shares = {label: worth(passage) for label, passage in PASSAGE.findall(text)}
        labels = sorted(shares, key=lambda label: -shares[label])
        return random.choice(MISHAPS)(labels) if random.random() < self.malformed else _ranking(labels)


def _text(chat: Chat) -> str:
    return "\n".join(message["content"] for message in chat)


def _ranking(labels: Sequence[str]) -> str:
    return " > ".join(f"[{label}]" for label in labels)


MISHAPS: tuple[Callable[[list[str]], str], ...] = (
    lambda labels: _ranking(labels[: len(labels) // 2]),  # misses passages
    lambda labels: _ranking([labels[0], *labels[:-1]]),  # repeats one and misses one
    lambda labels: _ranking(["0", *labels]),  # invents one
    lambda labels: ", ".join(labels) + ".",  # looks otherwise
    lambda _: "I'm sorry, I cannot rank these passages.",
)
