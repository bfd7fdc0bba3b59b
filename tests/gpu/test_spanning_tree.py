"""Both ways to the spanning tree against float64 arithmetic and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from sklearn.cluster import HDBSCAN
from sklearn.cluster._hdbscan._linkage import mst_from_mutual_reachability

from gpu.boruvka import boruvka_tree
from gpu.manhattan_distances import ManhattanDistances
from gpu.parallel import worker_threads
from gpu.spanning_tree import dense_tree
from gpu.squared_distances import SquaredDistances

BUILDERS = pytest.mark.parametrize("build", [dense_tree, boruvka_tree])


def built(build, vectors, *, min_samples=5, alpha=1.0, **more):
    with worker_threads(2) as each:
        return build(
            SquaredDistances(vectors) if isinstance(vectors, np.ndarray) else vectors,
            min_samples=min_samples,
            alpha=alpha,
            each=each,
            progress=lambda share: None,
            **more,
        )


def exact_weights(vectors, *, min_samples=5, alpha=1.0, distances=None):
    """Sorted weights of the tree, everything in float64 and from differences."""
    if distances is None:
        distances = cdist(vectors.astype(np.float64), vectors.astype(np.float64))
    core = np.sort(distances, axis=1)[:, min_samples - 1]
    reachability = np.maximum(distances / alpha, np.maximum.outer(core, core))
    return np.sort(mst_from_mutual_reachability(reachability)["distance"])


def clusters(n_points=700, n_dims=24, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(12, n_dims))
    return centres[rng.integers(12, size=n_points)] + rng.normal(size=(n_points, n_dims))


def chain(n_points=500):
    """Points on a line whose gaps grow: components stay long and thin."""
    return np.cumsum(np.linspace(1, 2, n_points))[:, None] * np.array([[1.0, 0.5, 0.0]])


def nested(n_points=640):
    """Pairs of pairs of pairs: each round of joining finds equally many components to join."""
    levels = int(np.log2(n_points // 5))
    bits = (np.arange(2**levels)[:, None] >> np.arange(levels)) & 1
    corners = bits * 3.0 ** np.arange(levels)
    jitter = 0.05 * np.random.default_rng(0).normal(size=(5 * len(corners), levels))
    return np.repeat(corners, 5, axis=0) + jitter


def with_duplicates(gap):
    rng = np.random.default_rng(4)
    points = clusters(300)
    again = rng.integers(300, size=300)
    return np.concatenate([points, points[again] + gap * rng.normal(size=(300, 24))])


CASES = {
    "clusters": clusters(),
    "offset": clusters() + 500,
    "huge": clusters() * 1e20,
    "chain": chain(),
    "nested": nested(),
    "duplicates": with_duplicates(0.0),
    "near duplicates": with_duplicates(1e-4),
    "uniform": np.random.default_rng(5).uniform(size=(400, 2)),
    "grid": np.stack(np.meshgrid(*[np.arange(20.0)] * 2), axis=-1).reshape(-1, 2),
}


@BUILDERS
@pytest.mark.parametrize("min_samples", [1, 5, 45])
@pytest.mark.parametrize("points", CASES.values(), ids=CASES.keys())
def test_sorted_weights_are_exact(points, min_samples, build):
    vectors = points.astype(np.float32)
    expected = exact_weights(vectors, min_samples=min_samples)

    tree = built(build, vectors, min_samples=min_samples)

    np.testing.assert_allclose(
        np.sort(tree.weight), expected, rtol=1e-5, atol=1e-7 * np.abs(points).max()
    )


@BUILDERS
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_alpha_divides_distances_but_not_core_distances(alpha, build):
    vectors = clusters().astype(np.float32)
    theirs = HDBSCAN(alpha=alpha, copy=True).fit(vectors)._single_linkage_tree_["value"]

    tree = built(build, vectors, alpha=alpha)

    np.testing.assert_allclose(np.sort(tree.weight), exact_weights(vectors, alpha=alpha), rtol=1e-5)
    np.testing.assert_allclose(np.sort(tree.weight), np.sort(theirs), rtol=1e-5)


@BUILDERS
@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("case", ["clusters", "offset", "huge", "duplicates", "grid"])
def test_manhattan_weights_are_those_of_sklearn(case, alpha, build):
    vectors = CASES[case].astype(np.float32)
    theirs = HDBSCAN(metric="manhattan", alpha=alpha, copy=True).fit(vectors)
    distances = cdist(vectors, vectors, "cityblock")

    tree = built(build, ManhattanDistances(vectors), alpha=alpha)

    np.testing.assert_allclose(
        np.sort(tree.weight), np.sort(theirs._single_linkage_tree_["value"]), rtol=1e-5
    )
    expected = exact_weights(vectors, alpha=alpha, distances=distances)
    np.testing.assert_allclose(np.sort(tree.weight), expected, rtol=1e-6)


@BUILDERS
def test_every_edge_adds_one_new_point(build):
    vectors = with_duplicates(0.0).astype(np.float32)

    tree = built(build, vectors)

    assert sorted([int(tree.left[0]), *tree.right.tolist()]) == list(range(len(vectors)))
    np.testing.assert_array_equal(tree.left[1:], tree.right[:-1])


@BUILDERS
def test_two_points(build):
    vectors = np.array([[0, 0], [3, 4]], dtype=np.float32)

    tree = built(build, vectors, min_samples=1)

    assert [tree.left.tolist(), tree.right.tolist(), tree.weight.tolist()] == [[0], [1], [5.0]]


def test_blocks_of_one_row_give_the_same_tree():
    vectors = clusters(200).astype(np.float32)

    small = built(boruvka_tree, vectors, block_bytes=1)
    large = built(boruvka_tree, vectors)

    np.testing.assert_array_equal(small.right, large.right)
    np.testing.assert_allclose(small.weight, large.weight, rtol=1e-5)


def test_ties_are_walked_in_the_same_order_by_both():
    vectors = clusters(900, n_dims=48, seed=9).astype(np.float32)

    dense = built(dense_tree, vectors)
    blocks = built(boruvka_tree, vectors)

    assert (dense.right == blocks.right).mean() > 0.99


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    vectors=arrays(
        np.float32,
        st.tuples(st.integers(5, 60), st.integers(1, 5)),
        elements=st.one_of(
            st.integers(-3, 3).map(float),
            st.floats(-100, 100, width=32, allow_subnormal=False),
        ),
    ),
    min_samples=st.integers(1, 5),
)
def test_both_trees_weigh_what_scikit_learn_says(vectors, min_samples):
    theirs = HDBSCAN(min_samples=min_samples, min_cluster_size=2, copy=True).fit(vectors)
    expected = np.sort(theirs._single_linkage_tree_["value"])

    for build in (dense_tree, boruvka_tree):
        tree = built(build, vectors, min_samples=min_samples)
        tolerance = 1e-6 * max(1.0, float(np.abs(vectors).max()))
        np.testing.assert_allclose(np.sort(tree.weight), expected, rtol=1e-5, atol=tolerance)
