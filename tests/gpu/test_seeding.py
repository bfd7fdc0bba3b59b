"""Seeds are distinct points, spread out, the same for a seed of the generator."""

import numpy as np
import pytest

from gpu.parallel import worker_threads
from gpu.seeding import (
    ROUNDS,
    SAMPLE_POINTS,
    SKETCH_DIMS,
    distinct_rows,
    plus_plus,
    seeding_rows,
)


@pytest.fixture(scope="module")
def each():
    with worker_threads(2) as mapped:
        yield mapped


def test_distinct_rows_are_the_first_of_each():
    rows = np.array([[1, 2], [3, 4], [1, 2], [0.0, 1], [-0.0, 1], [2, 1]], dtype=np.float32)

    assert distinct_rows(rows).tolist() == [0, 1, 3, 5]


def test_rows_that_differ_in_the_last_bit_are_distinct():
    rows = np.ones((2, 300), dtype=np.float32)
    rows[1, 123] = np.nextafter(np.float32(1), np.float32(2))

    assert len(distinct_rows(rows)) == 2


@pytest.mark.parametrize("n_centroids", [1, 2, 40, ROUNDS + 50])
def test_seeds_are_distinct_rows(each, n_centroids):
    points = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)

    rows = plus_plus(points, n_centroids, np.random.default_rng(1), each)

    assert len(set(rows.tolist())) == n_centroids
    assert set(rows.tolist()) <= set(range(700))
    assert np.array_equal(rows, plus_plus(points, n_centroids, np.random.default_rng(1), each))


def test_far_groups_get_a_seed_each(each):
    which = np.arange(600) % 6
    points = (100 * np.eye(6)[which]).astype(np.float32)
    points += np.random.default_rng(2).normal(size=points.shape).astype(np.float32)

    for seed in range(10):
        rows = plus_plus(points, 6, np.random.default_rng(seed), each)
        assert set(which[rows]) == set(range(6))


def test_as_many_seeds_as_nearly_equal_points_are_found(each):
    points = np.ones((30, 2), dtype=np.float32)
    points[:, 0] += np.arange(30, dtype=np.float32) * np.float32(2e-7)  # Squares vanish.

    rows = plus_plus(points, 30, np.random.default_rng(0), each)

    assert sorted(rows) == list(range(30))


def test_a_sample_is_drawn_from_many_points_and_all_of_few_are_taken():
    rng = np.random.default_rng(0)
    many = rng.normal(size=(3 * SAMPLE_POINTS, 2)).astype(np.float32)

    sampled, n_distinct = seeding_rows(many, 5, rng)
    few, _ = seeding_rows(many[:100], 5, rng)

    assert len(sampled) == n_distinct == SAMPLE_POINTS
    assert few.tolist() == list(range(100))


def test_a_sample_without_enough_distinct_rows_is_replaced_by_all_distinct_ones():
    points = np.zeros((5 * SAMPLE_POINTS, 2), dtype=np.float32)
    points[[10, 20_000]] = [[1, 0], [0, 1]]

    rows, n_distinct = seeding_rows(points, 3, np.random.default_rng(0))

    assert rows.tolist() == [0, 10, 20_000]
    assert n_distinct == 3


def test_a_sketch_leads_to_seeds_as_good_as_the_whole_space(each, monkeypatch):
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(40, 2 * SKETCH_DIMS)).astype(np.float32)
    points = np.repeat(centres, 25, axis=0)
    points += 0.5 * rng.normal(size=points.shape).astype(np.float32)

    def potential():
        """Sum of squared distances to the nearest seed, over several seeds of the generator."""
        total = 0.0
        for seed in range(5):
            seeds = points[plus_plus(points, 40, np.random.default_rng(seed), each)]
            squares = np.square(points[:, None].astype(np.float64) - seeds).sum(axis=2)
            total += squares.min(axis=1).sum()
        return total

    sketched = potential()
    monkeypatch.setattr("gpu.seeding.SKETCH_DIMS", points.shape[1])

    assert sketched < 1.05 * potential()
