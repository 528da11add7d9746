"""Prompts are data files: ``templates/NAME.yaml``, or a file of your own.

    about: who uses it, where it comes from
    labels: numbers            # or letters: how passages are named; numbers if not said
    titled: "Title: {title} Content: {text}"   # a passage that has a title; "{title} {text}" if not said
    passage: "[{label}] {passage}\\n"
    messages:
      - system: You rank passages.
      - user: "Rank these {count} passages by their relevance to: {query}\\n{passages}The ranking:"

A prompt makes messages; the model puts its own chat template around them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, get_args

from rankpipe.catalog import near
from rankpipe.data import Doc
from rankpipe.errors import DataError
from rankpipe.lm import Chat
from rankpipe.rerank.parse import LETTERS, Labels, Reply, parse

TEMPLATES = Path(__file__).parent / "templates"
ROLES = ("system", "user", "assistant")
KEYS = ("about", "labels", "titled", "passage", "messages")


@dataclass(frozen=True)
class Prompt:
    """Shows a query and a window of passages to a model, and reads its reply."""

    name: str
    messages: tuple[tuple[str, str], ...]  # (role, text with {query}, {count} and, once, {passages})
    passage: str  # with {label} and {passage}
    titled: str = "{title} {text}"  # as Doc.contents
    labels: Labels = "numbers"

    def document(self, doc: Doc) -> str:
        """What is shown of a document, at most: its text, with its title if it has one; cleaned."""
        title = doc.title.strip()
        return clean(self.titled.format(title=title, text=doc.text) if title else doc.text)

    def render(self, query: str, passages: Sequence[str]) -> Chat:
        """The messages for a window of passages, that are cleaned already.

        :raises DataError: If there are more passages than labels.
        """
        lines = [
            self.passage.format(label=label, passage=passage)
            for label, passage in zip(self._names(len(passages)), passages, strict=True)
        ]
        values = {"query": harmless(query), "count": len(passages), "passages": "".join(lines)}
        return [{"role": role, "content": text.format(**values)} for role, text in self.messages]

    def ranking(self, n: int) -> str:
        """``[1] > [2] > ... > [n]``: as long as a whole reply is."""
        return " > ".join(f"[{name}]" for name in self._names(n))

    def read(self, reply: str, n: int) -> Reply:
        """The order of ``n`` passages that a reply says."""
        return parse(reply, n, self.labels)

    def _names(self, n: int) -> Sequence[str]:
        if self.labels == "numbers":
            return [str(i) for i in range(1, n + 1)]
        if n > len(LETTERS):
            raise DataError(f"prompt {self.name}: a window of {n} passages, but there are {len(LETTERS)} letters")
        return LETTERS[:n]


def clean(text: str) -> str:
    """A passage as a prompt shows it: on one line, blanks single, no ``[3]`` that looks like a label.

    RankLLM repairs mojibake as well (ftfy); we show a text as it is in its collection, broken letters and all, since a
    guess at what it should have been belongs where the collection is read.
    """
    return harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """``[3]`` becomes ``(3)``, as in RankLLM, and half characters (lone surrogates) ``?``: tokenizers refuse them."""
    return re.sub(r"\[(\d+)\]", r"(\1)", text).encode("utf-8", "replace").decode("utf-8")


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
    import yaml

    try:
        tree = yaml.safe_load(file.read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{file}: no such prompt file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{file}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character, not UTF-8, the date 2026-13-01
        raise DataError(f"{file}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise DataError(f"{file}: a prompt is a mapping with the keys {', '.join(KEYS)}")
    if faults := _faults(tree):
        raise DataError("\n".join(f"{file}: {fault}" for fault in faults))
    messages = tuple(next(iter(m.items())) for m in tree["messages"])
    options = {key: tree[key] for key in ("titled", "labels") if key in tree}
    return Prompt(file.stem, messages, tree["passage"], **options)


def _faults(tree: dict[str, Any]) -> list[str]:
    faults = [f"unknown key {key!r}{near(str(key), list(KEYS))}" for key in tree if key not in KEYS]
    faults += [f"the key {key!r} is missing" for key in ("passage", "messages") if key not in tree]
    if tree.get("labels", "numbers") not in get_args(Labels):
        faults.append(f"labels: {tree['labels']!r} is not one of {', '.join(get_args(Labels))}")
    faults += _misplaced("passage", tree.get("passage", "{label}{passage}"), must=("label", "passage"))
    faults += _misplaced("titled", tree.get("titled", "{title}{text}"), must=("title", "text"))
    messages = tree.get("messages", [{"user": "{query}{passages}"}])
    if not isinstance(messages, list) or not all(isinstance(m, dict) and len(m) == 1 for m in messages):
        return [*faults, "messages: must be a list of entries such as '- user: text'"]
    whole = ""
    for i, message in enumerate(messages):
        [(role, text)] = message.items()
        if role not in ROLES:
            faults.append(f"messages[{i}]: unknown role {role!r}{near(str(role), list(ROLES))}")
        wrong = _misplaced(f"messages[{i}]", text, may=("query", "count", "passages"))
        faults += wrong
        whole += "" if wrong else text
    if not faults:
        faults += _misplaced("messages", whole, must=("query", "passages"), may=("count",))
        if sum(field == "passages" for field in _fields(whole)) > 1:
            faults.append("messages: {passages} is there more than once")
    return faults


def _misplaced(key: str, text: Any, must: Sequence[str] = (), may: Sequence[str] = ()) -> list[str]:
    """What is wrong with the placeholders of a text."""
    if not isinstance(text, str):
        return [f"{key}: {text!r} is no text"]
    known = [*must, *may]
    try:
        fields = _fields(text)
    except ValueError as error:
        return [f"{key}: {error}; a brace that is meant is written twice"]
    return [
        f"{key}: unknown placeholder {{{field}}}{near(field, known) or '; known: ' + ', '.join(known)}"
        for field in dict.fromkeys(fields)
        if field not in known
    ] + [f"{key}: the placeholder {{{field}}} is missing" for field in must if field not in fields]


def _fields(text: str) -> list[str]:
    """Placeholders, with whatever is wrongly inside them (``{query!r}``, ``{count:3}``)."""
    parts = Formatter().parse(text)
    return [
        name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        for _, name, spec, conversion in parts
        if name is not None
    ]
