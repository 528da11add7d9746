"""What long work tells: one count for all of it, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rankpipe.data import Doc, Hit, Query, Ranking
from rankpipe.journal import Kept
from rankpipe.lm import LM, Chat, Completion
from rankpipe.lm.fake import Noisy
from rankpipe.progress import counting, done, listening, notice, track
from rankpipe.rerank.budget import Budget
from rankpipe.rerank.cross import CrossEncoder
from rankpipe.rerank.listwise import Listwise
from rankpipe.rerank.plans import SetwiseHeap, Sliding
from rankpipe.stage import Reranker, Top
from rankpipe.threads import Pool
from tests.heard import Heard


class Slow(Noisy):
    """Says each chat as it is done."""

    def complete(self, chats: Sequence[Chat], *, max_tokens: int) -> Sequence[Completion]:
        with counting("chats", len(chats)):
            for _ in chats:
                done()
            return super().complete(chats, max_tokens=max_tokens)


def rankings(queries: int, hits: int) -> list[Ranking]:
    docs = [Doc(f"d{i}", f"tea and {i} leaves") for i in range(hits)]
    return [
        Ranking(Query(f"q{q}", "tea leaves"), tuple(Hit(d, float(-i)) for i, d in enumerate(docs)))
        for q in range(queries)
    ]


def test_one_count_whatever_is_inside() -> None:
    with listening(heard := Heard()), counting("outer", 10):
        with counting("inner", 3):
            done()
            with counting("more than there is", 90):
                done(50)
        assert sum(heard.steps) == 3
        assert list(track("ab", "apart", 2)) == ["a", "b"]  # of another kind
        done(2)
    assert heard.counts == [("outer", 10), ("apart", 2)]
    assert sum(heard.steps) == 10 + 2


def test_work_that_failed_is_not_done() -> None:
    with listening(heard := Heard()), pytest.raises(ZeroDivisionError), counting("work", 5):
        done(2)
        raise ZeroDivisionError
    assert heard.steps == [2]


def test_nobody_need_listen() -> None:
    done()
    notice("nobody hears")
    with counting("work", 5):
        done(9)


def test_threads_have_the_same_listener() -> None:
    with listening(heard := Heard()), Pool(2) as pool:
        list(pool.map(notice, ["one", "two"]))
    assert sorted(heard.notices) == ["one", "two"]


@pytest.mark.parametrize("lm", [Noisy(), Slow()])
def test_a_reranker_counts_its_windows_once(lm: LM) -> None:
    """Of all rounds together, whether its model tells each of them or not."""
    with listening(heard := Heard()):
        Listwise(lm, plan=Sliding(size=4, step=2)).through(rankings(20, 10), "rerank with fake")
    assert heard.counts == [("rerank with fake: windows", 20 * 4)]
    assert sum(heard.steps) == 80
    assert len([step for step in heard.steps if step]) == (80 if isinstance(lm, Slow) else 4)  # rounds


@pytest.mark.parametrize(
    ("reranker", "most"),
    [
        (Listwise(Noisy(), plan=SetwiseHeap()), 2 * SetwiseHeap().calls(30)),
        (Listwise(Noisy(), budget=Budget(calls=2)), 4),
        (Top(3), 2),
    ],
)
def test_what_was_not_needed_is_done_in_the_end(reranker: Reranker, most: int) -> None:
    with listening(heard := Heard()):
        made = reranker.through(rankings(2, 30), "it")
    assert [total for _, total in heard.counts] == [most] == [sum(heard.steps)]
    assert sum(s.calls for r in made for s in r.steps) <= most


def test_passages_are_counted_as_they_are_scored(embedded: Callable[[str], Path]) -> None:
    embedded("minilm-l12")
    with listening(heard := Heard()):
        CrossEncoder(depth=3).through(rankings(2, 5), "it")
    assert heard.counts == [("it: passages", 6)]
    assert [step for step in heard.steps if step] == [1] * 6


def test_what_is_known_is_not_counted(tmp_path: Path) -> None:
    whole = rankings(5, 6)
    Kept(Listwise(Slow()), tmp_path / "k.jsonl", "it").through(whole[:2], "first")
    with listening(heard := Heard()):
        Kept(Listwise(Slow(), plan=Sliding()), tmp_path / "k.jsonl", "it").through(whole, "then")
    assert heard.counts == [("then: windows", 3)]
    assert sum(heard.steps) == 3
