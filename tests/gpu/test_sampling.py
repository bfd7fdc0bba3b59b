"""A sample is drawn once for a seed; the rest goes to the nearest centre within its reach."""

import numpy as np
import pytest

from gpu.errors import InvalidParametersError, InvalidVectorsError
from gpu.params import NOISE
from gpu.sampling import assign_rest, sample_rows


def test_a_sample_is_distinct_sorted_and_repeatable():
    rows = sample_rows(1_000, 100, seed=3)

    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < 1_000
    assert np.array_equal(rows, sample_rows(1_000, 100, seed=3))
    assert not np.array_equal(rows, sample_rows(1_000, 100, seed=4))


def test_a_sample_is_uniform():
    drawn = np.concatenate([sample_rows(20, 5, seed=seed) for seed in range(2_000)])

    assert np.bincount(drawn, minlength=20) == pytest.approx(500, abs=100)


@pytest.mark.parametrize("size", [5, 6, 10**9])
def test_a_sample_of_all_is_all(size):
    assert sample_rows(5, size, seed=0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, -4])
def test_an_empty_sample_is_refused(size):
    with pytest.raises(InvalidParametersError, match="at least 1"):
        sample_rows(5, size, seed=0)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_every_row_goes_to_its_nearest_centre(offset):
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(500, 6)) + offset).astype(np.float32)
    centres = (rng.normal(size=(9, 6)) + offset).astype(np.float32)

    labels = assign_rest(points, centres, None, "euclidean")

    squares = np.square(points[:, None].astype(np.float64) - centres).sum(axis=2)
    assert (labels == squares.argmin(axis=1)).mean() > 0.995


def test_the_nearest_by_manhattan_distance_is_another_than_by_euclidean():
    centres = np.array([[3, 0], [2, 2]], dtype=np.float32)
    points = np.zeros((1, 2), dtype=np.float32)

    assert assign_rest(points, centres, None, "manhattan").tolist() == [0]
    assert assign_rest(points, centres, None, "euclidean").tolist() == [1]


def test_cosine_looks_at_directions():
    centres = np.array([[1, 0], [0, 1]], dtype=np.float32)
    points = np.array([[100, 1], [0.001, 0.5]], dtype=np.float32)

    assert assign_rest(points, centres, None, "cosine").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("metric", "radii"),
    [("euclidean", [0.5, 2.0]), ("cosine", [0.005, 0.9]), ("manhattan", [0.5, 1.6])],
)
def test_rows_beyond_the_radius_of_their_nearest_group_stay_noise(metric, radii):
    centres = np.array([[10, 0], [0, 10]], dtype=np.float32)
    points = np.array([[10, 0.4], [10, 1.5], [1.5, 10]], dtype=np.float32)

    labels = assign_rest(points, centres, np.array(radii, dtype=np.float32), metric)

    assert labels.tolist() == [0, NOISE, 1]


def test_without_groups_all_is_noise():
    points = np.ones((3, 2), dtype=np.float32)

    assert assign_rest(points, np.empty((0, 2), np.float32), None, "cosine").tolist() == [-1] * 3


def test_centres_of_another_length_are_refused():
    with pytest.raises(InvalidVectorsError, match=r"\(3, 2\).*\(1, 4\)"):
        assign_rest(np.ones((3, 2), np.float32), np.ones((1, 4), np.float32), None, "euclidean")
