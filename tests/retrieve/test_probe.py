"""The probe, by a clock that only the ways it tries can move."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from rankpipe.retrieve.probe import NEAR, SECONDS, fastest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Way:
    """Takes so long for each call and each text, and is so far off."""

    def __init__(self, clock: Clock, text_s: float, call_s: float = 0.0, off: float = 0.0) -> None:
        self.clock, self.text_s, self.call_s, self.off, self.calls = clock, text_s, call_s, off, list[int]()

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(len(texts))
        self.clock.now += self.call_s + self.text_s * len(texts)
        return np.array([[len(text), self.off * len(text)] for text in texts], np.float32)


@pytest.mark.parametrize(
    ("seconds", "off", "chosen"),
    [
        ((0.02, 0.01), 0.0, "second"),  # twice as fast
        ((0.02, 0.019), 0.0, "first"),  # not by enough to be less exact for it
        ((0.02, 0.04), 0.0, "first"),
        ((0.02, 0.001), 0.1, "first"),  # a cosine of .995
        ((0.02, 0.001), 0.03, "second"),  # a cosine of .9996
    ],
)
def test_the_fastest_of_those_that_are_exact_enough(seconds: tuple[float, float], off: float, chosen: str) -> None:
    clock = Clock()
    ways = {"first": Way(clock, seconds[0]), "second": Way(clock, seconds[1], off=off)}
    found, tried = fastest(ways, clock)
    assert found == chosen
    assert [tried[name].texts_a_second for name in ways] == [round(1 / s, 1) for s in seconds]
    assert tried["first"].cosine == 1
    assert tried["second"].cosine == pytest.approx(1 / np.hypot(1, off), abs=1e-5)
    assert (tried["second"].cosine >= NEAR) == (off < 0.1)


def test_it_ends_in_time_unless_one_text_takes_longer() -> None:
    clock = Clock()
    ways = {"a": Way(clock, 0.011), "b": Way(clock, 0.007, call_s=0.05), "slow": Way(clock, 0.4)}
    fastest(ways, clock)
    assert SECONDS / 2 < clock.now <= SECONDS
    assert all(sum(w.call_s + w.text_s * n for n in w.calls) <= SECONDS / 3 for w in ways.values())
    assert ways["slow"].calls == [1]
    clock = Clock()
    very = Way(clock, 30)
    assert fastest({"a": Way(clock, 0.01), "very slow": very}, clock)[0] == "a"
    assert very.calls == [1]


def test_what_only_pays_for_many_texts_is_seen() -> None:
    clock = Clock()
    found, tried = fastest({"single": Way(clock, 0.01), "many": Way(clock, 0.001, call_s=0.1)}, clock)
    assert found == "many"
    assert tried["many"].texts_a_second > 200


def test_vectors_that_are_no_numbers_are_not_chosen() -> None:
    clock = Clock()
    with np.errstate(invalid="ignore"):
        assert fastest({"a": Way(clock, 0.01), "b": Way(clock, 0.001, off=float("nan"))}, clock)[0] == "a"
