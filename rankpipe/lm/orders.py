"""Replies that can be nothing but an order: at each place the model chooses among the names that it has not said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rankpipe.errors import ModelError

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """How an order of some items is written: ``before``, items with ``between`` from one to the next, ``after``."""

    items: tuple[str, ...]
    between: str = " > "
    before: str = ""
    after: str = ""
    best: bool = False  # the first item only

    def text(self, order: Sequence[int]) -> str:
        """The reply that says these items."""
        return self.before + self.between.join(self.items[i] for i in order) + self.after


@dataclass(frozen=True)
class Spelling:
    """The tokens of a form: a reply is ``begin``, then one of ``first``, ``joint``, one of ``later``, ``joint`` ..."""

    begin: Tokens
    first: tuple[Tokens, ...]  # of each item
    joint: Tokens
    later: tuple[Tokens, ...]
    most: int  # items of a reply
    stop: int  # the token that ends it

    @classmethod
    def of(cls, form: Form, tokens: Callable[[str], list[int]], stop: int, model: str) -> Spelling:
        """As a tokenizer has it.

        :param form: of two items or more.
        :raises ModelError: If an item's tokens depend on the item behind it.
        """
        begin, first = _apart([tuple(tokens(form.before + item)) for item in form.items])
        joint, later = _apart([_behind(form, i, tokens, model) for i in range(len(form.items))])
        return cls(begin, first, joint, later, 1 if form.best else len(form.items), stop)

    @property
    def room(self) -> int:
        """Tokens of the longest reply, without the one that ends it."""
        more = self.most - 1

        def longest(i: int) -> int:
            others = sorted(len(name) for j, name in enumerate(self.later) if j != i)
            return len(self.first[i]) + sum(others[len(others) - more :])

        return len(self.begin) + max(map(longest, range(len(self.first)))) + more * len(self.joint)


class Writing:
    """One reply, as far as it is written."""

    def __init__(self, spelling: Spelling, written: Sequence[int] = ()) -> None:
        self.spelling = spelling
        self.written: list[int] = []  # behind what all replies begin with
        self.order: list[int] = []
        self._ways = self._next()  # the names that may be meant, with their tokens that are left
        for token in written:
            if self.choices:  # the rest is padding
                self.take(token)

    @property
    def choices(self) -> list[int]:
        """What may come next; nothing, and it is over."""
        return sorted({way[0] for way in self._ways.values()})

    def take(self, token: int) -> None:
        """One of them."""
        self.written.append(token)
        self._ways = {item: way[1:] for item, way in self._ways.items() if way[0] == token}
        if not all(self._ways.values()):  # one is whole; what is behind a name tells it from those that begin with it
            self.order += self._ways
            self._ways = self._next()

    def _next(self) -> dict[int, Tokens]:
        said, most = self.order, self.spelling.most
        names = self.spelling.later if said else self.spelling.first
        behind = self.spelling.joint if len(said) < most - 1 else (self.spelling.stop,)
        return {i: name + behind for i, name in enumerate(names) if i not in said} if len(said) < most else {}


class Arranged:
    """Of the names that a reply has not said, the likeliest, token by token. A :data:`~rankpipe.lm.decode.Pick`.

    Tokens that are no choice (brackets, what is between names, the last name) are read together with the name before
    them, or not at all: where names are single tokens, an order of n takes n - 1 passes.
    """

    def __init__(self, rows: int, spelling: Spelling) -> None:
        self.replies = [Writing(spelling) for _ in range(rows)]

    def __call__(self, rows: Sequence[int], logits: Any) -> list[list[int]]:
        """What each of them goes on with."""
        return [self._read(self.replies[i], row) for i, row in zip(rows, logits, strict=True)]

    def _read(self, reply: Writing, logits: Any) -> list[int]:
        """The likeliest next token, and all that can only follow."""
        start, choices = len(reply.written), reply.choices
        choices = [choices[int(logits[choices].argmax())]]
        while len(choices) == 1:
            reply.take(choices[0])
            choices = reply.choices
        return reply.written[start:] if choices else []


def _behind(form: Form, i: int, tokens: Callable[[str], list[int]], model: str) -> Tokens:
    """The tokens of an item behind another one."""
    before = form.before + form.items[0 if i else 1]
    start, both = tokens(before), tokens(before + form.between + form.items[i])
    if both[: len(start)] != start:
        raise ModelError(
            f"{model}: {before!r} has other tokens before {form.between + form.items[i]!r}, so that an order cannot be "
            "written name by name; take a prompt with brackets around its labels"
        )
    return tuple(both[len(start) :])


def _apart(names: Sequence[Tokens]) -> tuple[Tokens, tuple[Tokens, ...]]:
    """What all begin with, and the rest of each."""
    alike = len([*takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))])
    return names[0][:alike], tuple(name[alike:] for name in names)
