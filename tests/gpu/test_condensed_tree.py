"""Selection of groups: scikit-learn's rules, and epsilon where scikit-learn itself fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.cluster._hdbscan._linkage import MST_edge_dtype, make_single_linkage
from sklearn.cluster._hdbscan._tree import tree_to_labels
from sklearn.metrics import adjusted_rand_score

from gpu.clustering import renumber_by_size
from gpu.condensed_tree import OUTLINED_CLUSTERS, condense, outline, select_groups, selected_as
from gpu.hdbscan import spanning_tree
from gpu.params import NOISE, HdbscanParams
from gpu.spanning_tree import SpanningTree


def selected(tree, params):
    return select_groups(condense(tree, params.min_cluster_size), params)


def random_tree(n_points, seed, *, n_levels):
    """Points added one by one at few different weights, so that many edges tie."""
    rng = np.random.default_rng(seed)
    points = rng.permutation(n_points)
    weight = rng.integers(n_levels + 1, size=n_points - 1) / n_levels
    return SpanningTree(points[:-1], points[1:], weight)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    n_points=st.integers(2, 120),
    seed=st.integers(0, 10**6),
    n_levels=st.sampled_from([1, 5, 1000]),
    params=st.builds(
        HdbscanParams,
        min_cluster_size=st.integers(2, 9),
        cluster_selection_method=st.sampled_from(["eom", "leaf"]),
        allow_single_cluster=st.booleans(),
        max_cluster_size=st.sampled_from([None, 10, 30]),
    ),
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # Theirs, for duplicates.
def test_labels_and_strengths_are_those_of_scikit_learn(n_points, seed, n_levels, params):
    tree = random_tree(n_points, seed, n_levels=n_levels)
    by_weight = np.argsort(tree.weight)
    edges = np.rec.fromarrays([column[by_weight] for column in tree], dtype=MST_edge_dtype)
    try:
        theirs, their_strength = tree_to_labels(
            make_single_linkage(np.asarray(edges)),
            params.min_cluster_size,
            params.cluster_selection_method,
            params.allow_single_cluster,
            0.0,
            params.max_cluster_size,
        )
    except KeyError:
        reject()  # Theirs, where one group that is not the whole is selected and allowed.

    labels, strength = selected(tree, params)

    assert adjusted_rand_score(theirs, labels) == 1
    np.testing.assert_array_equal(labels == NOISE, theirs == NOISE)
    np.testing.assert_allclose(strength, their_strength, rtol=1e-12)


def four_groups():
    """Two pairs of groups: 4 apart within a pair, 40 between the pairs."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [4, 0], [40, 0], [44, 0]])
    which = np.repeat(np.arange(4), 50)
    return (centres[which] + rng.uniform(-0.5, 0.5, (200, 2))).astype(np.float32), which


@pytest.mark.parametrize("method", ["eom", "leaf"])
@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [(1.0, [0, 1, 2, 3]), (10.0, [0, 0, 1, 1]), (100.0, [0, 0, 1, 1])],
)
def test_groups_closer_than_epsilon_are_one(method, epsilon, expected):
    vectors, which = four_groups()
    params = HdbscanParams(
        min_cluster_size=20, cluster_selection_method=method, cluster_selection_epsilon=epsilon
    )
    tree, _ = spanning_tree(vectors, params)

    labels, strength = selected(tree, params.resolved(200))

    assert adjusted_rand_score(np.array(expected)[which], labels) == 1
    assert (strength > 0).all()


@pytest.mark.parametrize("method", ["eom", "leaf"])
def test_epsilon_above_every_distance_joins_all_where_one_group_is_allowed(method):
    vectors, _ = four_groups()
    params = HdbscanParams(
        min_cluster_size=20,
        cluster_selection_method=method,
        cluster_selection_epsilon=100.0,
        allow_single_cluster=True,
    )
    tree, _ = spanning_tree(vectors, params)

    labels, _ = selected(tree, params.resolved(200))

    assert (labels == labels[0]).all()
    assert labels[0] != NOISE


def test_points_that_leave_the_only_group_beyond_epsilon_are_noise():
    vectors, _ = four_groups()
    vectors[0] = [1000, 0]
    params = HdbscanParams(
        min_cluster_size=20, cluster_selection_epsilon=100.0, allow_single_cluster=True
    )
    tree, _ = spanning_tree(vectors, params)

    labels, strength = selected(tree, params.resolved(200))

    assert np.flatnonzero(labels == NOISE).tolist() == [0]
    assert np.flatnonzero(strength == 0).tolist() == [0]


@pytest.mark.parametrize("n_points", [2, 40, 5000])
def test_an_outline_is_a_tree_of_the_largest_clusters(n_points):
    tree = random_tree(n_points, 3, n_levels=1000)
    condensed = condense(tree, 2)
    labels, _ = select_groups(condensed, HdbscanParams(min_cluster_size=2))
    groups = np.unique(labels[labels != NOISE])

    found = outline(condensed, groups)

    size, parent = np.array(found["size"]), np.array(found["parent"])
    assert size[0] == n_points
    assert len(size) == min(found["n_clusters"], OUTLINED_CLUSTERS)
    assert found["n_clusters"] == len(condensed.parent)
    assert (size[1:] <= size[parent[1:]]).all()
    assert (parent[1:] < np.arange(1, len(parent))).all()
    inside = np.bincount(parent[1:], size[1:], len(size))
    assert (inside <= size).all()
    drawn = [group for group in found["group"] if group != NOISE]
    assert len(drawn) == len(set(drawn))
    for position, group in enumerate(found["group"]):
        if group != NOISE:
            assert size[position] == condensed.size[groups[group]]


def test_an_outline_has_no_number_for_what_never_ends():
    twins = SpanningTree(np.arange(5), np.arange(1, 6), np.zeros(5))
    condensed = condense(twins, 2)

    found = outline(condensed, np.empty(0, dtype=np.int64))

    assert found["death"] == [None]


def test_groups_that_were_selected_elsewhere_are_found_in_the_tree():
    tree, params = random_tree(400, 5, n_levels=1000), HdbscanParams(min_cluster_size=5)
    condensed = condense(tree, 5)
    numbered, order = renumber_by_size(select_groups(condensed, params)[0])
    assert len(order) > 2

    assert selected_as(condensed, numbered, params).tolist() == order.tolist()
