"""Bounds rule out only what a search of all centroids would not have chosen."""

import numpy as np
import pytest

from gpu.centroid_search import Bundles, CentroidSearch, bundle, most_bundles, nearest
from gpu.parallel import worker_threads


@pytest.fixture(scope="module")
def each():
    with worker_threads(2) as mapped:
        yield mapped


def distances_to(points, centroids):
    return np.sqrt(np.square(points[:, None].astype(np.float64) - centroids).sum(axis=2))


@pytest.mark.parametrize("n_bundles", [1, 3, 8, 40])
def test_labels_stay_those_of_the_nearest_while_centroids_move(each, n_bundles):
    rng = np.random.default_rng(n_bundles)
    points = rng.normal(size=(3_000, 8)).astype(np.float32)
    centroids = rng.normal(size=(40, 8)).astype(np.float32)
    bundles = Bundles.from_labels((np.arange(40) % n_bundles).astype(np.int32))
    search = CentroidSearch(points, centroids, bundles, each)

    for size in (0.5, 0.1, 0.0, 0.02, 2.0, 0.001):
        # Few move far and most hardly, as in the late iterations of k-means.
        shifts = size * rng.random((40, 1)) ** 4
        moved = (centroids + shifts * rng.normal(size=(40, 8))).astype(np.float32)
        before = search.labels.copy()
        changed = search.follow(moved, np.linalg.norm(moved - centroids, axis=1))
        centroids = moved

        distances = distances_to(points, centroids)
        chosen = distances[np.arange(3_000), search.labels]
        assert chosen == pytest.approx(distances.min(axis=1), abs=1e-5)
        assert np.array_equal(changed, np.flatnonzero(before != search.labels))


def test_a_point_that_was_moved_by_force_is_found_again(each):
    points = np.array([[0.0, 0], [1, 0], [10, 0]], dtype=np.float32)
    centroids = np.array([[0.0, 0], [10, 0], [50, 0]], dtype=np.float32)
    search = CentroidSearch(points, centroids, bundle(centroids, each), each)

    search.move(1, 2)

    assert search.labels.tolist() == [0, 2, 1]
    assert search.follow(centroids, np.zeros(3, dtype=np.float32)).tolist() == [1]
    assert search.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_change_nothing(n_threads):
    rng = np.random.default_rng(4)
    points = rng.normal(size=(5_000, 5)).astype(np.float32)
    start, end = rng.normal(size=(2, 30, 5)).astype(np.float32)

    with worker_threads(n_threads) as each:
        search = CentroidSearch(points, start, bundle(start, each), each)
        search.follow(end, np.linalg.norm(end - start, axis=1))

    with worker_threads(1) as each:
        assert np.array_equal(search.labels, nearest(points, end, each))


def test_the_lower_of_two_equal_centroids_is_the_nearest(each):
    points = np.ones((10, 2), dtype=np.float32)
    centroids = np.array([[5, 5], [1, 1], [1, 1]], dtype=np.float32)

    assert nearest(points, centroids, each).tolist() == [1] * 10


@pytest.mark.parametrize(("n_centroids", "n_dims"), [(1, 3), (300, 32), (50, 2), (60, 384)])
def test_bundles_hold_every_centroid_once_and_bound_their_memory(each, n_centroids, n_dims):
    centroids = np.random.default_rng(6).normal(size=(n_centroids, n_dims)).astype(np.float32)

    bundles = bundle(centroids, each)

    assert sorted(bundles.members.tolist()) == list(range(n_centroids))
    assert len(bundles.starts) - 1 <= most_bundles(n_centroids, n_dims)
    for number in range(len(bundles.starts) - 1):
        members = bundles.members[bundles.starts[number] : bundles.starts[number + 1]]
        assert len(members) > 0
        assert set(bundles.bundle_of[members].tolist()) == {number}


def test_centroids_that_lie_together_share_a_bundle(each):
    rng = np.random.default_rng(7)
    places = 100 * np.eye(8, dtype=np.float32)
    centroids = np.repeat(places, 10, axis=0) + rng.normal(size=(80, 8)).astype(np.float32)

    order = rng.permutation(80)

    bundles = bundle(centroids[order], each)

    for place in range(8):
        assert len(set(bundles.bundle_of[order // 10 == place].tolist())) == 1
    assert len(bundles.starts) - 1 > 1
