"""Lloyd's iterations by matrix product, on only those points that may have changed group.

The nearest centroid is the one with the largest ``x . c - |c|**2 / 2``, since ``|x|**2`` is the
same for all. Each point keeps an upper bound of the distance to its own centroid and a lower
bound of that to every other; by the triangle inequality the bounds move with the centroids, and
while they do not cross the point keeps its group (Hamerly). Sums per group change by the points
that moved. The result is that of the plain iteration.

Rows are cut into blocks by shape alone, so the result does not depend on the number of threads.

References
----------
Lloyd (1982), doi:10.1109/TIT.1982.1056489.
Hamerly (2010), "Making k-means even faster", doi:10.1137/1.9781611972801.12.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.groups import Members, group_sums, members_of, squared_distances
from gpu.parallel import Each

Array = Any

SCORES_PER_BLOCK = 1 << 18
"""Scores (1 MiB of float32) of a block of rows: small enough to stay in a core's cache."""

BOUND_SLACK = 1e-5
"""Bounds cross when this close, in lengths of the longest vector: float32 distances round."""

RECOUNT_SHARE = 0.25
"""From this share of changed points on, sums are taken anew: it costs the same and cannot drift."""


@dataclass(frozen=True)
class Partition:
    """Where the iterations ended.

    Attributes
    ----------
    labels : array of shape (n_points,), int32
        The nearest of `centroids`.
    centroids : array of shape (n_centroids, n_dims), float32
    n_iter : int
    converged : bool
        Whether it ended before max_iter.
    """

    labels: NDArray[np.int32]
    centroids: NDArray[np.float32]
    n_iter: int
    converged: bool


def lloyd(
    points: Array,
    centroids: Array,
    *,
    tolerance: float,
    max_iter: int,
    each: Each,
    on_shift: Callable[[int, float], None] | None = None,
) -> Partition:
    """Move centroids to the means of their points until they stay.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
    centroids : array of shape (n_centroids, n_dims), float32
        Where to start. Not modified.
    tolerance : float
        Ends when the centroids' summed squared shift is at most this.
    max_iter : int
    each : Each
    on_shift : callable or None
        Told the iteration's number (from 1) and its summed squared shift.
    """
    search = _Search(points, len(centroids), each)
    sums = _Sums(points, len(centroids), each)
    shifts: NDArray[np.float32] | None = None
    for n_iter in range(1, max_iter + 1):
        before = search.labels.copy()
        search.follow(centroids, shifts)
        changed = np.flatnonzero(before != search.labels)
        if shifts is not None and not len(changed):
            return Partition(search.labels, centroids, n_iter, True)
        sums.move(changed, before, search.labels)
        if not sums.counts.all():
            before = search.labels.copy()
            search.refill(centroids, sums.counts)
            sums.move(np.flatnonzero(before != search.labels), before, search.labels)
        moved = sums.means(centroids)
        squares = np.square(moved - centroids, dtype=np.float64).sum(axis=1)
        shifts, shift = np.sqrt(squares).astype(np.float32), float(squares.sum())
        centroids = moved
        if on_shift is not None:
            on_shift(n_iter, shift)
        if shift <= tolerance:
            break
    search.follow(centroids, shifts)
    return Partition(search.labels, centroids, n_iter, shift <= tolerance)


def nearest(points: Array, centroids: Array, each: Each) -> NDArray[np.int32]:
    """Give the number of each point's nearest centroid, the lower one at a tie.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
    centroids : array of shape (n_centroids, n_dims), float32
        At least one.

    Returns
    -------
    array of shape (n_points,), int32
    """
    search = _Search(points, len(centroids), each)
    search.follow(centroids, None)
    return search.labels


class _Search:
    """The nearest centroid of each point, kept up to date as centroids move."""

    def __init__(self, points: Array, n_centroids: int, each: Each) -> None:
        n_points = len(points)
        self.labels = np.zeros(n_points, dtype=np.int32)
        self._points, self._each = points, each
        self._squares = np.einsum("ij,ij->i", points, points)
        self._slack = BOUND_SLACK * float(np.sqrt(self._squares.max()))
        # Distance to the own centroid at most, and to any other at least.
        self._upper = np.full(n_points, np.inf, dtype=np.float32)
        self._lower = np.zeros(n_points, dtype=np.float32)
        self._step = min(2048, max(64, SCORES_PER_BLOCK // n_centroids))
        self._local = threading.local()

    def follow(self, centroids: Array, shifts: NDArray[np.float32] | None) -> None:
        """Bring labels and bounds up to date after each centroid moved by its shift."""
        if shifts is not None:
            farthest = int(shifts.argmax())
            others = np.full(len(shifts), shifts[farthest], dtype=np.float32)
            others[farthest] = np.delete(shifts, farthest).max(initial=0)
            self._upper += shifts[self.labels]
            self._lower -= others[self.labels]
        rows = np.flatnonzero(self._upper + self._slack >= self._lower)
        half_squares = np.einsum("ij,ij->i", centroids, centroids) / 2
        columns = np.ascontiguousarray(centroids.T)
        chunks = [rows[at : at + self._step] for at in range(0, len(rows), self._step)]
        self._each(lambda chunk: self._label(chunk, columns, half_squares), chunks)

    def _label(
        self, rows: NDArray[np.int64], columns: Array, half_squares: NDArray[np.float32]
    ) -> None:
        scores = self._buffer("scores", columns.shape[1])[: len(rows)]
        if rows[-1] - rows[0] + 1 == len(rows):
            block = self._points[rows[0] : rows[-1] + 1]
        else:
            block = self._buffer("block", self._points.shape[1])[: len(rows)]
            np.take(self._points, rows, axis=0, out=block, mode="clip")
        np.matmul(block, columns, out=scores)
        scores -= half_squares
        labels = scores.argmax(axis=1)
        lines = np.arange(len(rows))
        best = scores[lines, labels]
        scores[lines, labels] = -np.inf
        squares = self._squares[rows]
        self.labels[rows] = labels
        self._upper[rows] = _distance(squares, best)
        self._lower[rows] = _distance(squares, scores.max(axis=1))

    def _buffer(self, name: str, width: int) -> Array:
        if not hasattr(self._local, name):
            setattr(self._local, name, np.empty((self._step, width), dtype=np.float32))
        buffer: Array = getattr(self._local, name)
        return buffer

    def refill(self, centroids: Array, counts: NDArray[np.int64]) -> None:
        """Give each empty group the point that is farthest from its own centroid."""
        distances = squared_distances(self._points, centroids, self.labels, self._each)
        left = counts.copy()
        farthest = iter(np.argsort(-distances, kind="stable"))
        for group in np.flatnonzero(counts == 0):
            for point in farthest:
                if left[self.labels[point]] > 1 and distances[point] > 0:
                    left[self.labels[point]] -= 1
                    self.labels[point] = group
                    self._upper[point] = np.inf
                    break


def _distance(squares: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(np.maximum(squares - 2 * scores, 0)), dtype=np.float32)


class _Sums:
    """Sums and counts of the points of each group."""

    def __init__(self, points: Array, n_groups: int, each: Each) -> None:
        self._points, self._each = points, each
        self._sums = np.zeros((n_groups, points.shape[1]))
        self.counts = np.zeros(n_groups, dtype=np.int64)

    def move(
        self, rows: NDArray[np.int64], before: NDArray[np.int32], after: NDArray[np.int32]
    ) -> None:
        """Account for rows that changed from one group to another."""
        n_groups, n_points = len(self.counts), len(self._points)
        if not self.counts.any() or len(rows) > RECOUNT_SHARE * n_points:
            members = members_of(after, n_groups)
            self._sums, self.counts = self._add(members), members.sizes
            return
        for labels, sign in ((before, -1), (after, 1)):
            members = members_of(labels, n_groups, rows)
            touched = members.sizes > 0
            self._sums[touched] += sign * self._add(members)[touched]
            self.counts += sign * members.sizes

    def _add(self, members: Members) -> NDArray[np.float64]:
        return group_sums(self._points, members, self._each)

    def means(self, centroids: Array) -> Array:
        """Give the mean of each group, and the given centroid where a group is empty."""
        filled = self.counts > 0
        means = centroids.copy()
        means[filled] = self._sums[filled] / self.counts[filled, None]
        return means
