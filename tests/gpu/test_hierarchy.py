"""Groups inside groups: nothing is lost, sizes add up, and splitting stops where it should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.backend import Backend
from gpu.errors import TooFewPointsError
from gpu.hierarchy import NO_PARENT, subdivide
from gpu.kmeans import kmeans
from gpu.params import KMeansParams


def halves(vectors):
    """Split at the middle of the value range; equal values stay together."""
    values = vectors[:, 0]
    return (values > (values.min() + values.max()) / 2).astype(np.int32)


def column(values):
    return np.array(values, dtype=np.float32)[:, None]


def test_groups_are_split_level_by_level():
    points = column([0, 1, 2, 3, 4, 5, 6, 7])

    tree = subdivide(points, np.zeros(8, int), fit=halves, max_depth=3, min_size=2)

    assert tree.ids == [
        "cl_0",
        "cl_0_sub_0",
        "cl_0_sub_1",
        "cl_0_sub_0_sub_0",
        "cl_0_sub_0_sub_1",
        "cl_0_sub_1_sub_0",
        "cl_0_sub_1_sub_1",
    ]
    assert tree.parents.tolist() == [NO_PARENT, 0, 0, 1, 1, 2, 2]
    assert tree.sizes.tolist() == [8, 4, 4, 2, 2, 2, 2]
    assert [tree.ids[group] for group in tree.labels[[0, 7]]] == [
        "cl_0_sub_0_sub_0",
        "cl_0_sub_1_sub_1",
    ]
    assert tree.leaves.tolist() == [3, 4, 5, 6]
    assert tree.children(2).tolist() == [5, 6]
    assert tree.paths()[4].tolist() == [0, 2, 5]
    assert tree.labels_at(2).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_noise_of_a_split_stays_directly_in_the_group():
    points = column(range(10))

    def outer_rows(vectors):
        labels = halves(vectors)
        labels[4:6] = -1
        return labels

    tree = subdivide(points, np.zeros(10, int), fit=outer_rows, max_depth=2, min_size=2)

    assert tree.ids == ["cl_0", "cl_0_sub_0", "cl_0_sub_1"]
    assert tree.sizes.tolist() == [10, 4, 4]
    assert tree.direct_sizes.tolist() == [2, 4, 4]
    assert tree.labels[[4, 5]].tolist() == [0, 0]
    assert tree.paths()[4].tolist() == [0, -1]
    assert tree.leaves.tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 3), max_size=60),
    seed=st.integers(0, 99),
    max_depth=st.integers(1, 4),
    min_size=st.integers(2, 10),
)
def test_sizes_add_up_and_parents_hold_their_children(labels, seed, max_depth, min_size):
    labels = np.array(labels, dtype=np.int32)
    points = np.random.default_rng(seed).normal(size=(len(labels), 1)).astype(np.float32)

    def some(vectors):
        # Any function of the rows will do: noise, one group, several, gaps in the numbers.
        return (np.floor(np.abs(vectors[:, 0]) * 5).astype(np.int32) * 3) % 5 - 1

    shares = []
    tree = subdivide(
        points, labels, fit=some, max_depth=max_depth, min_size=min_size, progress=shares.append
    )

    assert np.array_equal(tree.labels == -1, labels == -1)
    assert tree.direct_sizes.sum() == (labels != -1).sum()
    paths = tree.paths()
    for group in range(len(tree.ids)):
        below = tree.children(group)
        assert tree.sizes[group] == tree.direct_sizes[group] + tree.sizes[below].sum()
        assert len(below) != 1
        inside = (paths == group).any(axis=1)
        assert inside.sum() == tree.sizes[group]
        for child in below:
            assert inside[(paths == child).any(axis=1)].all()
            assert tree.ids[child].startswith(tree.ids[group] + "_sub_")
        assert list(tree.sizes[below]) == sorted(tree.sizes[below], reverse=True)
        if len(below):
            assert tree.sizes[group] >= min_size
    assert len(set(tree.ids)) == len(tree.ids)
    assert tree.depths.max(initial=0) <= max_depth
    assert len(tree.relations()) == (tree.parents != NO_PARENT).sum()
    assert np.array_equal(tree.labels_at(max_depth), tree.labels)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_group_that_does_not_split_stays_whole_and_that_is_told():
    tree = subdivide(column([1] * 30), np.zeros(30, int), fit=halves, min_size=2)

    assert tree.ids == ["cl_0"]
    assert not tree.is_nested
    assert any("1 groups did not fall" in note for note in tree.notes)


def test_a_method_that_needs_more_points_ends_the_splitting():
    def demanding(vectors):
        raise TooFewPointsError(n_points=len(vectors), needed=1_000)

    assert subdivide(column(range(30)), np.zeros(30, int), fit=demanding).ids == ["cl_0"]


def test_small_groups_are_not_split():
    tree = subdivide(column(range(19)), np.zeros(19, int), fit=halves, min_size=20)

    assert tree.ids == ["cl_0"]
    assert any("fewer than 20" in note for note in tree.notes)


def test_depth_one_keeps_the_first_level():
    labels = np.array([5, 5, 5, -1, 2, 2])

    tree = subdivide(column(range(6)), labels, fit=halves, max_depth=1, min_size=2)

    assert tree.ids == ["cl_0", "cl_1"]
    assert tree.labels.tolist() == [0, 0, 0, -1, 1, 1]


@pytest.mark.parametrize("labels", [[], [-1, -1, -1]])
def test_without_groups_there_is_no_tree(labels):
    shares = []
    tree = subdivide(
        column(range(len(labels))), np.array(labels, int), fit=halves, progress=shares.append
    )

    assert tree.ids == []
    assert tree.labels.tolist() == labels
    assert tree.paths().shape == (len(labels), 0)
    assert len(tree.leaves) == 0
    assert shares == [1]


def test_labels_for_other_rows_are_refused():
    with pytest.raises(ValueError, match="30 rows"):
        subdivide(column(range(30)), np.zeros(30, int), fit=lambda rows: np.zeros(3, int))


def test_nested_mixtures_are_found_again():
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    outer, inner = np.repeat([0, 1, 2], 120), np.tile(np.repeat([0, 1, 2], 40), 3)
    centres = 20 * rng.normal(size=(3, 5)), 4 * rng.normal(size=(9, 5))
    points = centres[0][outer] + centres[1][3 * outer + inner] + 0.3 * rng.normal(size=(360, 5))
    points = points.astype(np.float32)

    def three(vectors):
        params = KMeansParams(n_clusters=3, n_init=4)
        return kmeans(vectors, params, backend=Backend("cpu", "a test")).labels

    tree = subdivide(points, three(points), fit=three, max_depth=2, min_size=50)

    assert adjusted_rand_score(outer, tree.labels_at(1)) == 1
    assert adjusted_rand_score(3 * outer + inner, tree.labels) == 1
    assert len(tree.leaves) == 9
