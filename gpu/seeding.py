"""First centroids for k-means.

Greedy k-means++ (several candidates for each centroid, of which the best is kept) on a sample:
its cost is one pass over the data per centroid, which on all rows would exceed that of the
iterations. The distances that it draws by are those of a sketch, a random projection: where a
centroid starts need not be exact. With many centroids several are drawn at a time.

References
----------
Arthur and Vassilvitskii (2007), "k-means++: the advantages of careful seeding".
Johnson and Lindenstrauss (1984), on what a random projection keeps.
Bahmani et al. (2012), "Scalable k-means++", doi:10.14778/2180912.2180915 (drawing many a round).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.vectors import row_blocks

Array = Any

SAMPLE_POINTS = 4096
SAMPLE_PER_CENTROID = 32
SKETCH_DIMS = 128
"""Squared distances in a sketch are off by some 12 % (the square root of 2 / 128); with 64
dimensions a mixture's inertia rose by 2 %, with 128 nothing was seen."""

BLOCK_BYTES = 2 << 20
"""Of rows of a sketch that a thread measures at a time."""

_RUN = 1024
_DIMS_AT_ONCE = 4

ROUNDS = 256
"""Most rounds of drawing; above this many centroids each round draws several."""


def seeding_rows(
    vectors: Array, n_centroids: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """Choose the rows that seeding looks at: a sample with enough distinct rows, if there are.

    Returns
    -------
    rows : array of shape (n_rows,), int64
        Ascending.
    n_distinct : int
        How many of them differ; less than `n_centroids` only if that is all there are.
    """
    n_points = len(vectors)
    size = min(n_points, max(SAMPLE_POINTS, SAMPLE_PER_CENTROID * n_centroids))
    if size < n_points:
        sample = np.sort(rng.choice(n_points, size, replace=False))
    else:
        sample = np.arange(n_points)
    n_distinct = len(distinct_rows(vectors[sample]))
    if n_distinct >= n_centroids or size == n_points:
        return sample, n_distinct
    distinct = distinct_rows(vectors)
    if len(distinct) > size:
        distinct = np.sort(rng.choice(distinct, size, replace=False))
    return distinct, len(distinct)


def distinct_rows(vectors: Array) -> NDArray[np.int64]:
    """Give the first row of each distinct value, ascending (0.0 and -0.0 are one)."""
    n_points, n_dims = vectors.shape
    # Sums of random odd multiples, modulo 2**64: equal rows have equal sums to the last bit,
    # which a floating-point product does not promise; unequal ones collide by 2**-32 at most.
    keys = np.random.default_rng(0).integers(0, 2**63, size=n_dims, dtype=np.uint64) | np.uint64(1)
    sums = np.empty(n_points, dtype=np.uint64)
    for rows in row_blocks(n_points, 8 * n_dims):
        bits = (vectors[rows] + np.float32(0)).view(np.uint32)
        sums[rows] = bits.astype(np.uint64) @ keys
    return np.sort(np.unique(sums, return_index=True)[1])


def plus_plus(
    points: Array, n_centroids: int, rng: np.random.Generator, each: Each
) -> NDArray[np.int64]:
    """Choose rows by greedy k-means++.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        With at least `n_centroids` distinct rows.
    n_centroids : int
    rng : numpy.random.Generator
    each : Each

    Returns
    -------
    array of shape (n_centroids,), int64
        Distinct rows of `points`.
    """
    n_points = len(points)
    columns = _sketch(points)
    squares = np.einsum("ij,ij->j", columns, columns)
    chosen = [int(rng.integers(n_points))]
    taken = set(chosen)
    nearest = np.full(n_points, np.inf, dtype=np.float32)
    nearest = _with_candidates(columns, squares, np.array(chosen), nearest, 1, each)[0][0].copy()
    per_round = -(-n_centroids // ROUNDS)
    n_trials = 2 + int(math.log(n_centroids)) if per_round == 1 else 2
    while len(chosen) < n_centroids:
        nearest[chosen] = 0
        draws = _draw(nearest, chosen, n_trials * per_round, rng)
        by_trial, totals = _with_candidates(columns, squares, draws, nearest, n_trials, each)
        best = int(totals.argmin())
        nearest = by_trial[best].copy()
        picked = draws[best * per_round : (best + 1) * per_round]
        chosen.extend(row for row in np.unique(picked).tolist() if row not in taken)
        taken.update(chosen)
    return np.array(chosen[:n_centroids], dtype=np.int64)


def _sketch(points: Array) -> Array:
    """Project onto a few random directions, which keeps the ratios of distances roughly.

    Returns
    -------
    array of shape (n_sketch_dims, n_points), float32
        One direction a row, their number a multiple of `_DIMS_AT_ONCE`.
    """
    n_points, n_dims = points.shape
    if n_dims < 2 * SKETCH_DIMS:
        columns = np.zeros((-(-n_dims // _DIMS_AT_ONCE) * _DIMS_AT_ONCE, n_points), np.float32)
        columns[:n_dims] = points.T
        return columns
    directions = np.random.default_rng(0).normal(size=(n_dims, SKETCH_DIMS)).astype(np.float32)
    directions /= np.float32(math.sqrt(SKETCH_DIMS))
    return np.ascontiguousarray((points @ directions).T)


def _draw(
    weights: NDArray[np.float32], chosen: list[int], size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    cumulated = np.cumsum(weights, dtype=np.float64)
    if cumulated[-1] <= 0:  # All that is left lies on a chosen centroid, to float32 precision.
        free = np.setdiff1d(np.arange(len(weights)), chosen)
        return np.asarray(rng.choice(free, size), dtype=np.int64)
    drawn = np.searchsorted(cumulated, rng.random(size) * cumulated[-1], side="right")
    return np.asarray(np.minimum(drawn, len(weights) - 1), dtype=np.int64)


def _with_candidates(
    columns: Array,
    squares: Array,
    rows: NDArray[np.int64],
    nearest: NDArray[np.float32],
    n_trials: int,
    each: Each,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Give what `nearest` would be with each trial's share of the candidates, and its sum."""
    candidates, lengths = columns[:, rows].T.copy(), squares[rows]
    by_trial = np.empty((n_trials, len(squares)), dtype=np.float32)

    def measure(block: slice) -> NDArray[np.float64]:
        # Whole arrays: of a part of the columns it would not be known that they are contiguous.
        return _lower(
            block.start, block.stop, columns, squares, candidates, lengths, nearest, by_trial
        )

    blocks = row_blocks(len(squares), 4 * len(columns), BLOCK_BYTES)
    totals: NDArray[np.float64] = np.sum(each(measure, blocks), axis=0)
    return by_trial, totals


@compiled
def _lower(
    first_point: int,
    last_point: int,
    columns: NDArray[np.float32],
    squares: NDArray[np.float32],
    candidates: NDArray[np.float32],
    lengths: NDArray[np.float32],
    nearest: NDArray[np.float32],
    by_trial: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Fill the least squared distance of each trial's candidates and `nearest`; sum by trial.

    A library's product is slow for so few candidates; here a run of points stays in the cache
    while all candidates pass over it.
    """
    n_trials = len(by_trial)
    per_trial = len(candidates) // n_trials
    totals = np.zeros(n_trials, dtype=np.float64)
    products = np.empty((len(candidates), _RUN), dtype=np.float32)
    for start in range(first_point, last_point, _RUN):
        stop = min(start + _RUN, last_point)
        products[:] = 0
        for dim in range(0, len(columns), _DIMS_AT_ONCE):
            first, second = columns[dim, start:stop], columns[dim + 1, start:stop]
            third, fourth = columns[dim + 2, start:stop], columns[dim + 3, start:stop]
            for candidate in range(len(candidates)):
                a, b = candidates[candidate, dim], candidates[candidate, dim + 1]
                c, d = candidates[candidate, dim + 2], candidates[candidate, dim + 3]
                product = products[candidate]
                for at in range(stop - start):
                    product[at] += a * first[at] + b * second[at] + c * third[at] + d * fourth[at]
        for trial in range(n_trials):
            least = by_trial[trial, start:stop]
            least[:] = nearest[start:stop]
            for candidate in range(trial * per_trial, (trial + 1) * per_trial):
                length, product = lengths[candidate], products[candidate]
                for at in range(stop - start):
                    apart = squares[start + at] + (length - 2 * product[at])
                    least[at] = min(least[at], max(apart, np.float32(0)))
            total = np.float32(0)
            for at in range(stop - start):
                total += least[at]
            totals[trial] += total
    return totals
