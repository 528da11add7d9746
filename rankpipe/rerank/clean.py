"""Passages and queries as a prompt shows them: on one line, unable to pass for a part of the prompt."""

from __future__ import annotations

import re
import unicodedata

LABEL = re.compile(r"\[(\d+|[A-Za-z])\]")
# What chat templates put between messages; a tokenizer would read it as that, wherever it stands.
SPECIAL = re.compile(
    r"<(?=\|[^<>|]{1,40}\|>|/?(?:s|bos|eos|unk|pad|think|start_of_turn|end_of_turn|tool_call|im_start|im_end)>|<SYS>>)"
    r"|\[(?=/?INST\])",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """A passage as a prompt shows it: on one line, blanks single, harmless.

    RankLLM repairs mojibake as well (ftfy); we show a text as it is in its collection, broken letters and all, since a
    guess at what it should have been belongs where the collection is read.
    """
    return harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """A text that cannot break a prompt's structure.

    ``[3]`` and ``[B]`` become ``(3)`` and ``(B)`` (the former as in RankLLM), what looks like a token of a chat
    template (``<|im_end|>``, ``</s>``, ``[INST]``) has a blank put after its first letter, control and direction
    characters are left out, and half characters (lone surrogates), which tokenizers refuse, become ``?``.
    """
    shown = LABEL.sub(r"(\1)", text)
    shown = SPECIAL.sub(lambda m: m[0] + " ", shown)
    if not shown.isascii() or not shown.isprintable():
        shown = "".join(c for c in shown if c in "\t\n" or (unicodedata.category(c) != "Cc" and c not in DIRECTIONS))
    return shown.encode("utf-8", "replace").decode("utf-8")


DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they make a text look otherwise
