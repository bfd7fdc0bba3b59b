from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.labeling.representatives import MAX_CANDIDATES, Rows, choose, members_by_distance


def representatives(labels: Any, distances: Any, n_groups: int, **options: Any) -> list[Rows]:
    return choose(members_by_distance(labels, distances, n_groups), **options)


def test_nearest_first_ties_by_row_nan_last_noise_left_out() -> None:
    labels = np.array([0, 1, 0, -1, 0, 1, 0])
    distances = np.array([0.5, 0.1, 0.2, 0.0, 0.2, 0.0, np.nan], dtype=np.float32)

    chosen = representatives(labels, distances, 3, per_group=3)

    assert [rows.tolist() for rows in chosen] == [[2, 4, 0], [5, 1], []]
    assert all(rows.dtype == np.int64 for rows in chosen)
    assert representatives(labels, distances, 1, per_group=9)[0].tolist() == [2, 4, 0, 6]


def test_representative_covers_what_nearest_misses() -> None:
    # One big lump near the centroid, two small ones away from it.
    generator = np.random.default_rng(0)
    lumps = [(0.0, 80), (10.0, 15), (-10.0, 15)]
    vectors = np.concatenate([generator.normal((x, 0.0), 0.1, (n, 2)) for x, n in lumps]).astype(
        np.float32
    )
    labels = np.zeros(len(vectors), dtype=np.int32)
    distances = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)

    def lumps_seen(strategy: str) -> set[int]:
        rows = representatives(
            labels, distances, 1, per_group=3, strategy=strategy, vectors=vectors
        )[0]
        return {round(float(x)) for x in vectors[rows, 0]}

    assert lumps_seen("nearest") == {0}
    assert lumps_seen("representative") == {0, 10, -10}


def test_representative_takes_each_row_once_even_among_duplicates() -> None:
    vectors = np.ones((50, 4), dtype=np.float32)

    rows = representatives(
        np.zeros(50, np.int32), np.zeros(50), 1,
        per_group=10, strategy="representative", vectors=vectors,
    )[0]  # fmt: skip

    assert len(set(rows.tolist())) == 10


def test_a_large_group_is_drawn_from_and_the_seed_decides() -> None:
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(3 * MAX_CANDIDATES, 3)).astype(np.float32)
    labels = np.zeros(len(vectors), np.int32)

    def chosen(seed: int) -> list[int]:
        return representatives(
            labels, np.linalg.norm(vectors, axis=1), 1,
            per_group=5, strategy="representative", vectors=vectors, seed=seed,
        )[0].tolist()  # fmt: skip

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_without_vectors_representative_spreads_over_the_distances() -> None:
    rows = representatives(
        np.zeros(101, np.int32), np.arange(101.0), 1, per_group=5, strategy="representative"
    )[0]

    assert rows.tolist() == [0, 25, 50, 75, 100]


def test_at_least_one_per_group() -> None:
    with pytest.raises(ValueError, match="per_group must be at least 1, got 0"):
        representatives(np.zeros(1, np.int32), np.zeros(1), 1, per_group=0)
