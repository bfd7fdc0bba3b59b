"""Neighbours from half of the matrix are those that all of it gives, ties by number."""

import numpy as np
import pytest

from gpu.all_pairs import nearest_of_all
from gpu.manhattan_distances import ManhattanDistances
from gpu.parallel import worker_threads
from gpu.squared_distances import SquaredDistances


def gaussian(n_points=300, n_dims=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n_points, n_dims)).astype(np.float32)


def grid(n_points=300):
    """Whole numbers around 0: most points have many others at exactly the same distance."""
    half = np.random.default_rng(1).integers(-2, 3, size=(n_points // 2, 3))
    return np.concatenate([half, -half]).astype(np.float32)


def found(distances, n_kept=9, tile=64, n_threads=2):
    told = []
    with worker_threads(n_threads) as each:
        near, values = nearest_of_all(distances, n_kept, each, told.append, tile)
    assert told == sorted(told)
    assert told[-1] == 1
    return near, values


@pytest.mark.parametrize("distances", [SquaredDistances, ManhattanDistances])
@pytest.mark.parametrize("points", [gaussian(), grid(), np.ones((130, 4), np.float32)])
@pytest.mark.parametrize("tile", [7, 37, 64, 1024])
def test_neighbours_are_those_of_the_whole_matrix(distances, points, tile):
    n_points = len(points)
    measured = distances(points)

    near, values = found(measured, tile=tile)

    block = measured.block(slice(0, n_points), slice(0, n_points))
    order = np.argsort(block, axis=1, kind="stable")[:, :9]
    expected = np.take_along_axis(block, order, axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    if points.shape[1] != 5:  # Not where tiles round differently.
        assert np.array_equal(near, order)


def test_all_points_are_kept_where_there_are_no_more():
    near, values = found(SquaredDistances(gaussian(30)), n_kept=30, tile=8)

    assert (np.sort(near, axis=1) == np.arange(30)).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert (near[:, 0] == np.arange(30)).all()


@pytest.mark.parametrize("n_points", [1, 2, 64, 65, 129])
def test_any_number_of_tiles_is_met(n_points):
    near, values = found(SquaredDistances(gaussian(n_points)), n_kept=1)

    assert near[:, 0].tolist() == list(range(n_points))
    assert (values == 0).all()


def test_the_result_does_not_depend_on_the_threads():
    points = gaussian(500)

    first = found(SquaredDistances(points), n_threads=1)

    again = found(SquaredDistances(points), n_threads=3)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
