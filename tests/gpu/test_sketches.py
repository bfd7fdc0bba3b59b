"""A sketch is half as wide and its distances are nearly true, or rows stay whole."""

import numpy as np
import pytest

from gpu.parallel import worker_threads
from gpu.sketches import Sketch
from gpu.squared_distances import SquaredDistances


@pytest.fixture(scope="module")
def each():
    with worker_threads(2) as mapped:
        yield mapped


def embeddings(n_points=3000, n_dims=128, seed=0):
    """Directions of ever less spread, as sentence embeddings have, around an offset."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0]
    spread = 0.97 ** np.arange(n_dims)
    return ((rng.normal(size=(n_points, n_dims)) * spread) @ turn + 3).astype(np.float32)


def estimates(sketched, rows):
    squares, every = sketched.squares, slice(0, sketched.n_points)
    return squares[rows, None] + squares - 2 * sketched.rows(rows) @ sketched.rows(every).T


@pytest.mark.parametrize("unit", [1.0, 1e-18, 1e18], ids=["one", "tiny", "huge"])
def test_the_nearest_by_a_sketch_are_the_nearest(each, unit):
    points = (embeddings() * unit).astype(np.float32)
    distances = SquaredDistances(points)

    sketched = Sketch(distances, each)

    assert sketched.rows(slice(10, 30)).shape == (20, 64)
    rows = np.arange(0, 3000, 60)
    true = distances.block(rows, slice(0, 3000))
    nearest = np.argsort(true, axis=1)[:, :5]
    candidates = np.argsort(estimates(sketched, rows), axis=1)[:, :24]
    met = [np.isin(a, b).mean() for a, b in zip(nearest, candidates, strict=True)]
    assert np.mean(met) > 0.98


def test_rows_that_spread_evenly_stay_whole(each):
    points = np.random.default_rng(1).normal(size=(2000, 128)).astype(np.float32)
    distances = SquaredDistances(points)

    sketched = Sketch(distances, each)

    assert sketched.rows(np.array([5, 3])).shape == (2, 128)
    rows = np.arange(50)
    np.testing.assert_allclose(
        estimates(sketched, rows), distances.block(rows, slice(0, 2000)), atol=1e-3
    )


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((400, 128)),
        np.ones((1, 100_000)),
        np.ones((300, 128)) * np.arange(300)[:, None],
        np.eye(5),
    ],
    ids=["all zeros", "one point", "a line", "few"],
)
def test_odd_rows_have_true_distances(each, points):
    distances = SquaredDistances(points.astype(np.float32))

    sketched = Sketch(distances, each)

    rows = np.arange(len(points))
    np.testing.assert_allclose(
        estimates(sketched, rows), distances.block(rows, slice(0, len(points))), atol=1e-3
    )
