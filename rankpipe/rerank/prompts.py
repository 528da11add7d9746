"""Prompts are data files: ``templates/NAME.yaml``, or a file of your own.

    about: who uses it, where it comes from
    labels: numbers            # or letters: how passages are named; numbers if not said
    answer: order              # or best: the reply names the best passage only; order if not said
    most: 2                    # passages of a window; as many as there are labels if not said
    item: "[{label}]"          # a passage in a reply; this if not said
    between: " > "             # between two of them; this if not said
    reply: "{order}"           # what stands around a whole reply; nothing if not said
    titled: "Title: {title} Content: {text}"   # a passage that has a title; "{title} {text}" if not said
    repair: true               # wrongly decoded letters are repaired, as in RankLLM; false if not said
    passage: "[{label}] {passage}\\n"
    messages:
      - system: You rank passages.
      - user: "Rank these {count} passages by their relevance to: {query}\\n{passages}The ranking:"

Where each passage is a message of its own, ``each`` takes the place of ``passage`` and ``{passages}``:

      - each: [{user: "[{label}] {passage}"}, {assistant: "Received passage [{label}]."}]

A prompt that shows one passage asks for a verdict, yes or no, or for the query that the passage might answer:

    answer: verdict            # or query, whose messages have no {query}, and no begin or words
    begin: "<think>\\n\\n</think>\\n\\n"   # how the model's reply is made to begin; "" if not said
    yes_words: ["yes", "Yes", "YES"]  # these if not said; in quotes, for YAML's bare yes is true
    no_words: ["no", "No", "NO"]
    titled, repair: as above
    messages:
      - user: "Query: {query}\\nPassage: {passage}\\nDoes the passage answer the query?"

A prompt makes messages; the model puts its own chat template around them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from rankpipe.catalog import near
from rankpipe.data import Doc
from rankpipe.errors import DataError
from rankpipe.lm import Chat, Message
from rankpipe.lm.orders import Form
from rankpipe.rerank.clean import clean, harmless, unlabelled
from rankpipe.rerank.mojibake import repaired
from rankpipe.rerank.parse import Answer, Labels, Reply, any_label, names, parse
from rankpipe.rerank.template import PointAnswer, Said, read_template

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Wording(ABC):
    """What all prompts have: a name, messages, a way to show a document with a title, and what they ask for."""

    name: str
    messages: tuple[Said, ...]  # with placeholders
    titled: str = "{title} {text}"  # as Doc.contents
    answer: Answer | PointAnswer = "order"
    repair: bool = False  # wrongly decoded letters
    guard: bool = True  # no key of files: False shows documents as they are, to measure what cleaning them is worth

    def document(self, doc: Doc) -> str:
        """What is shown of a document, at most: its text, with its title if it has one; cleaned."""
        title = doc.title.strip()
        shown = self._repaired(self.titled.format(title=title, text=doc.text) if title else doc.text)
        return clean(shown) if self.guard else shown

    def query(self, text: str) -> str:
        """What is shown of a query."""
        return harmless(self._repaired(text))

    def _repaired(self, text: str) -> str:
        return repaired(text) if self.repair else text

    @abstractmethod
    def render(self, query: str, passages: Sequence[str]) -> Chat:
        """The messages for passages that are cleaned already."""

    def _shown(self, form: str, passage: str, **told: str) -> str:
        """A passage in a form, which may have quotation marks around it: those are not the passage's to end."""
        enclosed = self.guard and '"{passage}"' in form
        return form.format(passage=passage.replace('"', "'") if enclosed else passage, **told)


@dataclass(frozen=True)
class Prompt(Wording):
    """Shows a query and a window of passages to a model, and reads its reply.

    Its messages have {query}, {count}, {labels} and, once, {passages} or an ``each``.
    """

    passage: str = ""  # with {label} and {passage}; "" where each passage is a message of its own
    labels: Labels = "numbers"
    answer: Answer = "order"
    most: int | None = None  # passages of a window, if its words allow no more
    item: str = "[{label}]"
    between: str = " > "
    reply: str = "{order}"

    def render(self, query: str, passages: Sequence[str]) -> Chat:
        """The messages for a window of passages, that are cleaned already.

        :raises DataError: If there are more passages than labels.
        """
        labels = self.names(len(passages))
        guarded = [self._unnamed(unlabelled(p, labels), labels) for p in passages] if self.guard else passages
        shown = list(zip(labels, guarded, strict=True))
        values = {
            "query": unlabelled(self.query(query), labels),
            "count": len(passages),
            "labels": ", ".join(self.item.format(label=label) for label, _ in shown),
            "passages": "".join(self._shown(self.passage, passage, label=label) for label, passage in shown),
        }
        return list(self._messages(values, shown))

    def _messages(self, values: dict[str, object], shown: Sequence[tuple[str, str]]) -> Iterator[Message]:
        for said in self.messages:
            if said.role != "each":
                yield {"role": said.role, "content": said.text.format(**values)}
                continue
            for label, passage in shown:
                for one in said.each:
                    yield {"role": one.role, "content": self._shown(one.text, passage, label=label)}

    def longest(self, n: int) -> str:
        """A whole reply for ``n`` passages: ``[1] > [2] > ... > [n]``, or one name where only the best is asked for."""
        return self.written(range(n)[-1:] if self.answer == "best" else range(n), n)

    def written(self, order: Sequence[int], n: int | None = None) -> str:
        """The reply that says this order of positions.

        :param n: passages of the window; as many as the order has if None.
        """
        return self.form(n or len(order)).text(order)

    def form(self, n: int) -> Form:
        """How a reply for ``n`` passages is written."""
        before, _, after = self.reply.format(order="\0").partition("\0")
        items = tuple(self.item.format(label=label) for label in self.names(n))
        return Form(items, self.between, before, after, self.answer == "best")

    @property
    def begin(self) -> str:
        """What stands before the first label of a reply (``[``)."""
        return self.reply.format(order=self.item).partition("{label}")[0]

    def read(self, reply: str, n: int) -> Reply:
        """The order of ``n`` passages that a reply says."""
        return parse(reply, n, self.labels, self.answer, self._whole(n))

    def names(self, n: int) -> Sequence[str]:
        """The labels of a window of ``n`` passages.

        :raises DataError: If there are not so many, or the prompt is for fewer passages.
        """
        if self.most and n > self.most:
            raise DataError(
                f"prompt {self.name}: a window of {n} passages, but it is for {self.most} at most; take a plan with "
                "smaller windows (for pairs: all-pairs, pairwise-heap, pairwise-bubble)"
            )
        return names(n, self.labels, self.name)

    def _whole(self, n: int) -> re.Pattern[str]:
        """A reply for ``n`` passages without anything else around the names."""
        item = re.escape(self.item).replace(re.escape("{label}"), any_label(self.labels, n))
        more = "" if self.answer == "best" else f"(?:{re.escape(self.between)}{item})*"
        return re.compile(re.escape(self.reply).replace(re.escape("{order}"), item + more))

    def _unnamed(self, text: str, labels: Sequence[str]) -> str:
        """The text with what the reply would have for one of ``labels``, words and all (``Passage B``), in brackets."""
        before, _, after = (re.escape(part) for part in self.item.partition("{label}"))
        if not re.search(r"\w", before):
            return text
        named = rf"(?<!\w)({before})({'|'.join(labels)}){after}(?!\w)"
        return re.sub(named, lambda m: f"{m[1]}({m[2]})", text, flags=re.IGNORECASE)

    def unreadable(self) -> str:
        """What is wrong with a prompt whose own whole reply is not read as what it says; "" of any other."""
        n = min(self.most or 3, 3)
        told, last = self.longest(n), self.answer == "best"
        read = self.read(told, n)
        if read.kind == "ok" and read.order[0] == (n - 1 if last else 0) and not read.mended:
            return ""
        return f"item, between, reply: the whole reply {told!r} would not be read as that order, but as {read}"


@dataclass(frozen=True)
class PointPrompt(Wording):
    """Shows one passage to a model, and asks for a verdict (with {query}) or for the query (without)."""

    answer: PointAnswer = "verdict"
    begin: str = ""  # how the reply is made to begin
    yes_words: tuple[str, ...] = ("yes", "Yes", "YES")
    no_words: tuple[str, ...] = ("no", "No", "NO")

    def render(self, query: str, passages: Sequence[str]) -> Chat:
        """The messages for one passage, or for none, to see how long they are without."""
        query, passage = self.query(query), "".join(passages)
        return [{"role": said.role, "content": self._shown(said.text, passage, query=query)} for said in self.messages]


W = TypeVar("W", bound=Wording)
ASKED = {"order": "an order", "best": "the best passage", "verdict": "yes or no", "query": "a query"}


def ours() -> dict[str, Path]:
    """The files of our own prompts, by name."""
    return {p.stem: p for p in sorted(TEMPLATES.glob("*.yaml"))}


def named(name: str) -> Prompt:
    """One of our own prompts that show windows.

    :raises DataError: If there is none of that name; says which there are.
    """
    return chosen(name, Prompt, *get_args(Answer))


def chosen(prompt: str | Wording, kind: type[W], *answers: str) -> W:
    """One of our own prompts by its name, or one that was read already, if it asks for one of ``answers``.

    :raises DataError: If there is none of that name, or it asks for something else; says which there are.
    """
    known = ours()
    found = read(known[prompt]) if isinstance(prompt, str) and prompt in known else prompt
    if isinstance(found, kind) and found.answer in answers:
        return found
    fitting = [name for name, file in known.items() if read(file).answer in answers]
    if isinstance(found, str):
        fault = f"no prompt {found!r}{near(found, fitting)}"
    else:
        wanted = " or ".join(ASKED[answer] for answer in answers)
        fault = f"prompt {found.name!r} asks for {ASKED[found.answer]}, not for {wanted}"
    raise DataError(f"{fault}\nknown: {', '.join(fitting)}; for a file of your own: prompt: mine.yaml")


def read(file: Path) -> Prompt | PointPrompt:
    """A prompt from its file; what it asks for (``answer``) says which kind.

    :param file: its YAML, like those of ``rankpipe ls NAME``.
    :raises DataError: If it is missing, no YAML mapping, or a key, role or placeholder is unknown or lacking.
    """
    options = read_template(file)
    if options.get("answer") in get_args(PointAnswer):
        return PointPrompt(file.stem, **options)
    prompt = Prompt(file.stem, **options)
    if fault := prompt.unreadable():
        raise DataError(f"{file}: {fault}")
    return prompt
