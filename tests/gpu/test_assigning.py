"""New points go to the nearest group when they point its way, else they are noise."""

from __future__ import annotations

import numpy as np
import pytest

from gpu.assigning import assign_similar, distances_to
from gpu.errors import InvalidVectorsError
from gpu.params import NOISE
from gpu.summary import summarize

CENTROIDS = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("threshold", "labels"),
    [
        (0.0, [0, 1, 1, 0]),
        (0.5, [0, 1, 1, NOISE]),
        (0.9, [0, 1, NOISE, NOISE]),
        (1.0, [0, 1, -1, -1]),
    ],
)
def test_similarity_decides(threshold: float, labels: list[int]) -> None:
    points = rows([2, 0, 0], [0, 7, 0], [0, 1, 1], [0.2, 0, 1])

    assert assign_similar(points, CENTROIDS, threshold, "cosine").tolist() == labels


def test_the_threshold_itself_is_enough() -> None:
    points = rows([1, 0, np.sqrt(3)])  # 60 degrees: 0.5, but for rounding.

    assert assign_similar(points, CENTROIDS, 0.4999, "cosine").tolist() == [0]
    assert assign_similar(points, CENTROIDS, 0.5001, "cosine").tolist() == [NOISE]


def test_by_euclidean_distance_the_nearest_counts_and_its_direction_decides() -> None:
    centroids = rows([10, 0], [1, 0], [0, 0])
    points = rows([9, 1], [1, 0.1], [0, 3], [0.1, 0.1], [0, 0])

    labels = assign_similar(points, centroids, 0.5, "euclidean")

    # (0, 3) is nearest to the origin, as (0.1, 0.1) and (0, 0) are: it has no direction.
    assert labels.tolist() == [0, 1, NOISE, NOISE, NOISE]


def test_random_rows_agree_with_a_plain_computation() -> None:
    rng = np.random.default_rng(5)
    points = rng.normal(size=(500, 12)).astype(np.float32)
    centroids = rng.normal(size=(7, 12)).astype(np.float32)

    cosines = (points / np.linalg.norm(points, axis=1)[:, None]) @ (
        centroids / np.linalg.norm(centroids, axis=1)[:, None]
    ).T
    expected = np.where(cosines.max(axis=1) >= 0.3, cosines.argmax(axis=1), NOISE)

    assert np.array_equal(assign_similar(points, centroids, 0.3, "cosine"), expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_are_those_of_a_summary(metric: str) -> None:
    rng = np.random.default_rng(6)
    points = rng.normal(size=(200, 5)).astype(np.float32)
    labels = rng.integers(-1, 4, 200).astype(np.int32)
    described = summarize(points, labels, metric=metric)

    found = distances_to(points, described.centroids, labels, metric)

    np.testing.assert_allclose(found, described.distances, atol=1e-6)
    assert np.isnan(found[labels == NOISE]).all()


def test_nothing_to_assign_and_nowhere_to_go() -> None:
    assert assign_similar(CENTROIDS[:0], CENTROIDS, 0.5, "cosine").tolist() == []
    assert assign_similar(CENTROIDS, CENTROIDS[:0], 0.5, "cosine").tolist() == [NOISE, NOISE]
    assert distances_to(CENTROIDS[:0], CENTROIDS, np.empty(0, np.int32), "cosine").tolist() == []


def test_centroids_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidVectorsError, match="do not fit"):
        assign_similar(rows([1, 0]), CENTROIDS, 0.5, "cosine")
