import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rankpipe import Answer, Doc, Hit, Query, Ranking, Step, Top
from rankpipe.errors import RecipeError
from rankpipe.stage import Generator, Reranker, Retriever, Stage, chain


class Letters(Retriever):
    """Finds the letters of the question."""

    def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
        return [Ranking.scored(q, [Hit(Doc(c, c), float(ord(c))) for c in set(q.text)]) for q in batch]


class Slow(Reranker):
    """Turns the order round, and notes its calls."""

    batch = 2

    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        time.sleep(0.02)
        return [r.reordered(range(len(r.hits))[::-1]).noting(Step(self.name, calls=3)) for r in batch]


class Say(Generator):
    def run(self, batch: Sequence[Ranking]) -> Sequence[Answer]:
        return [Answer(r, r.hits[0].doc.text) for r in batch]


class Loses(Reranker):
    def run(self, batch: Sequence[Ranking]) -> Sequence[Ranking]:
        return batch[:-1]


def test_a_pipeline_runs_from_query_to_answer() -> None:
    pipe = Letters() >> Top(2) >> Slow() >> Say()
    assert repr(pipe) == "Letters >> Top(2) >> Slow >> Say"
    assert [s.name for s in pipe.stages] == ["Letters", "Top(2)", "Slow", "Say"]
    answers = list(pipe([Query("1", "abc"), Query("2", "xy")]))
    assert [a.text for a in answers] == ["b", "x"]


def test_every_stage_is_timed_once() -> None:
    [ranking] = (Letters() >> Slow() >> Slow())([Query("1", "abc")])
    assert [s.stage for s in ranking.steps] == ["Letters", "Slow", "Slow"]
    assert all(s.seconds >= 0.02 and s.calls == 3 for s in ranking.steps[1:])
    assert ranking.steps[0].seconds < 0.02


def test_seconds_of_inner_stages_are_not_counted_twice() -> None:
    class Outer(Retriever):
        def run(self, batch: Sequence[Query]) -> Sequence[Ranking]:
            time.sleep(0.01)
            return (Letters() >> Slow()).apply(batch)

    [ranking] = Outer()([Query("1", "abc")])
    assert [s.stage for s in ranking.steps] == ["Letters", "Slow", "Outer"]
    assert 0.01 <= ranking.steps[2].seconds < 0.02 <= ranking.steps[1].seconds


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (Say(), Slow(), "Say gives Answer, but Slow takes Ranking"),
        (Letters(), Letters(), "Letters gives Ranking, but Letters takes Query"),
        (Letters() >> Say(), Top(3), r"Letters >> Say gives Answer, but Top\(3\) takes Ranking"),
    ],
)
def test_a_wrong_pipeline_names_both_sides(first: Stage, then: Stage, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(TypeError, match=said):
        first >> then


def test_a_stage_may_not_lose_a_record() -> None:
    with pytest.raises(RuntimeError, match="Loses took 2 records and gave 1"):
        list((Letters() >> Loses())([Query("1", "a"), Query("2", "b")]))


def test_streams_in_batches() -> None:
    taken = []

    def queries():  # type: ignore[no-untyped-def]
        for i in range(200):
            taken.append(i)
            yield Query(str(i), "ab")

    stream = Letters()(queries())
    next(stream)
    assert len(taken) == Letters.batch


def test_top_refuses_nothing() -> None:
    with pytest.raises(RecipeError, match="k: 0 hits; expected 1 or more"):
        Top(0)


def test_search_by_hand() -> None:
    assert [h.doc.id for h in Letters().search("ab").hits] == ["b", "a"]


def test_stages_leave_their_input_alone() -> None:
    [ranking] = Letters()([Query("1", "abc")])
    copy = replace(ranking)
    Slow().apply([ranking])
    assert ranking == copy


def test_a_chain_for_recipes() -> None:
    assert repr(chain(Letters(), Top(2))) == repr(Letters() >> Top(2))
    for stages, said in (
        ((), "none; expected a list"),
        ((Letters(), 3), r"stages\[1\]: int is no stage"),
        ((Letters(), Letters()), r"stages\[1\]: Letters takes Query, but is given Ranking"),
    ):
        with pytest.raises(RecipeError, match=said):
            chain(*stages)  # type: ignore[arg-type]
