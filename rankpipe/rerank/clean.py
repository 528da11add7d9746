"""Passages and queries as a prompt shows them: on one line, unable to pass for a part of the prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

from rankpipe.rerank.parse import plain

LABEL = re.compile(r"\[(\d+|[A-Za-z])\]")
# What chat templates put between messages; a tokenizer would read it as that, wherever it stands. And the words that
# Vicuna's template has there.
SPECIAL = re.compile(
    r"<(?=[|｜][^<>|｜]{1,40}[|｜]?>|[^<>|｜\s]{1,40}[|｜]>|</?SYS>>|extra_id_\d+>|unused_?\d+>|reserved_\w{1,20}>"
    r"|seed:\w{1,20}>"
    r"|/?(?:s|bos|eos|unk|pad|cls|sep|mask|sop|eop|think|start_of_turn|end_of_turn|end_of_utterance"
    r"|tool_call|tool_response|im_start|im_end)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|CLS|SEP|PAD|MASK|gMASK|THINK"
    r"|UNUSED_TOKEN_\d+)\]"
    r"|\|[^|]{1,40}\|\]|e~\[)"
    r"|\](?=~!?b[\[\]])"
    r"|(?-i:\b(?:USER|ASSISTANT))(?=:)",
    re.IGNORECASE,
)
SELECTORS = r"\ufe00-\ufe0f\U000e0100-\U000e01ef"  # one may follow a letter; more of them can hide a text
# Characters that nobody sees. In the group those that stay: of a letter that was decoded wrongly (MS MARCO: â\x80\x94
# for a dash), of the flags of England, Scotland and Wales. JOINERS are not among them: scripts and emoji need them.
UNSEEN = re.compile(
    r"([\xc2-\xf4][\x80-\xbf]{1,3}|\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters
    r"|[\u202a-\u202e\u2066-\u2069]"  # directions, which make a text look otherwise
    r"|[\u180e\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"  # of no width; tags
    rf"|(?<=[{SELECTORS}])[{SELECTORS}]"
)
JOINERS = r"\xad\u061c\u200b-\u200f\ufe00-\ufe0f"  # soft hyphen, blank of no width, joiners, marks of direction
BRACKETED = re.compile(rf"[\[［【]([\s{JOINERS}]*[^\s\[\]［］【】]{{1,10}}\s*)[\]］】]")


def clean(text: str) -> str:
    """A passage as a prompt shows it: on one line, blanks single, harmless."""
    return harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """A text that cannot break a prompt's structure: no line ends in it.

    Characters that nobody sees are left out first, so that none can hide the rest: control and direction characters,
    tags. ``[3]`` and ``[B]`` become ``(3)`` and ``(B)`` (the former as in RankLLM), what looks like
    a token of a chat template (``<|im_end|>``, ``</s>``, ``[INST]``) has a blank put after its first letter, and half
    characters (lone surrogates), which tokenizers refuse, become ``?``.
    """
    shown = " ".join(text.splitlines())
    if not shown.isascii() or not shown.isprintable():
        shown = UNSEEN.sub(r"\1", shown)
    shown = SPECIAL.sub(lambda m: m[0] + " ", LABEL.sub(r"(\1)", shown))
    return shown.encode("utf-8", "replace").decode("utf-8")


def unlabelled(text: str, labels: Container[str]) -> str:
    """The text with what a model may take for one of ``labels`` in round brackets: ``[ 3 ]``, ``［３］``, ``[³]``.

    RankLLM leaves these as they are, and so do we where no passage has that label.
    """
    return BRACKETED.sub(lambda m: f"({m[1]})" if _bare(m[1]) in labels else m[0], text)


def _bare(label: str) -> str:
    return unicodedata.normalize("NFKC", plain(re.sub(rf"[\s{JOINERS}]", "", label)))
