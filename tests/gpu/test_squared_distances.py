"""Distances by matrix product against float64 differences, where the product alone fails."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gpu.squared_distances import RELATIVE_ERROR, SquaredDistances


def cloud(n_points=120, n_dims=48, seed=0):
    return np.random.default_rng(seed).normal(size=(n_points, n_dims))


def near_duplicates(gap):
    rng = np.random.default_rng(1)
    points = np.repeat(cloud(60), 2, axis=0)
    return points + gap * rng.normal(size=points.shape) / np.sqrt(points.shape[1])


def clumps(gap):
    """Two far clumps that hold everything: every distance inside them is a small one."""
    rng = np.random.default_rng(2)
    ends = np.repeat([[-1.0], [1.0]], 60, axis=0) * np.ones(48)
    return ends + gap * rng.normal(size=ends.shape)


def one_far_away():
    points = cloud()
    points[7] *= 1e6
    return points


def all_distances(vectors):
    source = SquaredDistances(vectors)
    everything = slice(0, len(vectors))
    return source.scale * np.sqrt(source.block(everything, everything).astype(np.float64))


CASES = {
    "plain": cloud(),
    "one dimension": cloud(n_points=40, n_dims=1),
    "wide": cloud(n_points=40, n_dims=20_000),
    "offset": cloud() + 1000,
    "tiny": cloud() * 1e-25,
    "huge": cloud() * 1e25,
    "gap 1e-2": near_duplicates(1e-2),
    "gap 1e-4": near_duplicates(1e-4),
    "gap 1e-6": near_duplicates(1e-6),
    "gap and offset": near_duplicates(1e-4) + 100,
    "clumps": clumps(1e-2),
}


@pytest.mark.parametrize("points", CASES.values(), ids=CASES.keys())
def test_every_distance_is_right_to_the_promised_share_of_itself(points):
    vectors = points.astype(np.float32)
    exact = cdist(vectors.astype(np.float64), vectors.astype(np.float64))

    found = all_distances(vectors)

    np.testing.assert_allclose(found, exact, rtol=RELATIVE_ERROR, atol=0)


@pytest.mark.parametrize(
    "points", [clumps(1e-6), one_far_away()], ids=["tight clumps", "far point"]
)
def test_what_a_float64_product_repairs_is_right_to_a_share_of_the_longest_row(points):
    vectors = points.astype(np.float32)
    exact = cdist(vectors.astype(np.float64), vectors.astype(np.float64))
    longest = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).max()

    found = all_distances(vectors)

    np.testing.assert_allclose(found, exact, rtol=RELATIVE_ERROR, atol=1e-7 * longest)


@pytest.mark.parametrize("copies", [2, 60], ids=["pairs", "clumps"])
def test_duplicates_are_at_distance_zero_and_nothing_else_is(copies):
    points = np.repeat(cloud(n_points=4), copies, axis=0).astype(np.float32)
    points[0, 0] = 0.0
    points[1] = points[0]
    points[1, 0] = -0.0
    exact = cdist(points.astype(np.float64), points.astype(np.float64))

    found = all_distances(points)

    np.testing.assert_array_equal(found == 0, exact == 0)


def test_blocks_are_parts_of_the_whole():
    vectors = near_duplicates(1e-4).astype(np.float32)
    source = SquaredDistances(vectors)
    whole = source.block(slice(0, 120), slice(0, 120))
    rows = np.array([5, 90, 17, 4])

    by_slice = source.block(slice(30, 50), slice(0, 120))
    by_index = source.block(rows, slice(40, 120))

    np.testing.assert_allclose(by_slice, whole[30:50], rtol=RELATIVE_ERROR)
    np.testing.assert_allclose(by_index, whole[rows, 40:120], rtol=RELATIVE_ERROR)
    assert (by_slice[np.arange(20), np.arange(30, 50)] == 0).all()


@pytest.mark.parametrize("points", CASES.values(), ids=CASES.keys())
def test_without_a_centred_copy_every_digit_is_the_same(points):
    vectors = points.astype(np.float32)
    keeping = SquaredDistances(vectors)
    sparing = SquaredDistances(vectors, keeps_centred=False)
    rows, columns = np.array([5, 30, 17, 4]), slice(3, len(vectors))

    np.testing.assert_array_equal(sparing.block(rows, columns), keeping.block(rows, columns))
    for which in (rows, columns):
        np.testing.assert_array_equal(sparing.centred(which), keeping.centred(which))
    np.testing.assert_array_equal(sparing.squares, keeping.squares)


def test_pairs_are_those_of_float64():
    vectors = (cloud() + 50).astype(np.float32)
    left, right = np.random.default_rng(0).integers(120, size=(2, 3000))
    source = SquaredDistances(vectors)

    found = source.scale**2 * source.pairs(left, right)

    difference = vectors.astype(np.float64)[left] - vectors[right]
    np.testing.assert_allclose(found, (difference**2).sum(axis=1), rtol=1e-12)
