"""Prompts are data files: ``templates/NAME.yaml``, or a file of your own.

    about: who uses it, where it comes from
    labels: numbers            # or letters: how passages are named; numbers if not said
    answer: order              # or best: the reply names the best passage only; order if not said
    item: "[{label}]"          # a passage in a reply; this if not said
    between: " > "             # between two of them; this if not said
    titled: "Title: {title} Content: {text}"   # a passage that has a title; "{title} {text}" if not said
    passage: "[{label}] {passage}\\n"
    messages:
      - system: You rank passages.
      - user: "Rank these {count} passages by their relevance to: {query}\\n{passages}The ranking:"

Where each passage is a message of its own, ``each`` takes the place of ``passage`` and ``{passages}``:

      - each: [{user: "[{label}] {passage}"}, {assistant: "Received passage [{label}]."}]

A prompt makes messages; the model puts its own chat template around them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rankpipe.catalog import near
from rankpipe.data import Doc
from rankpipe.errors import DataError
from rankpipe.lm import Chat, Message
from rankpipe.rerank.clean import clean, harmless
from rankpipe.rerank.parse import Answer, Labels, Reply, names, parse
from rankpipe.rerank.template import Said, read_template

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Prompt:
    """Shows a query and a window of passages to a model, and reads its reply."""

    name: str
    messages: tuple[Said, ...]  # with {query}, {count}, {labels} and, once, {passages} or an ``each``
    passage: str = ""  # with {label} and {passage}; "" where each passage is a message of its own
    titled: str = "{title} {text}"  # as Doc.contents
    labels: Labels = "numbers"
    answer: Answer = "order"
    item: str = "[{label}]"
    between: str = " > "

    def document(self, doc: Doc) -> str:
        """What is shown of a document, at most: its text, with its title if it has one; cleaned."""
        title = doc.title.strip()
        return clean(self.titled.format(title=title, text=doc.text) if title else doc.text)

    def render(self, query: str, passages: Sequence[str]) -> Chat:
        """The messages for a window of passages, that are cleaned already.

        :raises DataError: If there are more passages than labels.
        """
        shown = list(zip(self.names(len(passages)), passages, strict=True))
        values = {
            "query": harmless(query),
            "count": len(passages),
            "labels": ", ".join(self.item.format(label=label) for label, _ in shown),
            "passages": "".join(self.passage.format(label=label, passage=passage) for label, passage in shown),
        }
        return list(self._messages(values, shown))

    def _messages(self, values: dict[str, object], shown: Sequence[tuple[str, str]]) -> Iterator[Message]:
        for said in self.messages:
            if said.role != "each":
                yield {"role": said.role, "content": said.text.format(**values)}
                continue
            for label, passage in shown:
                for one in said.each:
                    yield {"role": one.role, "content": one.text.format(label=label, passage=passage)}

    def longest(self, n: int) -> str:
        """A whole reply for ``n`` passages: ``[1] > [2] > ... > [n]``, or one name where only the best is asked for."""
        labels = self.names(n)
        return self.between.join(self.item.format(label=label) for label in labels[-1:] if self.answer == "best") or (
            self.between.join(self.item.format(label=label) for label in labels)
        )

    @property
    def begin(self) -> str:
        """What stands before the first label of a reply (``[``)."""
        return self.item.partition("{label}")[0]

    def read(self, reply: str, n: int) -> Reply:
        """The order of ``n`` passages that a reply says."""
        return parse(reply, n, self.labels, self.answer, self._clean)

    def names(self, n: int) -> Sequence[str]:
        """The labels of a window of ``n`` passages.

        :raises DataError: If there are not so many.
        """
        return names(n, self.labels, self.name)

    @cached_property
    def _clean(self) -> re.Pattern[str]:
        """A reply without anything else around the names."""
        label = {"numbers": "[0-9]+", "letters": "[A-Za-z]"}[self.labels]
        item = re.escape(self.item).replace(re.escape("{label}"), label)
        more = "" if self.answer == "best" else f"(?:{re.escape(self.between)}{item})*"
        return re.compile(item + more)


def named(name: str) -> Prompt:
    """One of our own prompts.

    :raises DataError: If there is none of that name; says which there are.
    """
    known = sorted(p.stem for p in TEMPLATES.glob("*.yaml"))
    if name not in known:
        raise DataError(
            f"no prompt {name!r}{near(name, known)}\nknown: {', '.join(known)}; "
            "for a file of your own: prompt: {use: prompt, file: mine.yaml}"
        )
    return read(TEMPLATES / f"{name}.yaml")


def read(file: Path) -> Prompt:
    """A prompt from its file.

    :raises DataError: If it is missing, no YAML mapping, or a key, role or placeholder is unknown or lacking.
    """
    return Prompt(file.stem, **read_template(file))
