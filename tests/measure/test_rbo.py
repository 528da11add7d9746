"""RBO against its definition and a published example."""

import random

import pytest

from rankpipe.measure.rbo import rbo


def by_definition(a: list[str], b: list[str], p: float) -> float:
    """(1 - p) sum p^(d-1) A_d to depth 2000. Below the end of the short list, it is taken to agree as it did so far;
    below the end of the long one, agreement stays what it was."""
    short, long = sorted((a, b), key=len)
    s, total, agreement = len(short), 0.0, 0.0
    for d in range(1, 2001):
        if d <= len(long):
            overlap = len(set(short[:d]) & set(long[:d]))
            unseen = max(d - s, 0) * len(set(short) & set(long[:s])) / s
            agreement = (overlap + unseen) / d
        total += (1 - p) * p ** (d - 1) * agreement
    return total


def test_equals_its_definition() -> None:
    rng = random.Random(0)
    docs = [str(i) for i in range(30)]
    for _ in range(200):
        a, b = (rng.sample(docs, rng.randint(1, 25)) for _ in range(2))
        p = rng.choice([0.5, 0.8, 0.9, 0.98])
        assert rbo(a, b, p) == pytest.approx(by_definition(a, b, p), abs=1e-9)
        assert rbo(a, b, p) == rbo(b, a, p)


def test_published_example() -> None:
    """From the README of b4ny4n/rankmeasures."""
    assert round(rbo("12345", "23415", 0.9), 3) == 0.828


def test_ends_of_the_scale() -> None:
    assert rbo("abc", "abc") == pytest.approx(1)
    assert rbo("abcdef", "abc") == pytest.approx(1)  # nothing contradicts
    assert rbo("abc", "xyz") == rbo("abc", "") == 0
    assert rbo("", "") == 1
    for p in (0, 1):
        with pytest.raises(ValueError, match=f"p={p}"):
            rbo("a", "a", p)
