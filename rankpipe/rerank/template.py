"""Reading prompt files: every fault is told, with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args

from rankpipe.catalog import near
from rankpipe.errors import DataError
from rankpipe.rerank.parse import Answer, Labels

PointAnswer = Literal["verdict", "query"]  # what is asked of one passage; of a window: Answer
ROLES = ("system", "user", "assistant")
KEYS = ("about", "labels", "answer", "most", "item", "between", "reply", "titled", "repair", "passage", "messages")
POINT_KEYS = ("about", "answer", "titled", "repair", "messages")
VERDICT_KEYS = (*POINT_KEYS, "begin", "yes_words", "no_words")
MUST = {  # key: its placeholders
    "passage": ("label", "passage"),
    "titled": ("title", "text"),
    "item": ("label",),
    "reply": ("order",),
}
ONCE = ("passages", "passage")


@dataclass(frozen=True, slots=True)
class Said:
    """One message, or (role ``each``) those that are made of every passage."""

    role: str
    text: str
    each: tuple[Said, ...] = ()


def read_template(file: Path) -> dict[str, Any]:
    """The arguments of a :class:`~rankpipe.rerank.prompts.Prompt`, from its file.

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
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items() if key != "about"}
    return {**options, "messages": tuple(_said(m) for m in tree["messages"])}


def _said(message: dict[str, Any]) -> Said:
    [(role, text)] = message.items()
    return Said(role, "", tuple(map(_said, text))) if role == "each" else Said(role, text)


def _faults(tree: dict[str, Any]) -> list[str]:
    return _point_faults(tree) if tree.get("answer") in get_args(PointAnswer) else _window_faults(tree)


def _window_faults(tree: dict[str, Any]) -> list[str]:
    each = isinstance(tree.get("messages"), list) and any(isinstance(m, dict) and "each" in m for m in tree["messages"])
    faults = _misfit(tree, KEYS, ("messages",) if each else ("passage", "messages"))
    faults += ["passage: is said by the message 'each' already"] if each and "passage" in tree else []
    for key, known in (("labels", get_args(Labels)), ("answer", get_args(Answer) + get_args(PointAnswer))):
        if key in tree and tree[key] not in known:
            faults.append(f"{key}: {tree[key]!r} is not one of {', '.join(known)}")
    for key, must in MUST.items():
        faults += _misplaced(key, tree[key], must) if key in tree else []
    faults += [] if isinstance(tree.get("between", ""), str) else [f"between: {tree['between']!r} is no text"]
    most = tree.get("most", 2)
    faults += [] if type(most) is int and most > 1 else [f"most: {most!r}; expected a number of passages, 2 or more"]
    shown = () if each else ("passages",)
    return faults + _misspoken(tree, must=("query", *shown), may=("query", "count", "labels", *shown), each=each)


def _point_faults(tree: dict[str, Any]) -> list[str]:
    verdict = tree["answer"] == "verdict"
    faults = _misfit(tree, VERDICT_KEYS if verdict else POINT_KEYS, ("messages",))
    faults += _misplaced("titled", tree["titled"], MUST["titled"]) if "titled" in tree else []
    faults += [] if isinstance(tree.get("begin", ""), str) else [f"begin: {tree['begin']!r} is no text"]
    for key in ("yes_words", "no_words"):
        words = tree.get(key, ["a"])
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and w for w in words):
            faults.append(f'{key}: {words!r}; expected a list of words in quotes, such as ["yes", "Yes"]')
    shown = ("query", "passage") if verdict else ("passage",)
    return faults + _misspoken(tree, must=shown, may=shown)


def _misfit(tree: dict[str, Any], keys: Sequence[str], must: Sequence[str]) -> list[str]:
    """Keys that are unknown or lacking, and ``repair``, which all may have."""
    faults = [f"unknown key {key!r}{near(str(key), list(keys))}" for key in tree if key not in keys]
    faults += [] if isinstance(tree.get("repair", True), bool) else [f"repair: {tree['repair']!r} is not true or false"]
    return faults + [f"the key {key!r} is missing" for key in must if key not in tree]


def _misspoken(tree: dict[str, Any], must: Sequence[str], may: Sequence[str], each: bool = False) -> list[str]:
    """What is wrong with the messages: every placeholder is one of ``may``, and ``must`` are in some message."""
    if "messages" not in tree:
        return []
    messages = tree["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) and len(m) == 1 for m in messages):
        return ["messages: must be a list of entries such as '- user: text'"]
    faults, whole = [], ""
    for i, message in enumerate(messages):
        [(role, text)] = message.items()
        if role == "each" and each:
            faults += _mistold(f"messages[{i}].each", text)
            continue
        if role not in ROLES:
            faults.append(f"messages[{i}]: unknown role {role!r}{near(str(role), [*ROLES, 'each'])}")
        wrong = _misplaced(f"messages[{i}]", text, may=may)
        faults += wrong
        whole += "" if wrong else text
    if not faults:
        faults += _misplaced("messages", whole, must=must, may=may)
        twice = [field for field in ONCE if _fields(whole).count(field) > 1]
        faults += [f"messages: {{{field}}} is there more than once" for field in twice]
    return faults


def _mistold(place: str, said: Any) -> list[str]:
    """What is wrong with the messages that are made of each passage."""
    if not isinstance(said, list) or not said or not all(isinstance(m, dict) and len(m) == 1 for m in said):
        return [f"{place}: must be a list of entries such as 'user: text'"]
    faults = []
    for i, message in enumerate(said):
        [(role, text)] = message.items()
        if role not in ROLES:
            faults.append(f"{place}[{i}]: unknown role {role!r}{near(str(role), list(ROLES))}")
        faults += _misplaced(f"{place}[{i}]", text, may=("label", "passage"))
    return faults or _misplaced(place, "".join(next(iter(m.values())) for m in said), must=("label", "passage"))


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
