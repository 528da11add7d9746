"""Compressed vectors are near what they were, and as small as they should be."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankpipe.retrieve.residuals import Codec, nearest
from tests.retrieve.fields import drawn


def far(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The mean distance of each vector from itself."""
    return float(np.linalg.norm(a - b, axis=1).mean())


@pytest.mark.parametrize("dimension", [32, 10, 7])
def test_more_bits_are_nearer(dimension: int) -> None:
    vectors = drawn(2000, dimension, tight=0.5)
    off = [far(vectors, vectors.mean(axis=0, keepdims=True))]
    for bits in (1, 2, 4):
        codec = Codec.learn(vectors, len(vectors), bits)
        kept = codec.pack(vectors)
        assert kept["residuals"].shape == (2000, -(-dimension * bits // 8))
        assert (kept["codes"].dtype, kept["residuals"].dtype) == (np.int32, np.uint8)
        back = codec.unpack(kept["codes"], kept["residuals"])
        assert np.linalg.norm(back, axis=1) == pytest.approx(1, abs=1e-5)
        off.append(far(vectors, back))
    assert all(a > 1.5 * b for a, b in pairwise(off)), off


def test_buckets_are_equally_full() -> None:
    vectors = drawn(8000, 16)
    codec = Codec.learn(vectors[:6000], 8000, 2)
    codes = nearest(vectors[6000:], codec.centroids)  # others than it has learned from
    buckets = np.searchsorted(codec.cuts, vectors[6000:] - codec.centroids[codes])
    shares = np.bincount(buckets.ravel(), minlength=4) / buckets.size
    assert shares == pytest.approx(0.25, abs=0.03)
    assert (np.diff(codec.values) > 0).all()


def test_the_nearest_is_nearest() -> None:
    vectors, centroids = drawn(500, 8), drawn(70, 8, seed=1)
    assert nearest(vectors, centroids).tolist() == [int((centroids @ v).argmax()) for v in vectors]


def test_centroids_are_where_vectors_are() -> None:
    """Twenty heaps of vectors, and more centroids than heaps: each vector has one near by."""
    vectors = drawn(1000, 32, tight=0.01)
    codec = Codec.learn(vectors, 1000, 4)
    assert len(codec.centroids) == round(4 * 1000**0.5)
    assert np.linalg.norm(codec.centroids, axis=1) == pytest.approx(1, abs=1e-3)
    assert ((vectors @ codec.centroids.T).max(axis=1) > 0.99).all()


def test_there_and_back(tmp_path: Path) -> None:
    vectors = drawn(300, 8)
    codec = Codec.learn(vectors, 300, 4)
    assert Codec.of(tmp_path) is None
    codec.save(tmp_path)
    read = Codec.of(tmp_path)
    assert read is not None
    assert read.tokens == 300
    assert codec.like(read)
    assert not codec.like(None)
    assert not codec.like(Codec.learn(vectors, 300, 2))
    before, after = codec.pack(vectors), read.pack(vectors)
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.parametrize("size", [1, 2, 19, 25])
def test_few_vectors(size: int) -> None:
    vectors = drawn(size, 8)
    codec = Codec.learn(vectors, size, 4)
    assert 1 <= len(codec.centroids) <= size
    kept = codec.pack(vectors)
    assert np.isfinite(codec.unpack(kept["codes"], kept["residuals"])).all()
    none = codec.pack(vectors[:0])
    assert codec.unpack(none["codes"], none["residuals"]).shape == (0, 8)
