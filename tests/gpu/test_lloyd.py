"""The skipping of points changes nothing: it is the plain iteration, only faster."""

import numpy as np
import pytest

from gpu.centroid_search import nearest
from gpu.lloyd import lloyd
from gpu.parallel import worker_threads


@pytest.fixture(scope="module")
def each():
    with worker_threads(2) as mapped:
        yield mapped


def plain(points, centroids, n_iter):
    """Lloyd as a textbook has it, in float64."""
    points, centroids = points.astype(np.float64), centroids.astype(np.float64)
    for _ in range(n_iter):
        labels = np.square(points[:, None] - centroids).sum(axis=2).argmin(axis=1)
        centroids = np.array([points[labels == g].mean(axis=0) for g in range(len(centroids))])
    return np.square(points[:, None] - centroids).sum(axis=2).argmin(axis=1), centroids


@pytest.mark.parametrize("n_iter", [1, 3, 25])
def test_iterations_are_those_of_the_textbook(each, n_iter):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(3_000, 4)).astype(np.float32)
    start = points[rng.choice(3_000, 20, replace=False)]

    found = lloyd(points, start, tolerance=0, max_iter=n_iter, each=each)
    labels, centroids = plain(points, start, n_iter)

    assert found.n_iter == n_iter
    assert not found.converged
    assert (found.labels == labels).mean() > 0.999
    assert found.centroids == pytest.approx(centroids, abs=2e-3)


def test_an_end_by_tolerance_is_told_and_leaves_labels_of_the_final_centroids(each):
    points = np.random.default_rng(3).normal(size=(2_000, 3)).astype(np.float32)
    shifts: list[float] = []

    found = lloyd(
        points,
        points[:9],
        tolerance=1e-3,
        max_iter=500,
        each=each,
        on_shift=lambda _n_iter, shift: shifts.append(shift),
    )

    assert found.converged
    assert shifts[-1] <= 1e-3 < min(shifts[:-1])
    assert np.array_equal(found.labels, nearest(points, found.centroids, each))


def test_an_empty_group_takes_the_farthest_point(each):
    points = np.array([[0.0], [0.1], [0.2], [9.0]], dtype=np.float32)
    start = np.array([[1.0], [100.0]], dtype=np.float32)  # Nothing is nearest to the second.

    found = lloyd(points, start, tolerance=0, max_iter=50, each=each)

    assert found.converged
    assert found.labels.tolist() == [0, 0, 0, 1]


def test_the_start_is_not_changed(each):
    points = np.random.default_rng(4).normal(size=(100, 3)).astype(np.float32)
    start = points[:4].copy()

    lloyd(points, start, tolerance=0, max_iter=10, each=each)

    assert np.array_equal(start, points[:4])


@pytest.mark.parametrize("n_centroids", [1, 2, 300])
def test_nearest_is_the_nearest(each, n_centroids):
    rng = np.random.default_rng(5)
    points = rng.normal(size=(5_000, 6)).astype(np.float32)
    centroids = rng.normal(size=(n_centroids, 6)).astype(np.float32)

    squares = np.square(points[:, None].astype(np.float64) - centroids).sum(axis=2)
    chosen = squares[np.arange(5_000), nearest(points, centroids, each)]

    assert chosen == pytest.approx(squares.min(axis=1), abs=1e-5)
