"""Clustering a sample, and giving the rest to the groups found.

A run on a sample is: `sample_rows`, a fit on those rows, `gpu.summary.summarize` of them, and
`assign_rest` of all other rows to the centroids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import array_module
from gpu.centroid_search import nearest
from gpu.errors import InvalidParametersError, InvalidVectorsError, Violation
from gpu.groups import own_distances
from gpu.manhattan_distances import nearest_by_manhattan
from gpu.parallel import Each, threads_for, worker_threads
from gpu.params import NOISE
from gpu.vectors import (
    DEVICE_BLOCK_BYTES,
    beside,
    is_angular,
    on_host,
    row_blocks,
    squared_lengths,
    unit_rows,
)

Array = Any

CHUNK_ROWS = 1 << 16


def sample_rows(n_points: int, sample_size: int, seed: int) -> NDArray[np.int64]:
    """Draw rows uniformly without repetition.

    Parameters
    ----------
    n_points : int
    sample_size : int
        All rows are taken when it is `n_points` or more.
    seed : int

    Returns
    -------
    array of shape (min(n_points, sample_size),), int64
        Ascending.
    """
    if sample_size < 1:
        raise InvalidParametersError(
            [Violation("sample_size", str(sample_size), "must be an integer of at least 1")]
        )
    if sample_size >= n_points:
        return np.arange(n_points)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n_points, sample_size, replace=False))


def assign_rest(
    vectors: Array, centroids: Array, radii: Array | None, metric: str
) -> NDArray[np.int32]:
    """Give each row to the group of its nearest centroid.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows; NumPy or CuPy.
    centroids : array of shape (n_groups, n_dims), float32
        NumPy.
    radii : array of shape (n_groups,), float32, or None
        For methods with noise: a row farther from its nearest centroid than that group's radius,
        in the metric, is noise. None: every row is assigned.
    metric : str

    Returns
    -------
    array of shape (n_points,), int32
        Group numbers, or `NOISE`. NumPy.
    """
    points = vectors
    if points.ndim != 2 or centroids.ndim != 2 or points.shape[1] != centroids.shape[1]:
        raise InvalidVectorsError(
            f"vectors of shape {points.shape} do not fit centroids of shape {centroids.shape}"
        )
    if not len(centroids) or not len(points):
        return np.full(len(points), NOISE, dtype=np.int32)
    angular = is_angular(metric)
    points = unit_rows(points) if angular else points
    targets = unit_rows(centroids) if angular else centroids
    with worker_threads(threads_for(points)) as each:
        if metric == "manhattan":
            labels = nearest_by_manhattan(points, targets, each)
        else:
            labels = _nearest(points, targets, angular, each)
        if radii is not None:
            distances = own_distances(points, targets, labels, each, metric)
            labels[distances > np.asarray(radii)[labels]] = NOISE
    return labels


def _nearest(points: Array, targets: Array, angular: bool, each: Each) -> NDArray[np.int32]:
    # Differences to a common origin near the data: float32 scores lose digits far from it.
    origin = np.zeros_like(targets[0]) if angular else targets.mean(axis=0)
    if not isinstance(points, np.ndarray):
        return _nearest_on_device(points, targets - origin, origin)
    labels = np.empty(len(points), dtype=np.int32)
    for start in range(0, len(points), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        block = points[rows] if angular else points[rows] - origin
        labels[rows] = nearest(block, targets - origin, each)
    return labels


def _nearest_on_device(points: Array, targets: Array, origin: Array) -> NDArray[np.int32]:
    xp = array_module(points)
    targets, origin = beside(targets, points), beside(origin, points)
    half_squares = squared_lengths(targets) / 2
    labels = xp.empty(len(points), dtype=np.int32)
    row_bytes = 4 * (len(targets) + points.shape[1])
    for rows in row_blocks(len(points), row_bytes, DEVICE_BLOCK_BYTES):
        # |x - c|**2 / 2 without |x|**2 / 2, which is the same for every c; and negated.
        scores = (points[rows] - origin) @ targets.T
        scores -= half_squares
        labels[rows] = scores.argmax(axis=1)
    return np.asarray(on_host(labels))
