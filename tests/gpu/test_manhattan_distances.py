"""Manhattan distances, and every method that takes them, against SciPy and scikit-learn."""

import numpy as np
import pytest
from gpu_mixtures import mixture
from scipy.spatial.distance import cdist
from sklearn import cluster
from sklearn.metrics import adjusted_rand_score

from gpu.backend import Backend
from gpu.clustering import fit
from gpu.errors import UnsupportedOnDeviceError
from gpu.hdbscan import hdbscan
from gpu.manhattan_distances import ManhattanDistances, manhattan_sums, nearest_by_manhattan
from gpu.parallel import worker_threads
from gpu.params import AgglomerativeParams, DbscanParams, HdbscanParams, OpticsParams


def points(n_points=600, n_dims=12, seed=0):
    return mixture(n_points, n_dims, n_groups=6, spread=1.0, seed=seed)[0]


def test_blocks_are_those_of_scipy_wherever_they_are_cut():
    vectors = points(1_500)
    some = np.array([3, 700, 3, 1_499])

    distances = ManhattanDistances(vectors)

    whole = cdist(vectors, vectors, "cityblock")
    np.testing.assert_allclose(distances.block(slice(0, 1_500), slice(0, 1_500)), whole, rtol=1e-6)
    np.testing.assert_allclose(
        distances.block(some, slice(5, 1_200)), whole[some, 5:1_200], rtol=1e-6
    )


def test_only_duplicates_are_at_no_distance():
    vectors = points(50) * np.float32(1e-20)
    vectors[7] = vectors[3]

    block = ManhattanDistances(vectors).block(slice(0, 50), slice(0, 50))

    assert (np.argwhere(block == 0) == np.argwhere(np.eye(50) + (block == 0) > 0)).all()
    assert block[3, 7] == 0
    assert (block == 0).sum() == 52


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_sums_are_those_of_all_pairs(offset):
    vectors = points() + np.float32(offset)
    rows = np.arange(0, 600, 3)

    sums = manhattan_sums(vectors, rows)

    pairs = cdist(vectors[rows], vectors[rows], "cityblock")
    np.testing.assert_allclose(sums, pairs.sum(axis=1), rtol=1e-9)


def test_sums_of_one_row_and_of_ties():
    vectors = np.array([[1, 1], [1, 1], [4, 0]], dtype=np.float32)

    assert manhattan_sums(vectors, np.array([2])).tolist() == [0]
    assert manhattan_sums(vectors, np.arange(3)).tolist() == [4, 4, 8]


def test_of_equally_near_targets_the_first_is_taken():
    targets = np.array([[2, 0], [0, 2], [1, 1]], dtype=np.float32)

    with worker_threads(2) as each:
        found = nearest_by_manhattan(np.zeros((3, 2), dtype=np.float32), targets, each)

    assert found.tolist() == [0, 0, 0]


@pytest.mark.parametrize("budget_bytes", [None, 0])
@pytest.mark.parametrize("min_samples", [None, 3])
def test_hdbscan_agrees_with_sklearn(min_samples, budget_bytes):
    vectors = points(900)
    params = HdbscanParams(min_cluster_size=12, min_samples=min_samples)

    found = hdbscan(
        vectors,
        params,
        backend=Backend("cpu", "a test"),
        metric="manhattan",
        matrix_budget_bytes=budget_bytes,
    )

    theirs = cluster.HDBSCAN(
        min_cluster_size=12, min_samples=min_samples, metric="manhattan", copy=True
    ).fit(vectors)
    assert found.details["spanning_tree"] == ("dense" if budget_bytes is None else "blocks")
    assert found.n_clusters > 2
    assert adjusted_rand_score(theirs.labels_, found.labels) >= 0.99
    np.testing.assert_allclose(found.strength, theirs.probabilities_, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "params", "theirs"),
    [
        ("dbscan", DbscanParams(eps=13.0), cluster.DBSCAN(13.0, metric="manhattan")),
        (
            "hdbscan",
            HdbscanParams(min_cluster_size=10, cluster_selection_epsilon=14.0),
            cluster.HDBSCAN(
                min_cluster_size=10, cluster_selection_epsilon=14.0, metric="manhattan", copy=True
            ),
        ),
        ("optics", OpticsParams(min_samples=10), cluster.OPTICS(min_samples=10, metric="l1")),
        (
            "agglomerative",
            AgglomerativeParams(n_clusters=None, distance_threshold=30.0, linkage="complete"),
            cluster.AgglomerativeClustering(
                None, distance_threshold=30.0, metric="manhattan", linkage="complete"
            ),
        ),
    ],
    ids=["dbscan", "hdbscan", "optics", "agglomerative"],
)
def test_every_method_that_takes_manhattan_agrees_with_sklearn(method, params, theirs):
    vectors = points()

    found = fit(vectors, method=method, params=params, metric="manhattan", device="cpu")

    expected = theirs.fit(vectors).labels_
    assert len(np.unique(expected)) > 2
    assert adjusted_rand_score(expected, found.labels) >= 0.99


def test_manhattan_groups_differ_from_euclidean_ones():
    # One long step along an axis, or two short ones: which is farther depends on the metric.
    vectors = np.array([[0, 0], [0, 0], [3, 0], [3, 0], [-2, -2], [-2, -2]], dtype=np.float32)
    params = AgglomerativeParams(n_clusters=2, linkage="complete")

    manhattan, euclidean = (
        fit(vectors, method="agglomerative", params=params, metric=metric, device="cpu").labels
        for metric in ("manhattan", "euclidean")
    )

    assert manhattan.tolist() == [0, 0, 0, 0, 1, 1]
    assert euclidean.tolist() == [0, 0, 1, 1, 0, 0]


def test_hdbscan_by_manhattan_is_not_for_the_gpu():
    with pytest.raises(UnsupportedOnDeviceError, match="Euclidean distance only"):
        hdbscan(points(), HdbscanParams(), backend=Backend("gpu", "a test"), metric="manhattan")
