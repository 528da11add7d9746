"""Language models without weights or network, for tests and documentation. They read the real chat."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf, log
from random import Random

from rankpipe.errors import ModelError
from rankpipe.lm import Chat, Choice, Completion, Likelihood

PASSAGE = re.compile(r"^(?:Passage |PASSAGE(?!S:)|\[)(\w+)(?:\]|:| =) ?(.*)$", re.MULTILINE)  # as our prompts show one
BEHIND = re.compile(r"^(.*) \[(\w+)\]$", re.MULTILINE)  # the label behind its passage
LONE = re.compile(r"^(?:Passage|<Document>): (.*)$", re.MULTILINE)  # the one passage of a prompt for yes or no
QUERY = re.compile(r"(?:query>?|question): (.*)", re.IGNORECASE)
GIVEN = re.compile(r'^Given a query "(.*)", which ', re.MULTILINE)  # before the passages, as setwise prompts begin
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

    def is_token(self, text: str, *, begin: str = "") -> bool:  # noqa: ARG002
        """Whether it is a word or a mark."""
        return TOKEN.fullmatch(text) is not None

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:  # noqa: ARG002
        """A choice is the likelier the earlier the reply names it: of n named ones n, n - 1, ... times as likely as the
        last one; one that is not named cannot come.
        """
        self.batches.append(len(chats))
        return [self._choose(chat, choices) for chat in chats]

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """A word of the reply has the probability .9 if the chat has it, else .01."""
        self.batches.append(len(chats))
        return [self._likelihood(chat, reply) for chat, reply in zip(chats, replies, strict=True)]

    @property
    def identity(self) -> str:
        """The class and what it was made with."""
        told = {k: v for k, v in vars(self).items() if k not in ("batches", "replies", "heard")}
        return f"{type(self).__name__} {told}"

    def _choose(self, chat: Chat, choices: Sequence[str]) -> Choice:
        tokens_in = self._fitting(chat, 1)
        words = [c.strip() for c in choices]  # a token may have a blank before its word
        named = [w for w in dict.fromkeys(WORD.findall(self.reply(_text(chat)))) if w in words]
        weights = {name: len(named) - i for i, name in enumerate(named)}
        total = sum(weights.values())
        return Choice(tuple(log(weights[w] / total) if w in weights else -inf for w in words), tokens_in)

    def _likelihood(self, chat: Chat, reply: str) -> Likelihood:
        known, words = set(WORD.findall(_text(chat).lower())), WORD.findall(reply.lower())
        return Likelihood(sum(log(0.9 if w in known else 0.01) for w in words), len(words), self.count(chat))

    def _fitting(self, chat: Chat, max_tokens: int) -> int:
        tokens_in = self.count(chat)
        if tokens_in + max_tokens > self.context:
            raise ModelError(f"{tokens_in} tokens and a reply of {max_tokens} do not fit into {self.context}")
        return tokens_in

    def _complete(self, chat: Chat, max_tokens: int) -> Completion:
        tokens_in = self._fitting(chat, max_tokens)
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
        passages = _shown(text)
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


def _shown(text: str) -> list[tuple[str, str]]:
    """The labels and passages of a window."""
    return PASSAGE.findall(text) or [(label, passage) for passage, label in BEHIND.findall(text)]


class Noisy(Fake):
    """Judges a passage by the share of the query's words in it, with noise; some of its replies are malformed.

    The same chat gets the same reply, whatever else is asked.

    :param noise: standard deviation of what is added to each share (0 to 1).
    :param malformed: share of the replies that miss, repeat or invent passages, are no ranking, or look otherwise.
    :param seed: of the noise and the malformed replies.
    :param context: words and marks that a chat and its reply may have together.
    """

    def __init__(self, noise: float = 0.1, malformed: float = 0.0, seed: int = 0, context: int = 4096) -> None:
        super().__init__(context)
        self.noise, self.malformed, self.seed = noise, malformed, seed

    def reply(self, text: str) -> str:
        """``[2] > [1] > ...``, or something like it.

        :raises ModelError: If no line of the chat says ``query: ...`` or ``Given a query "...", which``.
        """
        random = self._random(text)
        shares = {label: self._worth(text, passage, random) for label, passage in _shown(text)}
        labels = sorted(shares, key=lambda label: -shares[label])
        return random.choice(MISHAPS)(labels) if random.random() < self.malformed else _ranking(labels)

    def _choose(self, chat: Chat, choices: Sequence[str]) -> Choice:
        """Yes is as likely as the passage is worthy, if there is but one and no label to choose."""
        text = _text(chat)
        if len(passages := LONE.findall(text)) != 1:
            return super()._choose(chat, choices)
        random = self._random(text)
        yes = min(max(self._worth(text, passages[0], random), 0.01), 0.99)
        likely = {} if random.random() < self.malformed else {"yes": log(yes), "no": log(1 - yes)}
        words = [c.lower() for c in choices]  # spellings share what their word has
        return Choice(tuple(likely.get(w, -inf) - log(words.count(w)) for w in words), self._fitting(chat, 1))

    def _random(self, text: str) -> Random:
        return Random(f"{self.seed} {text}")

    def _worth(self, text: str, passage: str, random: Random) -> float:
        queries = GIVEN.findall(text)[:1] or QUERY.findall(text)
        if not queries:
            raise ModelError("the fake model looks for a line 'query: ...' in the prompt, and there is none")
        wanted = set(WORD.findall(queries[-1].lower()))
        found = wanted & set(WORD.findall(passage.lower()))
        return len(found) / max(len(wanted), 1) + random.gauss(0, self.noise)


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
