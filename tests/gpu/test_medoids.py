"""The medoid of a group too large for all its pairs has the least summed distance, or nearly."""

import numpy as np
import pytest

from gpu.medoids import ALL_PAIRS_POINTS, euclidean_medoid, nearest_to_mean


def summed(points):
    """Give every row's summed distance to all, a row at a time."""
    points = points.astype(np.float64)
    return np.array([np.linalg.norm(points - point, axis=1).sum() for point in points])


def medoid(points, rows=None):
    rows = np.arange(len(points)) if rows is None else rows
    return euclidean_medoid(points, rows, points[rows].mean(axis=0))


SHAPES = {
    "one cloud": lambda rng, shape: rng.normal(size=shape),
    "a cloud and what lies far off": lambda rng, shape: (
        rng.normal(size=shape) + 20 * (rng.random(shape[0]) < 0.1)[:, None]
    ),
    "long tails": lambda rng, shape: rng.standard_t(1.5, size=shape),
    "skewed": lambda rng, shape: rng.lognormal(0, 1.5, size=shape),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_dims", [2, 40])
@pytest.mark.parametrize("n_points", [ALL_PAIRS_POINTS, 3 * ALL_PAIRS_POINTS])
def test_no_member_has_a_smaller_sum(shape, n_dims, n_points):
    points = SHAPES[shape](np.random.default_rng(0), (n_points, n_dims)).astype(np.float32)

    sums = summed(points)

    assert sums[medoid(points)] == pytest.approx(sums.min(), rel=1e-6)


def test_what_lies_far_off_draws_the_mean_away_but_not_the_medoid():
    rng = np.random.default_rng(1)
    points = SHAPES["a cloud and what lies far off"](rng, (2000, 2)).astype(np.float32)
    rows = np.arange(len(points))

    sums = summed(points)

    near = nearest_to_mean(points, rows, points.mean(axis=0))
    assert sums[medoid(points)] < 0.9 * sums[near]


def test_a_group_that_is_walked_in_blocks_has_the_same_medoid(monkeypatch):
    points = np.random.default_rng(2).normal(size=(1500, 8)).astype(np.float32)
    rows = np.sort(np.random.default_rng(3).choice(1500, 1200, replace=False))
    at_once = medoid(points, rows)

    monkeypatch.setattr("gpu.medoids.block_bytes_of", lambda _points: 8 << 10)

    assert medoid(points, rows) == at_once


@pytest.mark.parametrize("n_points", [1, 2, ALL_PAIRS_POINTS + 1])
def test_of_members_all_alike_any_will_do(n_points):
    points = np.full((n_points, 3), 7, dtype=np.float32)

    assert 0 <= medoid(points) < n_points
