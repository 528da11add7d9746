"""Read the order out of what a model wrote, and count what had to be mended."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Literal

from rankpipe.errors import DataError
from rankpipe.lm.thoughts import BEGIN, END

Labels = Literal["numbers", "letters"]
Answer = Literal["order", "best"]
LETTERS = ascii_uppercase + ascii_lowercase
NAMES = {"numbers": r"[0-9]+", "letters": r"[^\W\d_]+"}
LONGEST = 4000  # digits of a number that are read


@dataclass(frozen=True, slots=True)
class Reply:
    """An order of a window's passages, and how far the model's reply was from it."""

    order: tuple[int, ...]  # every position 0..n-1 once, best first
    missing: int = 0  # passages not named: put last, in their old order
    repeated: int = 0  # names said again, foreign ones too: the first one counts
    foreign: int = 0  # different names of no passage of this window: dropped
    wrong_format: bool = False  # anything but "[2] > [1] > [3]"; mends nothing by itself
    unasked: int = 0  # passages that need not be named, as only the best one was asked for

    @property
    def kind(self) -> Literal["ok", "wrong_format", "missing_documents", "repetition"]:
        """What is wrong with the reply, as RankLLM's analysis calls it: the first of these that holds."""
        if self.wrong_format:
            return "wrong_format"
        more = self.repeated + self.foreign - self.missing  # names beyond one for each passage
        if more < 0:
            return "missing_documents"
        if more > 0 or self.repeated:
            return "repetition"
        return "missing_documents" if self.missing else "ok"

    @property
    def told(self) -> int:
        """How many places of the order, from the first, the model said."""
        return len(self.order) - self.missing - self.unasked

    @property
    def mended(self) -> bool:
        """Whether the model did not name every passage exactly once, and nothing else."""
        return bool(self.missing or self.repeated or self.foreign)


def parse(
    text: str, n: int, labels: Labels = "numbers", answer: Answer = "order", whole: re.Pattern[str] | None = None
) -> Reply:
    """Read an order such as ``[2] > [1] > [3]``, as RankLLM reads it: nothing is refused.

    What comes before the last ``</think>`` is skipped, and so is a thought that was not ended. Every run of digits is a
    name, whatever stands around it; other scripts' digits, superscripts and circled ones too. With letters, every
    capital from A to Z that stands alone; small letters too in a window of more than 26.
    We deviate where RankLLM's way is an accident: ⑫ is 12 (there it is dropped), ``AB`` is a word (there 12), and a
    thought that was broken off names nothing (there all that it mentions).

    :param n: how many passages the window has.
    :param answer: "best" takes the first name only, and misses nothing but that.
    :param whole: what a reply in the right format is; ``[2] > [1]`` if None.
    :return: always a whole order.
    """
    said = text.rpartition(END)[2].partition(BEGIN)[0].strip()
    found = [_position(name, labels, n) for name in re.findall(NAMES[labels], plain(said))]
    told = [p for p in found if p is not None]
    inside = [p for p in told if 0 <= p < n]
    if answer == "best":
        told, inside = told[:1] if not inside else inside[:1], inside[:1]
    named, different = dict.fromkeys(inside), len(set(told))
    return Reply(
        order=(*named, *(p for p in range(n) if p not in named)),
        missing=n - len(named) if answer == "order" else int(n > 0 and not named),
        repeated=len(told) - different,
        foreign=different - len(named),
        wrong_format=(whole or _whole(any_label(labels, n))).fullmatch(said) is None,
        unasked=max(n - 1, 0) if answer == "best" else 0,
    )


def any_label(labels: Labels, n: int) -> str:
    """A pattern for one label of a window of ``n`` passages, in its right form."""
    return "[0-9]+" if labels == "numbers" else "[A-Z]" if n <= len(ascii_uppercase) else "[A-Za-z]"


def _whole(label: str) -> re.Pattern[str]:
    return re.compile(rf"\[{label}\](?: > \[{label}\])*")


def names(n: int, labels: Labels, prompt: str) -> Sequence[str]:
    """The labels of ``n`` passages: 1, 2, 3 ... or A to Z, then a to z.

    :raises DataError: If there are not so many letters.
    """
    if labels == "numbers":
        return [str(i) for i in range(1, n + 1)]
    if n > len(LETTERS):
        raise DataError(
            f"prompt {prompt}: a window of {n} passages, but there are {len(LETTERS)} letters; take smaller windows, "
            "or a prompt with numbers"
        )
    return LETTERS[:n]


def _position(name: str, labels: Labels, n: int) -> int | None:
    """Where in the window the name points, counted from 0; far outside for absurd numbers; None if it is a word."""
    if labels == "letters":
        known = LETTERS if n > len(ascii_uppercase) else ascii_uppercase  # in a small window, a small letter is a word
        return known.index(name) if len(name) == 1 and name in known else None
    digits = name.lstrip("0")[:LONGEST]  # int() refuses longer ones
    return int(digits or 0) - 1


def plain(text: str) -> str:
    """The text with every digit and every number of one character (², ⑫, ７) written in ASCII."""
    return text if text.isascii() else "".join(map(_ascii_number, text))


def _ascii_number(char: str) -> str:
    if unicodedata.category(char) not in ("Nd", "No"):  # 五 and Ⅴ are words
        return char
    value = unicodedata.numeric(char)
    return str(int(value)) if value.is_integer() else char
