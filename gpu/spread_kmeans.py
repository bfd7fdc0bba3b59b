"""k-means over a matrix that a crew of processes holds in parts.

Seeding, stopping and the refilling of empty groups are those of `gpu.kmeans`: the same sample for
a seed, the same first centroids. Each iteration sends the centroids out and takes sums per group
back. The result does not depend on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.crew import Crew
from gpu.errors import TooFewPointsError
from gpu.kmeans import Meter, are_accurate, first_centroids, n_starts_of
from gpu.parallel import worker_threads
from gpu.params import KMeansParams
from gpu.parts import Frame, Moments, Totals, unit_for
from gpu.seeding import SAMPLE_PER_CENTROID, SAMPLE_POINTS, distinct_rows

Array = Any


@dataclass(frozen=True)
class Spread:
    """Where k-means ended.

    Attributes
    ----------
    labels : array of shape (n_points,), int32
        The nearest centroid of each row, in the order of the parts.
    inertia : float
    n_iter : int
    converged : bool
    """

    labels: NDArray[np.int32]
    inertia: float
    n_iter: int
    converged: bool


def spread_kmeans(
    crew: Crew,
    params: KMeansParams,
    *,
    n_threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Spread:
    """Partition the crew's rows into groups around means.

    Parameters
    ----------
    crew : Crew
    params : KMeansParams
    n_threads : int or None
        For what the asking process does itself; None: one per core.
    progress : callable
        Told the share that is done, 0 to 1.

    Raises
    ------
    TooFewPointsError
        With fewer rows than groups.
    InvalidVectorsError, HostMemoryError
        From whoever reads a part.
    """
    if crew.n_points < params.n_clusters:
        raise TooFewPointsError(n_points=crew.n_points, needed=params.n_clusters)
    scale, variance, largest = _well_scaled(crew)
    course = _Course(crew, params.tol * variance, params.max_iter, unit_for(crew.n_points, largest))
    n_starts = n_starts_of(params)
    best: Spread | None = None
    for start in range(n_starts):
        rng = np.random.default_rng([params.random_state, start])
        centroids = _first_centroids(crew, params, rng, course.tolerance, n_threads)
        meter = Meter(progress, start, n_starts, params.max_iter, course.tolerance)
        found = course.run(centroids, meter)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return Spread(best.labels, best.inertia * scale**2, best.n_iter, best.converged)


def _well_scaled(crew: Crew) -> tuple[float, float, float]:
    """Bring the rows into a frame where float32 scores are accurate, if they are not yet.

    Returns
    -------
    scale, variance, largest : float
        What one unit now is in the rows as read; the mean variance of the dimensions, and the
        largest coordinate, both as they are now.
    """
    square, mean_square, mean, largest = _moments(crew)
    n_dims = len(mean)
    if are_accurate(square, mean_square):
        return 1.0, (square - mean_square) / n_dims, largest
    scale = max(crew.per_part("reach", mean)) or 1.0
    crew.frame = Frame(mean, scale)
    square, mean_square, _, largest = _moments(crew)
    return scale, (square - mean_square) / n_dims, largest


def _moments(crew: Crew) -> tuple[float, float, NDArray[np.float64], float]:
    """Give the rows' mean squared length, that of their mean, their mean, and the largest."""
    parts: list[Moments] = crew.per_part("moments")
    mean = np.sum([part.total for part in parts], axis=0) / crew.n_points
    square = math.fsum(part.squares for part in parts) / crew.n_points
    return square, float(mean @ mean), mean, max(part.largest for part in parts)


def _first_centroids(
    crew: Crew,
    params: KMeansParams,
    rng: np.random.Generator,
    tolerance: float,
    n_threads: int | None,
) -> Array:
    """Seed on a sample, and iterate on it."""
    sample, n_distinct = _seeding_sample(crew, params.n_clusters, rng)
    is_all = len(sample) == crew.n_points
    with worker_threads(n_threads) as each:
        return first_centroids(
            sample, n_distinct, params, rng, each, warm_up_tolerance=None if is_all else tolerance
        )


def _seeding_sample(crew: Crew, n_centroids: int, rng: np.random.Generator) -> tuple[Array, int]:
    """Collect the rows that `gpu.seeding.seeding_rows` chooses; also how many of them differ."""
    n_points = crew.n_points
    size = min(n_points, max(SAMPLE_POINTS, SAMPLE_PER_CENTROID * n_centroids))
    rows = np.arange(n_points)
    if size < n_points:
        rows = np.sort(rng.choice(n_points, size, replace=False))
    sample = _rows_of(crew, rows)
    n_distinct = len(distinct_rows(sample))
    if n_distinct >= n_centroids or size == n_points:
        return sample, n_distinct
    # Few rows differ. If a part alone has `size` that do, that is enough; else all are seen.
    differing = np.concatenate(crew.per_part("distinct", size))
    differing = differing[distinct_rows(differing)]
    if len(differing) > size:
        differing = differing[np.sort(rng.choice(len(differing), size, replace=False))]
    return differing, len(differing)


def _rows_of(crew: Crew, rows: NDArray[np.int64]) -> Array:
    """Collect rows by their numbers, ascending, from the parts that have them."""
    edges = np.cumsum([0] + [source.n_rows for source in crew.sources])
    cuts = np.searchsorted(rows, edges)
    own = {
        number: (rows[cuts[number] : cuts[number + 1]] - edges[number],)
        for number in range(len(crew.sources))
    }
    return np.concatenate(crew.per_part("take", own=own))


@dataclass(frozen=True)
class _Course:
    """Lloyd's iterations over a crew; `unit` is that of the sums."""

    crew: Crew
    tolerance: float
    max_iter: int
    unit: float

    def run(self, centroids: Array, meter: Meter) -> Spread:
        """Move centroids to the means of their rows until they stay, as `gpu.lloyd.lloyd`."""
        totals = self.crew.total("begin", centroids, self.unit)
        for n_iter in range(1, self.max_iter + 1):
            if not totals.counts.all():
                totals = self._refilled(centroids, totals)
            moved = self._means(totals, centroids)
            squares = np.square(moved - centroids, dtype=np.float64).sum(axis=1)
            centroids, shift = moved, float(squares.sum())
            meter(n_iter, shift)
            totals = self.crew.total(
                "follow", centroids, np.sqrt(squares).astype(np.float32), self.unit
            )
            if shift <= self.tolerance or not totals.n_changed:
                return self._ended(centroids, n_iter, True)
        return self._ended(centroids, self.max_iter, False)

    def _means(self, totals: Totals, centroids: Array) -> Array:
        filled = totals.counts > 0
        means = centroids.copy()
        means[filled] = totals.sums[filled] * self.unit / totals.counts[filled, None]
        return means

    def _refilled(self, centroids: Array, totals: Totals) -> Totals:
        """Give each empty group the row that is farthest from its own centroid."""
        empty = np.flatnonzero(totals.counts == 0)
        # Rows alone in their group stay there; so many may have to be passed over.
        most = len(empty) + int((totals.counts == 1).sum())
        found = self.crew.per_part("farthest", centroids, most)
        distances = np.concatenate([part[0] for part in found])
        part_of = np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
        rows = np.concatenate([part[1] for part in found])
        labels = np.concatenate([part[2] for part in found])
        left = totals.counts.copy()
        waiting = iter(empty.tolist())
        moves: dict[int, tuple[list[int], list[int]]] = {n: ([], []) for n in range(len(found))}
        for at in np.argsort(-distances, kind="stable"):
            if left[labels[at]] > 1 and distances[at] > 0:
                group = next(waiting, None)
                if group is None:
                    break
                left[labels[at]] -= 1
                moves[int(part_of[at])][0].append(int(rows[at]))
                moves[int(part_of[at])][1].append(group)
        own = {
            number: (np.array(moved, dtype=np.int64), np.array(groups, dtype=np.int64))
            for number, (moved, groups) in moves.items()
        }
        return self.crew.total("move", centroids, self.unit, own=own)

    def _ended(self, centroids: Array, n_iter: int, converged: bool) -> Spread:
        ends = self.crew.per_part("finish", centroids)
        labels = np.concatenate([labels for labels, _ in ends])
        return Spread(labels, math.fsum(inertia for _, inertia in ends), n_iter, converged)
