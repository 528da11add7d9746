"""Batches of like lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankpipe.lm.local import batched


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([], []),
        ([5], [[0]]),
        ([500], [[0]]),
        ([10, 40, 20, 30], [[1, 3], [2, 0]]),
        ([45, 1, 1, 1, 1, 1, 1, 1], [[0], [1, 2, 3, 4, 5, 6, 7]]),
        ([40, 30, 10, 9], [[0, 1], [2, 3]]),
    ],
)
def test_batched(lengths: list[int], batches: list[list[int]]) -> None:
    """As few as there is room for, and of those with the least padding."""
    assert batched(lengths, max_tokens=5, batch_tokens=100) == batches


@given(st.lists(st.integers(1, 100), min_size=1, max_size=7), st.integers(100, 400), st.integers(0, 50))
def test_no_batches_cost_less(lengths: list[int], batch_tokens: int, a_pass: int) -> None:
    """Against all ways to cut the sorted lengths."""
    made = batched(lengths, 0, batch_tokens, a_pass)
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    sizes = [[lengths[i] for i in batch] for batch in made]
    falling = sorted(lengths, reverse=True)
    assert [n for batch in sizes for n in batch] == falling
    cuts = [
        [0, *middle, len(lengths)] for n in range(len(lengths)) for middle in combinations(range(1, len(lengths)), n)
    ]
    ways = [[falling[a:b] for a, b in pairwise(cut)] for cut in cuts]
    room = [way for way in ways if all(len(batch) * batch[0] <= batch_tokens for batch in way)]
    assert sizes in room
    assert cost(sizes, a_pass) == min(cost(way, a_pass) for way in room)


def cost(batches: Sequence[Sequence[int]], a_pass: int) -> int:
    return sum(a_pass + len(batch) * batch[0] for batch in batches)
