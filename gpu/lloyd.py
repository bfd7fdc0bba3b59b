"""Lloyd's iterations, on only those points that may have changed group.

`gpu.centroid_search` keeps bounds that tell which points those are; sums per group change by the
points that moved. The result is that of the plain iteration.

Rows are cut into blocks by shape alone, so the result does not depend on the number of threads.

References
----------
Lloyd (1982), doi:10.1109/TIT.1982.1056489.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.centroid_search import CentroidSearch, bundle
from gpu.groups import Members, group_sums, members_of, squared_distances
from gpu.parallel import Each

Array = Any

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
    search = CentroidSearch(points, centroids, bundle(centroids, each), each)
    sums = GroupSums(points, len(centroids), each)
    sums.recount(search.labels)
    for n_iter in range(1, max_iter + 1):
        if not sums.counts.all():
            before = search.labels.copy()
            refilled = _refill(search, sums.counts, points, centroids, each)
            sums.move(refilled, before, search.labels)
        moved = sums.means(centroids)
        squares = np.square(moved - centroids, dtype=np.float64).sum(axis=1)
        centroids, shift = moved, float(squares.sum())
        if on_shift is not None:
            on_shift(n_iter, shift)
        before = search.labels.copy()
        changed = search.follow(centroids, np.sqrt(squares).astype(np.float32))
        if shift <= tolerance or not len(changed):
            return Partition(search.labels, centroids, n_iter, True)
        sums.move(changed, before, search.labels)
    return Partition(search.labels, centroids, max_iter, False)


def _refill(
    search: CentroidSearch,
    counts: NDArray[np.int64],
    points: Array,
    centroids: Array,
    each: Each,
) -> NDArray[np.int64]:
    """Give each empty group the point that is farthest from its own centroid; say which."""
    distances = squared_distances(points, centroids, search.labels, each)
    left = counts.copy()
    farthest = iter(np.argsort(-distances, kind="stable"))
    moved = []
    for group in np.flatnonzero(counts == 0):
        for point in farthest:
            if left[search.labels[point]] > 1 and distances[point] > 0:
                left[search.labels[point]] -= 1
                search.move(int(point), int(group))
                moved.append(point)
                break
    return np.sort(np.array(moved, dtype=np.int64))


class GroupSums:
    """Sums and counts of the points of each group."""

    def __init__(self, points: Array, n_groups: int, each: Each) -> None:
        self._points, self._each = points, each
        self.sums = np.zeros((n_groups, points.shape[1]))
        self.counts = np.zeros(n_groups, dtype=np.int64)

    def recount(self, labels: NDArray[np.int32]) -> None:
        """Take sums and counts anew."""
        members = members_of(labels, len(self.counts))
        self.sums, self.counts = self._add(members), members.sizes

    def move(
        self, rows: NDArray[np.int64], before: NDArray[np.int32], after: NDArray[np.int32]
    ) -> None:
        """Account for rows that changed from one group to another."""
        if len(rows) > RECOUNT_SHARE * len(self._points):
            self.recount(after)
            return
        for labels, sign in ((before, -1), (after, 1)):
            members = members_of(labels, len(self.counts), rows)
            touched = members.sizes > 0
            self.sums[touched] += sign * self._add(members)[touched]
            self.counts += sign * members.sizes

    def _add(self, members: Members) -> NDArray[np.float64]:
        return group_sums(self._points, members, self._each)

    def means(self, centroids: Array) -> Array:
        """Give the mean of each group, and the given centroid where a group is empty."""
        filled = self.counts > 0
        means = centroids.copy()
        means[filled] = self.sums[filled] / self.counts[filled, None]
        return means
