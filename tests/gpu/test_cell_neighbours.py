"""Neighbours by cells are nearly the nearest, at true distances; so is the tree made of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import gpu.hdbscan
from gpu.approximate_neighbours import approximate_neighbours
from gpu.backend import Backend
from gpu.boruvka import approximate_tree, boruvka_tree
from gpu.hdbscan import hdbscan, spanning_tree
from gpu.parallel import worker_threads
from gpu.params import NOISE, HdbscanParams
from gpu.squared_distances import SquaredDistances

CPU = Backend("cpu", "asked for by the test")
DATA = Path(os.environ.get("SHOAL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
APPROXIMATE = HdbscanParams(min_cluster_size=20, min_samples=5, approx_min_span_tree=True)
EXACT = HdbscanParams(min_cluster_size=20, min_samples=5)


@pytest.fixture(scope="module")
def each():
    with worker_threads(2) as mapped:
        yield mapped


def apart(n_points=4000, n_dims=16, n_groups=9, seed=0):
    """Groups of unequal size, so far apart that no near neighbour leads from one to another."""
    rng = np.random.default_rng(seed)
    which = np.sort(rng.choice(n_groups, n_points, p=rng.dirichlet(np.full(n_groups, 3.0))))
    points = 50 * rng.normal(size=(n_groups, n_dims))[which] + rng.normal(size=(n_points, n_dims))
    return points.astype(np.float32), which


def no_progress(_share):
    """Take no notice."""


def neighbours(points, each, n_kept=10):
    distances = SquaredDistances(points, keeps_centred=False)
    near, values, search = approximate_neighbours(points, distances, n_kept, each, no_progress)
    return near, distances.lengths(values), search


def lengths_between(points):
    return np.linalg.norm(points[:, None].astype(np.float64) - points, axis=2)


def test_most_neighbours_are_found_and_their_distances_are_true(each):
    points = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)

    near, lengths, _ = neighbours(points, each)

    full = lengths_between(points)
    exact = np.argsort(full, axis=1, kind="stable")[:, :10]
    recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, exact, strict=True)]) / 10
    assert recall > 0.95
    assert (near[:, 0] == np.arange(3000)).all()
    np.testing.assert_allclose(lengths, np.take_along_axis(full, near, axis=1), atol=1e-4)
    assert all(len(set(row)) == 10 for row in near.tolist())


def test_a_crowd_of_duplicates_beside_few_others_leaves_no_one_without_neighbours(each):
    points = np.ones((6000, 6), dtype=np.float32)
    points[:40] = np.random.default_rng(1).normal(size=(40, 6)) + 9

    _, lengths, _ = neighbours(points, each, n_kept=30)

    assert np.isfinite(lengths).all()
    assert (lengths[(points == 1).all(axis=1)] == 0).all()


def test_the_way_out_of_a_component_is_a_near_one_and_its_weight_is_true(each):
    rng = np.random.default_rng(5)
    points = (rng.normal(size=(2000, 8)) + 30).astype(np.float32)
    which = rng.integers(3, size=2000)
    core = rng.uniform(0, 2, 2000).astype(np.float32)
    asking = np.arange(0, 2000, 7)

    _, _, search = neighbours(points, each)
    found, weight = search.nearest_outside(asking, which, core, np.float32(4))

    scale = SquaredDistances(points).scale
    full = np.maximum((lengths_between(points) / scale) ** 2 / 4, np.maximum(core[:, None], core))
    assert (which[found] != which[asking]).all()
    np.testing.assert_allclose(weight, full[asking, found], rtol=1e-4)
    full[which[:, None] == which] = np.inf
    least = full[asking].min(axis=1)
    assert np.mean(weight <= 1.0001 * least) > 0.8
    assert (weight >= 0.9999 * least).all()


def test_who_meets_no_other_component_is_given_itself(each):
    points, _ = apart(700)

    _, _, search = neighbours(points, each)
    found, weight = search.nearest_outside(
        np.array([3, 600]), np.zeros(700, dtype=np.int64), np.ones(700, np.float32), np.float32(1)
    )

    assert found.tolist() == [3, 600]
    assert weight.tolist() == [1, 1]


def test_dense_clumps_hang_together_by_the_edges_of_the_exact_tree(each):
    """All the neighbours that a point of a clump keeps are in the clump."""
    rng = np.random.default_rng(4)
    clumps = np.repeat(rng.normal(size=(40, 12)), 80, axis=0)
    points = (clumps + 0.02 * rng.normal(size=clumps.shape)).astype(np.float32)
    asked = {"min_samples": 5, "alpha": 1.0, "each": each, "progress": no_progress}

    exact = boruvka_tree(SquaredDistances(points), **asked)
    found = approximate_tree(points, **asked)

    heaviest = slice(-39, None)  # The edges between clumps.
    np.testing.assert_allclose(
        np.sort(found.weight)[heaviest], np.sort(exact.weight)[heaviest], rtol=0.02
    )


@pytest.mark.parametrize("n_points", [40, 700, 4000])
def test_groups_far_apart_are_joined_by_true_distances(each, n_points):
    points, _ = apart(n_points)
    asked = {"min_samples": 5, "alpha": 1.0, "each": each, "progress": no_progress}

    exact = boruvka_tree(SquaredDistances(points), **asked)
    found = approximate_tree(points, **asked)

    assert len(found.weight) == n_points - 1
    assert np.isfinite(found.weight).all()
    assert set(found.left) | set(found.right) == set(range(n_points))
    assert exact.weight.sum() * (1 - 1e-6) <= found.weight.sum() <= 1.02 * exact.weight.sum()


def test_groups_are_those_of_the_exact_tree():
    points, which = apart()

    found = hdbscan(points, APPROXIMATE, backend=CPU)

    exact = hdbscan(points, EXACT, backend=CPU)
    assert adjusted_rand_score(exact.labels, found.labels) > 0.99
    assert (
        adjusted_rand_score(which[found.labels != NOISE], found.labels[found.labels != NOISE])
        > 0.99
    )
    assert found.details["spanning_tree"] == "approximate"


def test_groups_of_real_embeddings_are_nearly_those_of_the_exact_tree():
    path = DATA / "debian_packages.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["text_embedding"])["text_embedding"].combine_chunks()
    halves = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    points = halves[:5000].astype(np.float32)

    found = hdbscan(points, HdbscanParams(approx_min_span_tree=True), backend=CPU)

    exact = hdbscan(points, HdbscanParams(), backend=CPU)
    weights = [
        spanning_tree(points, HdbscanParams(approx_min_span_tree=approximate))[0].weight.sum()
        for approximate in (False, True)
    ]
    assert weights[0] * (1 - 1e-6) <= weights[1] <= 1.001 * weights[0]
    assert adjusted_rand_score(exact.labels, found.labels) > 0.9


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_result_does_not_depend_on_the_number_of_threads(n_threads):
    points, _ = apart(3000, seed=3)

    found = hdbscan(points, APPROXIMATE, backend=CPU, n_threads=n_threads)

    again = hdbscan(points, APPROXIMATE, backend=CPU, n_threads=3)
    assert np.array_equal(found.labels, again.labels)
    assert np.array_equal(found.strength, again.strength)


@pytest.mark.parametrize(
    ("points", "n_groups"),
    [
        (np.ones((30, 3)), 1),
        (np.zeros((5000, 2)), 1),
        (np.repeat(np.eye(3), 400, axis=0), 3),
        (np.array([[0.0], [1.0], [5.0]]), 0),
        (np.linspace(0, 1, 100_000)[None].repeat(2, axis=0), 0),
    ],
    ids=["alike", "all zeros", "three places", "three points", "very wide"],
)
def test_odd_input_is_clustered_as_the_exact_tree_does(points, n_groups):
    points = points.astype(np.float32)
    params = {"min_cluster_size": 2, "min_samples": 2, "allow_single_cluster": n_groups == 1}

    found = hdbscan(points, HdbscanParams(**params, approx_min_span_tree=True), backend=CPU)

    exact = hdbscan(points, HdbscanParams(**params, approx_min_span_tree=False), backend=CPU)
    assert np.array_equal(found.labels, exact.labels)
    np.testing.assert_allclose(found.strength, exact.strength, atol=1e-5)


def test_many_points_are_clustered_approximately_unless_that_is_refused(monkeypatch):
    monkeypatch.setitem(gpu.hdbscan.APPROXIMATE_FROM, "cpu", 1000)
    points, _ = apart(1001)

    by_itself = hdbscan(points, EXACT, backend=CPU)
    few = hdbscan(points[:1000], EXACT, backend=CPU)
    refused = hdbscan(
        points, HdbscanParams(min_cluster_size=20, approx_min_span_tree=False), backend=CPU
    )

    assert by_itself.effective_params["approx_min_span_tree"] is True
    assert any(note.startswith("approximate: 1,001 points") for note in by_itself.notes)
    for exact in (few, refused):
        assert exact.effective_params["approx_min_span_tree"] is False
        assert not any("approximate" in note for note in exact.notes)


def test_manhattan_distances_are_searched_exactly_and_it_is_said():
    points, _ = apart(300)

    found = hdbscan(points, APPROXIMATE, backend=CPU, metric="manhattan")

    assert found.details["spanning_tree"] == "dense"
    assert found.notes == ["Manhattan distances are always searched exactly"]
