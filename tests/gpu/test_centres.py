"""Medians and medoids by our own loops are NumPy's and those of the whole matrix."""

import numpy as np
import pytest

from gpu.centres import COUNTED_ROWS, median_of, summed_distances


def rows_of(n_rows, n_dims=37, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n_rows + 20, n_dims)).astype(np.float32)
    points[:, 0] = 1.5  # A constant column, signed zeros, few values, and large and tiny ones.
    points[:, 1] = np.where(rng.random(len(points)) < 0.5, np.float32(-0.0), np.float32(0.0))
    points[:, 2] = rng.integers(-1, 2, len(points))
    points[:, 3] *= 3e37
    points[:, 4] *= 1e-40
    return points, np.sort(rng.choice(len(points), n_rows, replace=False))


@pytest.mark.parametrize("n_rows", [1, 2, 3, 64, 1001, COUNTED_ROWS])
def test_medians_are_those_of_numpy(n_rows):
    points, rows = rows_of(n_rows)

    assert np.array_equal(median_of(points, rows), np.median(points[rows], axis=0))


@pytest.mark.parametrize("n_rows", [1, 2, 255, 256, 700])
def test_distances_are_summed_over_all_pairs(n_rows):
    points = np.random.default_rng(1).normal(size=(n_rows, 24)).astype(np.float32)
    points[n_rows // 2 :: 3] = points[0]  # Duplicates.
    centred = points - points.mean(axis=0)

    found = summed_distances(centred)

    wanted = np.linalg.norm(points[:, None].astype(np.float64) - points, axis=2).sum(axis=1)
    # A duplicate's distance is the square root of what is left of a difference: 1e-3 at most.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3 * n_rows)
