"""Every answer of a language model, kept in one SQLite file: asked once, resumed after a kill, replayed offline."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from rankpipe.errors import ModelError, RecipeError
from rankpipe.lm import AT_ONCE, LM, Chat, Choice, Completion, Likelihood, prepare
from rankpipe.lm.book import Book, Row
from rankpipe.lm.orders import Form

A = TypeVar("A", Completion, Choice, Likelihood)
Told = Callable[[int, Any], None]  # (which chat, its answer)
ANSWERS = ("complete", "arrange", "choose", "likelihood")
SHOWN = 200  # characters of a chat that is missing
LATE = " late"  # after the key of an answer that was not there in time


@runtime_checkable
class Telling(Protocol):
    """A model that hands over each answer as soon as it has it, such as :class:`~rankpipe.lm.http.Http`."""

    def telling(self, told: Told) -> LM:
        """The same model, which also tells ``told``."""
        ...


@dataclass(frozen=True, slots=True)
class Totals:
    """Answers that were there, and those that had to be asked for."""

    known: int = 0
    asked: int = 0


class Absent:
    """A model that is not here, by its identity: for :class:`Cached`, which offline needs no more of it."""

    def __init__(self, identity: str) -> None:
        self.identity = identity


class Cached:
    """Asks ``lm`` only what it has not answered before. What an answer is known by is its content: the model's
    identity, the kind of question, the chat, and what else was asked (length, choices, replies).

    A model that tells each answer as it comes (``http``) is asked everything at once, and each answer is in the file
    before the next one is waited for. Any other is asked a slice at a time, and a slice's answers are kept together:
    what a kill loses is at most one slice. A killed process loses nothing that is in the file; a power cut may lose the
    last answers, and never damages it. Processes and threads can share a file on a local disk; two that ask the same at
    the same time both ask, and the answer that was first is given to both.

    Answers given are those of the file, tokens and the seconds they took and all, so that a replay equals the run that
    it replays. An answer that was not there in time is noted for a replay only: else it is asked for again.
    ``context``, ``thinking``, ``count`` and ``is_token`` are always the model's own, except offline: then they are what
    it said last. The model is loaded when it is first asked, and that is in no answer's seconds.

    :param lm: who is asked.
    :param path: the file; made if there is none.
    :param slice: chats that the model is asked at once. More is faster on a GPU, less is safer where an answer takes
        long; if None, as many as the model has ``at_once`` (vllm: 256, else 32), and everything for one that tells.
    :param offline: never ask; what is not in the file is an error.
    :raises ArtefactError: If the file is damaged or something else, or there is none to replay.
    """

    opens: ClassVar[bool] = True  # a check makes no file
    writes: ClassVar[tuple[str, ...]] = ("path",)  # what its files say is not what it is

    def __init__(self, lm: LM, path: Path, slice: int | None = None, offline: bool = False) -> None:
        if slice is not None and slice < 1:
            raise RecipeError([f"Cached(slice={slice}): must be 1 or more"])
        self.lm, self.offline = lm, offline
        best = sys.maxsize if isinstance(lm, Telling) else int(getattr(lm, "at_once", AT_ONCE))
        self.at_once, self.parallel = slice or best, int(getattr(lm, "parallel", 1))
        if together := getattr(lm, "together", None):
            self.together = together
        self.book = Book(path, read_only=offline)
        self.totals = Totals()
        self._lock = Lock()

    @property
    def context(self) -> int:
        """The model's.

        :raises ModelError: If it is not in the file, offline.
        """
        return self._noted("context", [], lambda: self.lm.context)

    @property
    def thinking(self) -> int:
        """The model's; offline 0 if it is not in the file."""
        return self._noted("thinking", [], lambda: int(getattr(self.lm, "thinking", 0)), unsaid=0)

    @property
    def identity(self) -> str:
        """The model's."""
        return self.lm.identity

    @property
    def begun(self) -> bool:
        """Whether the file has any answer of this model."""
        return any(self.book.size(self._model, kind) for kind in ANSWERS)

    def count(self, chat: Chat) -> int:
        """The model's.

        :raises ModelError: If it is not in the file, offline.
        """
        return self._noted("count", list(chat), lambda: self.lm.count(chat))

    def at_most(self, chat: Chat) -> int:
        """The model's; more than anything where it does not say, or, offline, where it is not in the file."""
        ask = getattr(self.lm, "at_most", lambda _: sys.maxsize)
        return self._noted("at_most", list(chat), partial(ask, chat), unsaid=sys.maxsize)

    def is_token(self, text: str, *, begin: str = "") -> bool:
        """The model's.

        :raises ModelError: If it is not in the file, offline.
        """
        shown = [{"role": "assistant", "content": begin}, {"role": "token", "content": text}]
        return bool(self._noted("is_token", shown, lambda: int(self.lm.is_token(text, begin=begin))))

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        """One completion for each chat; the model is asked for those that are not known.

        :raises ModelError: If there are some, offline.
        """

        def ask(lm: LM, places: Sequence[int]) -> Sequence[Completion]:
            return lm.complete([chats[i] for i in places], max_tokens=max_tokens)

        return self._answers(Completion, "complete", [[list(chat), max_tokens] for chat in chats], ask)

    def arrange(self, chats: Sequence[Chat], form: Form) -> Sequence[Completion]:
        """The order that the model writes for each chat; it is asked for those that are not known.

        :raises ModelError: If there are some, offline.
        """

        def ask(lm: Any, places: Sequence[int]) -> Sequence[Completion]:
            answers: Sequence[Completion] = lm.arrange([chats[i] for i in places], form)
            return answers

        return self._answers(Completion, "arrange", [[list(chat), asdict(form)] for chat in chats], ask)

    def choose(self, chats: Sequence[Chat], choices: Sequence[str], *, begin: str = "") -> Sequence[Choice]:
        """How likely each choice is after each chat; the model is asked for those that are not known.

        :raises ModelError: If there are some, offline.
        """

        def ask(lm: LM, places: Sequence[int]) -> Sequence[Choice]:
            return lm.choose([chats[i] for i in places], choices, begin=begin)

        rows = self._answers(Choice, "choose", [[list(chat), list(choices), begin] for chat in chats], ask)
        return [replace(row, logprobs=tuple(row.logprobs)) for row in rows]

    def likelihood(self, chats: Sequence[Chat], replies: Sequence[str]) -> Sequence[Likelihood]:
        """How likely each reply is to its chat; the model is asked for those that are not known.

        :raises ModelError: If there are some, offline.
        """

        def ask(lm: LM, places: Sequence[int]) -> Sequence[Likelihood]:
            return lm.likelihood([chats[i] for i in places], [replies[i] for i in places])

        asked = [[list(chat), reply] for chat, reply in zip(chats, replies, strict=True)]
        return self._answers(Likelihood, "likelihood", asked, ask)

    def _answers(self, made: type[A], kind: str, asked: Sequence[Any], ask: Callable[..., Sequence[A]]) -> list[A]:
        keys: list[str] = [self._key(kind, question) for question in asked]
        known = self.book.read(keys)
        missing = {key: i for i, key in reversed([*enumerate(keys)]) if key not in known}  # key: the first who asks
        late: dict[str, A] = {}
        if missing and self.offline:
            late = {key[: -len(LATE)]: made(**row) for key, row in self.book.read([k + LATE for k in missing]).items()}
            missing = {key: i for key, i in missing.items() if key not in late}
        if missing and self.offline:
            first = _shown(asked[min(missing.values())])
            raise self._lacking(kind, f"{len(missing)} of {len(asked)} answers, the first to {first}")
        self._note(known=len(asked) - len(missing))
        unknown = sorted(missing.values())
        for i in range(0, len(unknown), self.at_once):
            places = unknown[i : i + self.at_once]
            late |= self._ask(kind, [keys[i] for i in places], partial(ask, places=places))
        if missing:
            known = self.book.read(keys)  # not what was just said, so that all who ask get the same
        return [made(**known[key]) if key in known else late[key] for key in keys]

    def _ask(self, kind: str, keys: Sequence[str], ask: Callable[[LM], Sequence[A]]) -> dict[str, A]:
        """Ask the model, and keep each answer as early as it can be had, with the seconds that it took; gives those
        that were not there in time.
        """
        prepare(self.lm)
        lap = _Lap()

        def row(place: int, answer: Any, seconds: float) -> Row:
            known = seconds if answer.seconds is None else answer.seconds  # by a cache inside
            return Row(keys[place], self._model, kind, asdict(answer) | {"seconds": known})

        answers = ask(
            self.lm.telling(lambda place, answer: self.book.write([row(place, answer, lap())]))
            if isinstance(self.lm, Telling)
            else self.lm
        )
        late = [i for i, answer in enumerate(answers) if answer.late]
        share_s = lap() / (len(late) or len(keys))
        rows = [row(i, answer, share_s) for i, answer in enumerate(answers)]
        self.book.write([one for i, one in enumerate(rows) if i not in late])
        self.book.write([rows[i]._replace(key=keys[i] + LATE, kind="late") for i in late], again=True)
        self._note(asked=len(keys) - len(late))
        return {keys[i]: replace(answers[i], seconds=rows[i].answer["seconds"]) for i in late}

    def _note(self, known: int = 0, asked: int = 0) -> None:
        with self._lock:
            self.totals = Totals(self.totals.known + known, self.totals.asked + asked)

    def _noted(self, kind: str, asked: Any, ask: Callable[[], int], unsaid: int | None = None) -> int:
        """What the model says, noted for a replay unless it is ``unsaid``; what was noted, in a replay."""
        key = self._key(kind, asked)
        known = self.book.read([key]).get(key, unsaid)
        if self.offline:
            if known is None:
                raise self._lacking(kind, f"the {kind} of {_shown([asked])}" if asked else f"the {kind}")
            return int(known)
        said = ask()
        if said != known:
            self.book.write([Row(key, self._model, kind, said)], again=True)
        return said

    def _key(self, kind: str, asked: Any) -> str:
        return _digest(json.dumps([self.identity, kind, asked], sort_keys=True, separators=(",", ":")))

    @property
    def _model(self) -> str:
        return _digest(self.identity)[:16]

    def _lacking(self, kind: str, what: str) -> ModelError:
        size = self.book.size(self._model, kind)
        replay = isinstance(self.lm, Absent)
        cure = "A replay is of what its run was asked: give it the same" if replay else "Run it once without offline"
        return ModelError(
            f"{self.book.path}: offline, and it lacks {what}; of {self.identity} it has {size} such ({kind}). {cure}"
        )


class _Lap:
    """Seconds since it was last asked, whichever thread asks."""

    def __init__(self) -> None:
        self._lock, self._last = Lock(), perf_counter()

    def __call__(self) -> float:
        with self._lock:
            before, self._last = self._last, perf_counter()
            return self._last - before


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(asked: Sequence[Any]) -> str:
    """The beginning of a chat's last message, and what else was asked."""
    chat, *more = asked
    said = chat[-1]["content"] if chat else ""
    return f"{said[:SHOWN]!r}" + (f" {more}" if more else "")
