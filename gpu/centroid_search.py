"""The nearest centroid of every point, kept up to date while the centroids move.

The nearest centroid is the one with the largest ``x . c - |c|**2 / 2``, since ``|x|**2`` is the
same for all. The first search is one matrix product. After that each point keeps an upper bound
of the distance to its own centroid, and for each bundle of centroids that lie together a lower
bound of the distance to any other of the bundle. By the triangle inequality the bounds move as
far as the centroids do; only bundles whose bound falls below the upper one are looked at again.
With a bundle for each centroid these are Elkan's bounds, with one for all Hamerly's, between them
the Yinyang bounds. What is found is what a search of all would find, but for rounding.

References
----------
Elkan (2003), "Using the triangle inequality to accelerate k-means".
Hamerly (2010), "Making k-means even faster", doi:10.1137/1.9781611972801.12.
Ding et al. (2015), "Yinyang k-means: a drop-in replacement of the classic k-means".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu.compiled import compiled
from gpu.parallel import Each

Array = Any
Scalar = Any
"""A float32, which NumPy and numba take for different types."""

SCORES_PER_BLOCK = 1 << 18
"""Scores (1 MiB of float32) of a block of rows: small enough to stay in a core's cache."""

POINTS_PER_BLOCK = 1024
"""Rows that a thread brings up to date at a time."""

BOUND_SLACK = 1e-5
"""Bounds cross when this close, in lengths of the longest vector: float32 distances round."""

_DIMS_PER_BUNDLE = 4
_FEWEST_BUNDLES = 4
_BUNDLING_ROUNDS = 5


def most_bundles(n_centroids: int, n_dims: int) -> int:
    """Give the number of bundles: their bounds take at most a quarter of the points' memory."""
    return min(n_centroids, max(_FEWEST_BUNDLES, n_dims // _DIMS_PER_BUNDLE))


class Bundles(NamedTuple):
    """Centroids in groups, as flat arrays.

    Attributes
    ----------
    members : array of shape (n_centroids,), int32
        Numbers of centroids, bundle after bundle, ascending within one.
    starts : array of shape (n_bundles + 1,), int32
        Bundle b holds ``members[starts[b]:starts[b + 1]]``.
    bundle_of : array of shape (n_centroids,), int32
    """

    members: NDArray[np.int32]
    starts: NDArray[np.int32]
    bundle_of: NDArray[np.int32]

    @classmethod
    def one_for_all(cls, n_centroids: int) -> Bundles:
        """Put all centroids into one."""
        return cls.from_labels(np.zeros(n_centroids, dtype=np.int32))

    @classmethod
    def from_labels(cls, labels: NDArray[np.int32]) -> Bundles:
        """Put centroids of one label together."""
        bundle_of = np.unique(labels, return_inverse=True)[1].astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(bundle_of))])
        members = np.argsort(bundle_of, kind="stable")
        return cls(members.astype(np.int32), starts.astype(np.int32), bundle_of)


def bundle(centroids: Array, each: Each) -> Bundles:
    """Put centroids that lie together into bundles, by a few iterations of k-means on them."""
    n_centroids, n_dims = centroids.shape
    n_bundles = most_bundles(n_centroids, n_dims)
    if n_bundles == n_centroids:
        return Bundles.from_labels(np.arange(n_centroids, dtype=np.int32))
    means = centroids[:: -(-n_centroids // n_bundles)].copy()
    for _ in range(_BUNDLING_ROUNDS):
        labels = nearest(centroids, means, each)
        for number in np.unique(labels):
            means[number] = centroids[labels == number].mean(axis=0)
    return Bundles.from_labels(labels)


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
    return CentroidSearch(points, centroids, Bundles.one_for_all(len(centroids)), each).labels


class CentroidSearch:
    """Labels and bounds of all points.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        Kept, not modified.
    centroids : array of shape (n_centroids, n_dims), float32
        At least one.
    bundles : Bundles
    each : Each

    Attributes
    ----------
    labels : array of shape (n_points,), int32
        The nearest of the centroids that were last followed.
    """

    def __init__(self, points: Array, centroids: Array, bundles: Bundles, each: Each) -> None:
        n_points = len(points)
        self._points, self._bundles, self._each = points, bundles, each
        self._squares = np.einsum("ij,ij->i", points, points)
        self._slack = np.float32(BOUND_SLACK * np.sqrt(self._squares.max()))
        self.labels = np.zeros(n_points, dtype=np.int32)
        # Distance to the own centroid at most, and to any other of a bundle at least.
        self._upper = np.empty(n_points, dtype=np.float32)
        self._lower = np.empty((n_points, len(bundles.starts) - 1), dtype=np.float32)
        self._search_all(centroids)

    def _search_all(self, centroids: Array) -> None:
        columns = np.ascontiguousarray(centroids.T)
        halves = _half_squares(centroids)
        step = min(2048, max(64, SCORES_PER_BLOCK // len(centroids)))

        def search(start: int) -> None:
            rows = slice(start, start + step)
            scores = self._points[rows] @ columns
            scores -= halves
            _take_best(
                scores, self._squares[rows], self._bundles,
                self.labels[rows], self._upper[rows], self._lower[rows],
            )  # fmt: skip

        self._each(search, range(0, len(self._points), step))

    def follow(self, centroids: Array, shifts: NDArray[np.float32]) -> NDArray[np.int64]:
        """Bring labels and bounds up to date after each centroid moved by its shift.

        Returns
        -------
        array of shape (n_changed,), int64
            Points whose label changed, ascending.
        """
        centroids = np.ascontiguousarray(centroids)
        halves = _half_squares(centroids)
        bundles = self._bundles
        farthest = np.maximum.reduceat(shifts[bundles.members], bundles.starts[:-1])

        def search(start: int) -> NDArray[np.int64]:
            rows = slice(start, start + POINTS_PER_BLOCK)
            before = self.labels[rows].copy()
            _follow(
                self._points[rows], self._squares[rows], centroids, halves, bundles,
                shifts, farthest, self._slack,
                self.labels[rows], self._upper[rows], self._lower[rows],
            )  # fmt: skip
            return start + np.flatnonzero(before != self.labels[rows])

        changed = self._each(search, range(0, len(self._points), POINTS_PER_BLOCK))
        return np.concatenate(changed)

    def move(self, point: int, group: int) -> None:
        """Put a point into another group by force; the next search looks at it anew."""
        self.labels[point] = group
        self._upper[point] = np.inf
        self._lower[point] = 0


def _half_squares(centroids: Array) -> NDArray[np.float32]:
    return np.asarray(np.einsum("ij,ij->i", centroids, centroids) / 2, dtype=np.float32)


@compiled
def _distance(square: Scalar, score: Scalar) -> Scalar:
    """Give the distance of a point of squared length `square` to a centroid of this score."""
    return np.sqrt(max(square - 2 * score, np.float32(0)))


@compiled
def _score(point: Array, centroid: Array, half: Scalar) -> Scalar:
    total = np.float32(0)
    for dim in range(len(point)):
        total += point[dim] * centroid[dim]
    return total - half


@compiled
def _two_best(scores: Array, members: NDArray[np.int32]) -> tuple[Scalar, Scalar, np.int32]:
    """Give the best and the second best score of a bundle, and the centroid that has the best."""
    top, second, at = np.float32(-np.inf), np.float32(-np.inf), np.int32(0)
    for centroid in members:
        score = scores[centroid]
        if score > top:
            top, second, at = score, top, centroid
        elif score > second:
            second = score
    return top, second, at


@compiled
def _take_best(
    scores: NDArray[np.float32],
    squares: NDArray[np.float32],
    bundles: Bundles,
    labels: NDArray[np.int32],
    upper: NDArray[np.float32],
    lower: NDArray[np.float32],
) -> None:
    """Set labels and bounds from the scores of some points with all centroids."""
    nothing = np.float32(-np.inf)
    for point in range(len(labels)):
        others = lower[point]
        best, label = nothing, np.int32(0)
        for number in range(len(others)):
            members = bundles.members[bundles.starts[number] : bundles.starts[number + 1]]
            top, second, at = _two_best(scores[point], members)
            if top > best or (top == best and at < label):
                if best > nothing:  # Who was best so far is one of the others now.
                    others[bundles.bundle_of[label]] = _distance(squares[point], best)
                best, label, top = top, at, second
            others[number] = _distance(squares[point], top)
        labels[point] = label
        upper[point] = _distance(squares[point], best)


@compiled
def _follow(
    points: NDArray[np.float32],
    squares: NDArray[np.float32],
    centroids: NDArray[np.float32],
    halves: NDArray[np.float32],
    bundles: Bundles,
    shifts: NDArray[np.float32],
    farthest: NDArray[np.float32],
    slack: Scalar,
    labels: NDArray[np.int32],
    upper: NDArray[np.float32],
    lower: NDArray[np.float32],
) -> None:
    """Move the bounds of some points, and search what they no longer rule out."""
    nothing = np.float32(-np.inf)
    scores = np.empty(len(centroids), dtype=np.float32)
    for point in range(len(labels)):
        others, was = lower[point], labels[point]
        least = np.float32(np.inf)
        for number in range(len(others)):
            others[number] -= farthest[number]
            least = min(least, others[number])
        upper[point] += shifts[was]
        if upper[point] + slack < least:
            continue
        vector, square = points[point], squares[point]
        label, best = was, _score(vector, centroids[was], halves[was])
        reach = was_at = _distance(square, best)
        if reach + slack < least:
            upper[point] = reach
            continue
        for number in range(len(others)):
            if others[number] > reach + slack:
                continue
            members = bundles.members[bundles.starts[number] : bundles.starts[number + 1]]
            for centroid in members:
                scores[centroid] = _score(vector, centroids[centroid], halves[centroid])
            scores[was] = nothing  # It is the one to beat, and none of the others.
            top, second, at = _two_best(scores, members)
            if top > best or (top == best and at < label and top > nothing):
                if label != was:  # Its bundle was searched before; it is one of the others now.
                    own = bundles.bundle_of[label]
                    others[own] = min(others[own], reach)
                best, label, top = top, at, second
                reach = _distance(square, best)
            others[number] = _distance(square, top)
        if label != was:
            own = bundles.bundle_of[was]
            others[own] = min(others[own], was_at)
            labels[point] = label
        upper[point] = reach
