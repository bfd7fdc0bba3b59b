"""Sums and distances per group, without a Python step per point.

Labels here are non-negative group numbers; rows of no group carry `NOISE` and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import array_module
from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.params import NOISE
from gpu.vectors import (
    DEVICE_BLOCK_BYTES,
    absolute_sums,
    beside,
    is_angular,
    on_host,
    row_blocks,
    squared_lengths,
)

Array = Any

SEGMENT_POINTS = 512
"""Most rows that are summed in float32; the segments of a group are added in float64."""


CUT_POINTS = 2048
"""Rows that are worth handing to a thread."""


@dataclass(frozen=True)
class Members:
    """Rows by group.

    Attributes
    ----------
    rows : array of shape (n_grouped,), int64
        Row numbers, group after group, ascending within one.
    starts : array of shape (n_groups + 1,), int64
        Group g holds ``rows[starts[g]:starts[g + 1]]``.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Give the number of rows of each group."""
        return np.diff(self.starts)


def members_of(labels: Array, n_groups: int, among: Array | None = None) -> Members:
    """Collect the rows of each group.

    Parameters
    ----------
    labels : array of shape (n_points,), int
        `NOISE` or 0 to n_groups - 1.
    n_groups : int
    among : array of int64, or None
        Consider only these rows, ascending; None: all.
    """
    kept = labels if among is None else labels[among]
    counts = np.bincount(kept + 1, minlength=n_groups + 1)
    # A stable sort of 16-bit integers is a radix sort; noise, -1, comes first.
    keys = (kept + 1).astype(np.uint16 if n_groups < 2**16 - 1 else np.int64)
    rows = np.argsort(keys, kind="stable")[counts[0] :]
    starts = np.zeros(n_groups + 1, dtype=np.int64)
    np.cumsum(counts[1:], out=starts[1:])
    return Members(rows if among is None else among[rows], starts)


def group_sums(vectors: Array, members: Members, each: Each) -> NDArray[np.float64]:
    """Sum the rows of each group.

    The result does not depend on the number of threads: a segment of rows is summed by one of
    them, in row order.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy.
    members : Members
    each : Each
        From `gpu.parallel.worker_threads`.

    Returns
    -------
    array of shape (n_groups, n_dims), float64
        NumPy. Zero for a group without rows.
    """
    if not isinstance(vectors, np.ndarray):
        return _sums_on_device(vectors, members)
    n_groups = len(members.starts) - 1
    pieces = -(-members.sizes // SEGMENT_POINTS)
    filled = np.flatnonzero(pieces)
    sums = np.zeros((n_groups, vectors.shape[1]))
    if not len(filled):
        return sums
    owner = np.repeat(filled, pieces[filled])
    first = np.cumsum(pieces[filled]) - pieces[filled]
    offset = (np.arange(len(owner)) - np.repeat(first, pieces[filled])) * SEGMENT_POINTS
    bounds = np.append(members.starts[owner] + offset, members.starts[-1])
    partial = np.empty((len(owner), vectors.shape[1]), dtype=vectors.dtype)

    def add(segments: slice) -> None:
        own = bounds[segments.start : segments.stop + 1]
        _add_rows(vectors, members.rows, own, partial[segments])

    each(add, _even_cuts(bounds))
    sums[filled] = np.add.reduceat(partial, first, axis=0, dtype=np.float64)
    return sums


def _sums_on_device(vectors: Array, members: Members) -> NDArray[np.float64]:
    xp = array_module(vectors)
    n_dims = vectors.shape[1]
    rows = xp.asarray(members.rows)
    sums = xp.zeros((len(members.starts) - 1, n_dims), dtype=np.float64)
    for group, (start, stop) in enumerate(pairwise(members.starts.tolist())):
        own = rows[start:stop]
        for part in row_blocks(stop - start, 4 * n_dims, DEVICE_BLOCK_BYTES):
            sums[group] += vectors[own[part]].sum(axis=0, dtype=np.float64)
    return np.asarray(on_host(sums))


@compiled
def _add_rows(
    vectors: Array, rows: NDArray[np.int64], bounds: NDArray[np.int64], out: Array
) -> None:
    """Sum the rows of each segment, in order."""
    for segment in range(len(out)):
        total = out[segment]
        total[:] = 0
        for at in range(bounds[segment], bounds[segment + 1]):
            vector = vectors[rows[at]]
            for dim in range(len(vector)):
                total[dim] += vector[dim]


def _even_cuts(bounds: NDArray[np.int64]) -> list[slice]:
    """Cut segments into runs of about `CUT_POINTS` rows."""
    n_rows = int(bounds[-1] - bounds[0])
    wanted = np.linspace(bounds[0], bounds[-1], 1 + max(1, n_rows // CUT_POINTS))
    edges = np.unique(np.searchsorted(bounds, wanted))
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def squared_distances(
    vectors: Array, centroids: Array, labels: Array, each: Each
) -> NDArray[np.float32]:
    """Give each row's squared Euclidean distance to the centroid of its group.

    By differences, so that it is accurate where the distance is small.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy.
    centroids : array of shape (n_groups, n_dims), float32
        NumPy, or where the vectors are. At least one.
    labels : array of shape (n_points,), int
        NumPy.
    each : Each
        From `gpu.parallel.worker_threads`.

    Returns
    -------
    array of shape (n_points,), float32
        NumPy. NaN where the label is `NOISE`.
    """
    return _differences(squared_lengths, vectors, centroids, labels, each)


def own_distances(
    vectors: Array, centroids: Array, labels: Array, each: Each, metric: str
) -> NDArray[np.float32]:
    """Give each row's distance to the centroid of its group, in the metric.

    As `squared_distances`, with `metric` one of `gpu.params.METRICS`; under cosine and dot
    vectors and centroids are unit rows.
    """
    if metric == "manhattan":
        return _differences(absolute_sums, vectors, centroids, labels, each)
    squares = squared_distances(vectors, centroids, labels, each)
    return np.asarray(squares / 2 if is_angular(metric) else np.sqrt(squares), dtype=np.float32)


def _differences(
    measure: Callable[[Array], Array], vectors: Array, centroids: Array, labels: Array, each: Each
) -> NDArray[np.float32]:
    """Measure the difference of each row and its centroid; NaN for noise."""
    xp = array_module(vectors)
    centroids, owner = beside(centroids, vectors), beside(labels, vectors)
    measured = xp.empty(len(vectors), dtype=np.float32)

    def fill(rows: slice) -> None:
        # The label of noise reads the last centroid.
        measured[rows] = measure(vectors[rows] - centroids[owner[rows]])

    if isinstance(vectors, np.ndarray):
        each(fill, row_blocks(len(vectors), 4 * vectors.shape[1]))
    else:
        for rows in row_blocks(len(vectors), 4 * vectors.shape[1], DEVICE_BLOCK_BYTES):
            fill(rows)
    distances: NDArray[np.float32] = np.asarray(on_host(measured))
    distances[labels == NOISE] = np.nan
    return distances
