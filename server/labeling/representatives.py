"""Which documents stand for a group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

MAX_CANDIDATES: Final = 512
"""Members of a group that are compared with each other; more are drawn from at random."""

Strategy = Literal["nearest", "representative"]
Rows = NDArray[np.int64]


def choose(
    members: Sequence[Rows],
    *,
    per_group: int,
    strategy: Strategy = "nearest",
    vectors: NDArray[np.floating] | None = None,
    seed: int = 42,
) -> list[Rows]:
    """Choose rows for each group; groups may share rows.

    Parameters
    ----------
    members : sequence of int64 arrays
        Row numbers of each group, nearest to its centroid first.
    per_group : int
        Most rows chosen for a group, at least 1; all of a smaller group.
    strategy : str
        ``nearest``: those nearest to the centroid. ``representative``: those that together
        lie closest to all members; without `vectors`, evenly spread over the distances.
    vectors : array of shape (n_points, n_dims), float, or None
        Where the rows lie, Euclidean; only ``representative`` looks.
    seed : int
        Of the draw from groups with more than `MAX_CANDIDATES` members.

    Returns
    -------
    list of n_groups int64 arrays
        Row numbers, nearest to the centroid first for ``nearest``, most central first for
        ``representative``. Ties go to the earlier row. A group without rows has none.

    References
    ----------
    Kaufman and Rousseeuw (1990), *Finding Groups in Data*, chapter 2: the BUILD step of PAM.
    """
    if per_group < 1:
        raise ValueError(f"per_group must be at least 1, got {per_group}")
    if strategy == "nearest":
        return [rows[:per_group] for rows in members]
    if vectors is None:
        return [_evenly(rows, per_group) for rows in members]
    generator = np.random.default_rng(seed)
    return [_central(rows, vectors, per_group, generator) for rows in members]


def members_by_distance(
    labels: NDArray[np.integer], distances: NDArray[np.floating], n_groups: int
) -> list[Rows]:
    """List each group's rows, nearest first; ties keep the order of the rows, NaN is last.

    Rows of label -1 are in none.
    """
    order = np.lexsort((distances, labels))
    starts = np.searchsorted(labels[order], np.arange(n_groups + 1))
    return [order[start:end] for start, end in pairwise(starts)]


def _evenly(rows: Rows, n_rows: int) -> Rows:
    if len(rows) <= n_rows:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n_rows).round().astype(np.int64)]


def _central(
    rows: Rows, vectors: NDArray[np.floating], n_rows: int, generator: np.random.Generator
) -> Rows:
    """Choose greedily the row that most lowers the members' distance to the nearest chosen."""
    if len(rows) <= n_rows:
        return rows
    if len(rows) > MAX_CANDIDATES:
        drawn = generator.choice(len(rows), MAX_CANDIDATES, replace=False)
        rows = rows[np.sort(drawn)]
    apart = _pairwise(vectors[rows])
    nearest = np.full(len(rows), np.inf)
    chosen: list[int] = []
    for _ in range(min(n_rows, len(rows))):
        cost = np.minimum(apart, nearest).sum(axis=1)
        cost[chosen] = np.inf
        best = int(cost.argmin())
        chosen.append(best)
        nearest = np.minimum(nearest, apart[best])
    return rows[chosen]


def _pairwise(points: NDArray[np.floating]) -> NDArray[np.floating]:
    points = points.astype(np.float64) - points.mean(axis=0)
    squares = (points * points).sum(axis=1)
    apart = squares[:, None] + squares[None, :] - 2.0 * (points @ points.T)
    roots: NDArray[np.floating] = np.sqrt(np.maximum(apart, 0.0))
    return roots
