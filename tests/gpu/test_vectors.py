"""Which rows are usable, and what scaling them to length 1 means."""

import numpy as np
import pytest

from gpu.errors import InvalidParametersError, InvalidVectorsError
from gpu.params import METRICS
from gpu.vectors import is_angular, require_matrix, row_blocks, unit_rows, usable_rows


def matrix(*rows):
    return np.array(rows, dtype=np.float32)


def test_half_the_squared_distance_of_unit_rows_is_the_cosine_distance():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 9)).astype(np.float32) * rng.uniform(0.01, 100, size=(40, 1))
    points = points.astype(np.float32)

    unit = unit_rows(points)

    a, b = points[:20].astype(np.float64), points[20:].astype(np.float64)
    cosine = 1 - (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.square(unit[:20] - unit[20:]).sum(axis=1) / 2 == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 1e38])
def test_any_finite_length_becomes_one(scale):
    points = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32) * np.float32(scale)
    points = np.clip(points, -3e38, 3e38)

    assert np.linalg.norm(unit_rows(points), axis=1) == pytest.approx(1, abs=1e-5)


def test_unit_rows_are_given_back_without_a_copy_and_others_are_not_changed():
    points = matrix([3, 4], [0, 2])
    unit = unit_rows(points)

    assert np.array_equal(points, matrix([3, 4], [0, 2]))
    assert unit_rows(unit) is unit


def test_rows_scaled_in_place_are_the_same_to_the_bit():
    points = np.random.default_rng(42).normal(size=(50_000, 24)).astype(np.float32)
    copied = unit_rows(points)

    scaled = unit_rows(points, in_place=True)

    assert scaled is points
    assert np.array_equal(scaled, copied)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_named(bad):
    with pytest.raises(InvalidVectorsError, match=r"1 of 3 rows .* first: row 2"):
        unit_rows(matrix([1, 0], [0, 1], [bad, bad]))


def test_usable_rows_are_finite_and_have_a_direction_where_one_is_needed():
    points = matrix([1, 2], [0, 0], [np.nan, 1], [1, np.inf], [0, -1e-40])

    assert usable_rows(points, "euclidean").tolist() == [True, True, False, False, True]
    assert usable_rows(points, "cosine").tolist() == [True, False, False, False, True]
    assert usable_rows(points, "dot").tolist() == [True, False, False, False, True]


def test_what_is_usable_can_be_scaled():
    points = matrix([1e-44, 0], [3e38, 3e38])

    assert usable_rows(points, "cosine").all()
    assert np.linalg.norm(unit_rows(points), axis=1) == pytest.approx(1, abs=1e-5)


def test_float64_is_refused():
    with pytest.raises(InvalidVectorsError, match="float64"):
        require_matrix(np.zeros((2, 2)))


def test_a_metric_no_method_has_is_refused():
    with pytest.raises(InvalidParametersError, match="cosine, euclidean, dot, manhattan"):
        is_angular("hamming")


def test_only_cosine_and_dot_look_at_directions():
    assert [is_angular(metric) for metric in METRICS] == [True, False, True, False]


@pytest.mark.parametrize(("n_points", "row_bytes"), [(0, 8), (1, 8), (10, 2**30), (5_000, 4_096)])
def test_blocks_cover_all_rows_once(n_points, row_bytes):
    rows = [row for block in row_blocks(n_points, row_bytes) for row in range(n_points)[block]]

    assert rows == list(range(n_points))
