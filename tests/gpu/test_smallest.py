"""The smallest values of rows are those that sorting puts first."""

import numpy as np
import pytest

from gpu.smallest import nth_smallest, smallest


def kept_of(matrix, n_kept):
    values = np.empty((len(matrix), n_kept), dtype=np.float32)
    at = np.empty(values.shape, dtype=np.int32)
    smallest(matrix, values, at)
    return values, at


@pytest.mark.parametrize(("n_columns", "n_kept"), [(1, 1), (63, 5), (64, 64), (65, 1), (1000, 32)])
def test_they_are_those_of_a_stable_sort(n_columns, n_kept):
    # Whole numbers, so that many are equal: the first of them comes first.
    matrix = np.random.default_rng(1).integers(0, 40, (50, n_columns)).astype(np.float32)

    values, at = kept_of(matrix, n_kept)

    order = np.argsort(matrix, axis=1, kind="stable")[:, :n_kept]
    assert np.array_equal(at, order)
    assert np.array_equal(values, np.take_along_axis(matrix, order, axis=1))


def test_a_row_with_fewer_values_than_are_kept_ends_in_infinity():
    matrix = np.full((2, 100), np.inf, dtype=np.float32)
    matrix[1, 70] = -2

    values, at = kept_of(matrix, 2)

    assert values.tolist() == [[np.inf, np.inf], [-2, np.inf]]
    assert at.tolist() == [[0, 0], [70, 0]]


@pytest.mark.parametrize("nth", [1, 5, 64, 65, 300])
def test_the_nth_smallest_is_counted_from_one(nth):
    matrix = np.random.default_rng(2).normal(size=(20, 300)).astype(np.float32)

    assert np.array_equal(nth_smallest(matrix, nth), np.sort(matrix, axis=1)[:, nth - 1])


def test_rows_that_may_not_be_written_and_views_are_taken():
    matrix = np.random.default_rng(3).normal(size=(20, 300)).astype(np.float32)
    matrix.flags.writeable = False

    assert np.array_equal(nth_smallest(matrix[:, ::2], 3), np.sort(matrix[:, ::2], axis=1)[:, 2])
