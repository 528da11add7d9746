"""Work side by side against a plain loop."""

import threading
import time

import pytest

from rankpipe.threads import AHEAD, side_by_side


def test_results_come_in_order_however_long_each_takes() -> None:
    def work(i: int) -> int:
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(side_by_side(work, range(100), 3)) == [i * i for i in range(100)]
    assert list(side_by_side(work, [], 3)) == []


def test_so_many_are_worked_at_at_a_time_and_few_are_taken_ahead() -> None:
    meeting, taken, begun = threading.Barrier(3, timeout=30), [], []

    def items() -> object:
        for i in range(60):
            taken.append(i)
            yield i

    made = side_by_side(lambda _: meeting.wait(), items(), 3, lambda: begun.append(threading.get_ident()))  # type: ignore[arg-type]
    next(made)
    assert len(taken) == 3 * AHEAD + 1
    assert sum(1 for _ in made) == 59  # three at a time, or the barrier breaks
    assert len(set(begun)) == 3


def test_an_error_is_the_callers_and_what_waits_is_dropped() -> None:
    seen = []

    def work(i: int) -> int:
        seen.append(i)
        time.sleep(0.01)
        return 1 // (i - 2)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(1000), 2))
    assert len(seen) < 2 * AHEAD
