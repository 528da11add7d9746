"""The search of :mod:`rankpipe.retrieve.topk` as machine code, by Numba (extra ``fast``).

It goes through the documents window by window, as Lucene's bulk scorer for MaxScore does (Lucene 10,
``MaxScoreBulkScorer``), and finds the same documents and scores as the search without Numba, to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, njit, uint64
from numpy.typing import NDArray

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

WINDOW = 4096  # documents whose sums are in the nearest memory of a processor
TINY = 1e-300  # any score is more
DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
BIT = np.empty(64, np.int64)  # which bit a power of two is, by the top six bits of its product with that number
BIT[[((int(DE_BRUIJN) << bit) & 0xFFFFFFFFFFFFFFFF) >> 58 for bit in range(64)]] = np.arange(64)

compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def best(
    docs: NDArray[np.int32],
    values: NDArray[Any],
    norms: NDArray[np.float32],
    lies: NDArray[np.int64],
    weights: NDArray[np.float32],
    bounds: NDArray[np.float64],
    alive: NDArray[np.bool_],
    k: int,
    slack: float,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Documents among which the ``k`` best are, and their scores.

    :param norms: of the documents; none, if values are scores but for their weights.
    :param lies: where the postings of each term begin and end, (terms, 2).
    :param bounds: what no score of a term is above, (terms,).
    :param alive: which documents may be found; none, if all may.
    """
    terms = len(lies)
    rest = np.zeros(terms + 1)  # rest[i]: what terms i.. can add
    for t in range(terms - 1, -1, -1):
        rest[t] = rest[t + 1] + bounds[t]
    at, ends = lies[:, 0].copy(), lies[:, 1]
    sums, told = np.zeros(WINDOW), np.zeros(WINDOW // 64, np.uint64)  # of a window, and which are not 0, a bit each
    places, totals = np.empty(WINDOW, np.int64), np.empty(WINDOW)  # of a window, what may be among the best
    heap, held, enough, needed = np.empty(k), 0, 0.0, terms
    found, scores, made = np.empty(WINDOW + k, np.int32), np.empty(WINDOW + k, np.float32), 0
    while True:
        while needed and enough and rest[needed - 1] < enough * slack:
            needed -= 1
        start = _next(docs, at, ends, needed)
        if start < 0:
            return found[:made], scores[:made]
        _add(docs, values, norms, at, ends, weights[:needed], start, sums, told)
        count = _drain(sums, told, max(enough * slack - rest[needed], TINY), places, totals)
        if len(alive):
            count = _living(alive, start, places, totals, count)
        for t in range(needed, terms):
            at[t] = _ahead(docs, at[t], ends[t], start)
            count = _look_up(
                docs[at[t] : ends[t]], values[at[t] : ends[t]], norms, weights[t], start, places, totals, count,
                enough * slack - rest[t + 1],
            )  # fmt: skip
        if made + count > len(found):
            found, scores = np.append(found, found), np.append(scores, scores)
        for i in range(count):
            if totals[i] >= enough * slack:
                found[made], scores[made] = start + places[i], totals[i]
                made += 1
                held = _push(heap, held, totals[i])
                if held == k:
                    enough = heap[0]


@compiled
def _drain(
    sums: NDArray[np.float64],
    told: NDArray[np.uint64],
    least: float,
    places: NDArray[np.int64],
    totals: NDArray[np.float64],
) -> int:
    """Take the sums of a window that are not below ``least``, rising by place; all are 0 then."""
    count = 0
    for word in range(WINDOW // 64):
        bits = told[word]
        told[word] = 0
        while bits:
            lowest = bits & (~bits + uint64(1))
            bits ^= lowest
            place = word * 64 + BIT[(lowest * DE_BRUIJN) >> uint64(58)]
            places[count], totals[count] = place, sums[place]
            count += sums[place] >= least
            sums[place] = 0
    return count


@compiled
def _living(
    alive: NDArray[np.bool_], start: int, places: NDArray[np.int64], totals: NDArray[np.float64], count: int
) -> int:
    """Keep those that may be found."""
    kept = 0
    for i in range(count):
        places[kept], totals[kept] = places[i], totals[i]
        kept += alive[start + places[i]]
    return kept


@compiled
def _look_up(
    docs: NDArray[np.int32],
    values: NDArray[Any],
    norms: NDArray[np.float32],
    weight: np.float32,
    start: int,
    places: NDArray[np.int64],
    totals: NDArray[np.float64],
    count: int,
    least: float,
) -> int:
    """Add what a term brings; keep those that are not below ``least`` then."""
    kept = at = 0
    for i in range(count):
        doc, total = start + places[i], totals[i]
        at = _ahead(docs, at, len(docs), doc)
        if at < len(docs) and docs[at] == doc:
            total += _score(values, norms, weight, at, doc)
        places[kept], totals[kept] = places[i], total
        kept += total >= least
    return kept


@compiled
def _score(values: NDArray[Any], norms: NDArray[np.float32], weight: np.float32, place: int, doc: int) -> np.float32:
    value = np.float32(values[place])
    return weight * value / (value + norms[doc]) if len(norms) else weight * value


@compiled
def _next(docs: NDArray[np.int32], at: NDArray[np.int64], ends: NDArray[np.int64], needed: int) -> int:
    """Where a window with the first document that is left begins; -1 if none is."""
    first = -1
    for t in range(needed):
        if at[t] < ends[t] and (first < 0 or docs[at[t]] < first):
            first = docs[at[t]]
    return first - first % 64 if first >= 0 else -1


@compiled
def _add(
    docs: NDArray[np.int32],
    values: NDArray[Any],
    norms: NDArray[np.float32],
    at: NDArray[np.int64],
    ends: NDArray[np.int64],
    weights: NDArray[np.float32],
    start: int,
    sums: NDArray[np.float64],
    told: NDArray[np.uint64],
) -> None:
    """Sum up a window, term after term."""
    for t in range(len(weights)):
        place, end, weight = at[t], ends[t], weights[t]
        while place < end and docs[place] < start + WINDOW:
            doc = docs[place]
            sums[doc - start] += _score(values, norms, weight, place, doc)
            told[(doc - start) >> 6] |= uint64(1) << uint64((doc - start) & 63)
            place += 1
        at[t] = place


@compiled
def _ahead(docs: NDArray[np.int32], place: int, end: int, doc: int) -> int:
    """The first place whose document is not before ``doc``, by doubling steps and then halving them."""
    if place >= end or docs[place] >= doc:
        return place
    step = 1
    while place + step < end and docs[place + step] < doc:
        place += step
        step *= 2
    high = min(place + step, end)
    while high - place > 1:
        middle = (place + high) >> 1
        if docs[middle] < doc:
            place = middle
        else:
            high = middle
    return high


@compiled
def _push(heap: NDArray[np.float64], held: int, score: float) -> int:
    """Keep the largest scores, the least of them first; how many are held."""
    place = held
    if held < len(heap):
        while place and heap[(place - 1) >> 1] > score:
            heap[place] = heap[(place - 1) >> 1]
            place = (place - 1) >> 1
        heap[place] = score
        return held + 1
    if score > heap[0]:
        place, child = 0, 1
        while child < held:
            if child + 1 < held and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= score:
                break
            heap[place] = heap[child]
            place, child = child, 2 * child + 1
        heap[place] = score
    return held
