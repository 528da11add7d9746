"""An engine gives what is made, in order, or the error that was raised; who has no Ray is told how to get it."""

import pickle
from importlib.util import find_spec

import pytest

from rankpipe.engine import Failure, Local, Ray, answered
from rankpipe.errors import CommandError, DataError, MissingExtra, RecipeError


def test_local_takes_items_as_they_are_needed() -> None:
    taken: list[int] = []
    made = Local().map(lambda n: n * n, (taken.append(n) or n for n in range(9)))
    assert (next(made), next(made), taken) == (0, 1, [0, 1])
    assert Local().crew([abs, str])(-3) == [3, "-3"]


def test_errors_are_told() -> None:
    def fail() -> int:
        raise DataError("a.tsv:1: nothing")

    failure = answered(fail)
    assert isinstance(failure, Failure)
    with pytest.raises(DataError, match="nothing"):
        raise failure.error
    with pytest.raises(ZeroDivisionError):
        answered(lambda: 1 // 0)


@pytest.mark.parametrize("kind", [CommandError, RecipeError])
@pytest.mark.parametrize("faults", [["one"], ["one", "two"]])
def test_errors_are_the_same_in_another_process(kind: type[CommandError | RecipeError], faults: list[str]) -> None:
    error = kind(faults)
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), there.faults, str(there)) == (kind, faults, str(error))


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray() -> None:
    with pytest.raises(MissingExtra, match=r"engine ray needs 'ray', .*rankpipe\[ray\]"):
        Ray()
