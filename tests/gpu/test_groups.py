"""Sums and distances per group are those of a loop over the groups."""

import numpy as np
import pytest

from gpu.groups import SEGMENT_POINTS, group_sums, members_of, squared_distances
from gpu.parallel import worker_threads
from gpu.params import NOISE


@pytest.fixture(scope="module")
def each():
    with worker_threads(3) as mapped:
        yield mapped


def data(n_points, n_groups, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, n_groups, size=n_points).astype(np.int32)
    return rng.normal(size=(n_points, 5)).astype(np.float32), labels


@pytest.mark.parametrize("n_groups", [1, 7, 70_000])
def test_members_are_all_rows_of_a_group_in_order(n_groups):
    _, labels = data(2_000, n_groups)

    members = members_of(labels, n_groups)

    assert members.sizes.sum() == (labels != NOISE).sum()
    for group in np.unique(labels[labels != NOISE]):
        rows = members.rows[members.starts[group] : members.starts[group + 1]]
        assert np.array_equal(rows, np.flatnonzero(labels == group))


def test_members_among_some_rows_are_only_those():
    _, labels = data(300, 4)
    among = np.arange(0, 300, 7)

    members = members_of(labels, 4, among)

    assert sorted(members.rows) == [row for row in among if labels[row] != NOISE]


@pytest.mark.parametrize("n_points", [0, 1, 50, 3 * SEGMENT_POINTS + 1, 20_000])
def test_sums_are_those_of_each_group_and_zero_where_there_is_none(each, n_points):
    points, labels = data(n_points, 4)
    labels[labels == 2] = 3  # An empty group in the middle.

    sums = group_sums(points, members_of(labels, 6), each)

    for group in range(6):
        own = points[labels == group].astype(np.float64)
        assert sums[group] == pytest.approx(own.sum(axis=0), abs=1e-3)
    assert not sums[2].any()


def test_sums_of_a_constant_column_keep_their_digits(each):
    points = np.full((200_000, 1), 1234.567, dtype=np.float32)

    [[total]] = group_sums(points, members_of(np.zeros(200_000, np.int32), 1), each)

    assert total == pytest.approx(200_000 * float(np.float32(1234.567)), rel=1e-5)


def test_distances_are_to_the_own_centroid_and_nan_for_noise(each):
    points, labels = data(500, 3)
    centroids = np.eye(3, 5, dtype=np.float32)

    squares = squared_distances(points, centroids, labels, each)

    assert np.isnan(squares[labels == NOISE]).all()
    kept = labels != NOISE
    expected = np.square(points[kept] - centroids[labels[kept]]).sum(axis=1)
    assert squares[kept] == pytest.approx(expected, rel=1e-5)
