"""Read the order out of what a model wrote, and count what had to be mended."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Labels = Literal["numbers", "letters"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CLEAN = {"numbers": r"\[[0-9]+\](?: > \[[0-9]+\])*", "letters": r"\[[A-Z]\](?: > \[[A-Z]\])*"}
NAMES = {"numbers": r"[0-9]+", "letters": r"[^\W\d_]+"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An order of a window's passages, and how far the model's reply was from it."""

    order: tuple[int, ...]  # every position 0..n-1 once, best first
    missing: int = 0  # passages not named: put last, in their old order
    repeated: int = 0  # names said again: the first one counts
    foreign: int = 0  # names of no passage of this window: dropped
    wrong_format: bool = False  # anything but "[2] > [1] > [3]"; mends nothing by itself

    @property
    def mended(self) -> bool:
        """Whether the model did not name every passage exactly once, and nothing else."""
        return bool(self.missing or self.repeated or self.foreign)


def parse(text: str, n: int, labels: Labels = "numbers") -> Reply:
    """Read an order such as ``[2] > [1] > [3]``, as RankLLM reads it: nothing is refused.

    What comes before the last ``</think>`` is skipped. Every run of digits is a name, whatever stands around it; other
    scripts' digits, superscripts and circled ones too. With letters, every capital from A to Z that stands alone.
    We deviate where RankLLM's way is an accident: ⑫ is 12 (there it is dropped), and ``AB`` is a word (there 12).

    :param n: how many passages the window has.
    :return: always a whole order.
    """
    said = text.rsplit("</think>", 1)[-1].strip()
    names = [_position(name, labels) for name in re.findall(NAMES[labels], _plain(said))]
    inside = [p for p in names if p is not None and 0 <= p < n]
    named = dict.fromkeys(inside)
    return Reply(
        order=(*named, *(p for p in range(n) if p not in named)),
        missing=n - len(named),
        repeated=len(inside) - len(named),
        foreign=sum(p is not None for p in names) - len(inside),
        wrong_format=re.fullmatch(CLEAN[labels], said) is None,
    )


def _position(name: str, labels: Labels) -> int | None:
    """Where in the window the name points, counted from 0; far outside for absurd numbers; None if it is a word."""
    if labels == "letters":
        return LETTERS.index(name) if len(name) == 1 and name in LETTERS else None
    digits = name.lstrip("0")[:10]  # a number this long is no passage, and int() refuses very long ones
    return int(digits or 0) - 1


def _plain(text: str) -> str:
    """The text with every digit and every number of one character (², ⑫, ７) written in ASCII."""
    return text if text.isascii() else "".join(map(_ascii_number, text))


def _ascii_number(char: str) -> str:
    if unicodedata.category(char) not in ("Nd", "No"):  # 五 and Ⅴ are words
        return char
    value = unicodedata.numeric(char)
    return str(int(value)) if value.is_integer() else char
