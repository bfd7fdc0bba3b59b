"""The elbow: inertia for a ladder of numbers of groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpu.elbow import SAMPLE_POINTS, elbow


def mixture(n_groups: int, n_points: int, n_dims: int = 12) -> np.ndarray:
    rng = np.random.default_rng(4)
    centers = 8 * np.eye(n_groups, n_dims)
    return (np.repeat(centers, n_points // n_groups, axis=0) + rng.normal(
        size=(n_points, n_dims)
    )).astype(np.float32)  # fmt: skip


def test_the_curve_falls_and_bends_at_the_number_of_groups_there_is():
    found = elbow(mixture(6, 1200), 6, metric="euclidean")

    ladder, inertia = found["n_clusters"], found["inertia"]
    assert ladder == sorted(set(ladder))
    assert (ladder[0], ladder[-1]) == (1, 12)
    assert 6 in ladder
    assert all(a > b for a, b in itertools.pairwise(inertia))
    at = ladder.index(6)
    assert inertia[at - 1] - inertia[at] > 10 * (inertia[at] - inertia[at + 1])
    assert inertia[at] == pytest.approx(12, rel=0.1)  # Twelve dimensions of variance 1.


def test_large_data_are_sampled_and_the_curve_repeats():
    points = mixture(4, 8000)

    found = elbow(points, 50, metric="cosine")

    assert found["n_points"] == SAMPLE_POINTS
    assert found == elbow(points, 50, metric="cosine")
    assert found["n_clusters"][-1] == 100


@pytest.mark.parametrize("n_points", [1, 2, 5])
def test_too_few_points_have_no_curve(n_points: int):
    found = elbow(np.eye(n_points, 3, dtype=np.float32) + 1, 2, metric="euclidean")

    assert (found["n_clusters"], found["inertia"]) == ([], [])


def test_more_groups_than_the_sample_can_hold_are_left_out():
    found = elbow(mixture(2, 30), 25, metric="euclidean")

    assert max(found["n_clusters"]) == 10
