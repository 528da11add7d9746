"""A rerank by a slow model that writes down what it is asked: a program of its own, so that a test can kill it.

python -m tests.lm.slow CACHE RUN LOG [--hang-at N] [--slice N] [--offline]
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from rankpipe import trec
from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.lm import Chat, Completion
from rankpipe.lm.cache import Cached
from rankpipe.lm.fake import Noisy
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import Sliding


class Slow(Noisy):
    """Answers one chat after the other, each after a while.

    :param hang_at: which answer never comes.
    """

    identity = "slow"

    def __init__(self, log: Path, hang_at: int | None = None) -> None:
        super().__init__(noise=0.3, malformed=0.2)
        self.log, self.hang_at, self.answered = log, hang_at, 0

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        return [self.one(chat, max_tokens) for chat in chats]

    def one(self, chat: Chat, max_tokens: int) -> Completion:
        digest = hashlib.sha256(str(chat).encode()).hexdigest()
        if self.answered == self.hang_at:
            self.note(f"hangs {digest}")
            time.sleep(600)
        time.sleep(0.01)
        [said] = super().complete([chat], max_tokens=max_tokens)
        self.answered += 1
        self.note(f"answered {digest}")
        return said

    def note(self, line: str) -> None:
        with open(self.log, "a") as f:
            f.write(line + "\n")


class Dumb:
    """Knows its name, and breaks where it is asked anything."""

    identity = "slow"


def rankings() -> list[Ranking]:
    words = ["tea", "leaves", "steep", "patch", "tube", "bike", "glue", "wheel", "cup", "kettle", "pump"]
    docs = [Doc(f"d{i}", " ".join(words[j * (i + 3) % 11] for j in range(1, 7))) for i in range(30)]
    hits = tuple(Hit(doc, 30.0 - rank) for rank, doc in enumerate(docs))
    return [Ranking(Query(f"q{i}", text), hits) for i, text in enumerate(["tea leaves", "patch a tube", "bike", "cup"])]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("cache", "run", "log"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--hang-at", type=int)
    parser.add_argument("--slice", type=int)
    parser.add_argument("--offline", action="store_true")
    given = parser.parse_args()
    lm = Dumb() if given.offline else Slow(given.log, given.hang_at)
    cached = Cached(lm, given.cache, given.slice, given.offline)  # type: ignore[arg-type]
    trec.write_run(given.run, Listwise(cached, Sliding(8, 4)).run(rankings()), tag="slow")


if __name__ == "__main__":
    main()
