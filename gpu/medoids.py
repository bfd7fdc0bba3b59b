"""The member of a group that has the least summed distance to the others.

Squared distances sum to ``n * (|x - mean|**2 + spread)``, so by them (and by the cosine distance
of unit rows, which is half the square) the medoid is the member nearest to the mean. Euclidean
distances have no such form. With ``a`` the squared distance to another member and ``t`` its mean
over all members, which is known,

    sqrt(a) = sqrt(t) + (a - t) / (2 * sqrt(t)) + what is left

and the middle term sums to nothing. What is left is small and is taken from a few members; that
tells the likely medoids of a large group, whose distances are then summed in full.

References
----------
Baharav and Tse (2019), "Ultra fast medoid identification via correlated sequential halving".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import array_module
from gpu.centres import summed_distances
from gpu.vectors import block_bytes_of, on_host, row_blocks, squared_lengths

Array = Any
Some = Callable[[slice | NDArray[np.int64]], Array]
"""Gives some members, seen from their mean."""

ALL_PAIRS_POINTS = 512
"""Largest group whose pairs are all looked at."""

ASKED = 32
"""At least so many members of a larger group tell by their distances who is likely the medoid."""

_ASKED_VALUES = 4096
"""In few dimensions distances differ more, and asking more members costs little."""

DOUBT = 7.0
"""Standard errors by which an estimated sum may be wrong: a member is likely the medoid if its sum
could then be the least."""


def nearest_to_mean(points: Array, rows: NDArray[np.int64], mean: Array) -> int:
    """Give the place in `rows` of the medoid by squared distance."""
    blocks = row_blocks(len(rows), 4 * points.shape[1], block_bytes_of(points))
    squares = [squared_lengths(points[rows[part]] - mean) for part in blocks]
    return int(array_module(points).concatenate(squares).argmin())


def euclidean_medoid(points: Array, rows: NDArray[np.int64], mean: Array) -> int:
    """Give the place in `rows` of the medoid by Euclidean distance.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        NumPy or CuPy.
    rows : array of shape (n_members,), int64
        At least one. NumPy.
    mean : array of shape (n_dims,), float32
        Of the members, where the points are.

    Returns
    -------
    int
        The medoid, up to rounding, of at most `ALL_PAIRS_POINTS` members; of more, the one with
        the least sum among those that are likely, at most `ALL_PAIRS_POINTS` of them.
    """
    xp, n_members = array_module(points), len(rows)
    block_bytes = block_bytes_of(points)

    def some(part: slice | NDArray[np.int64]) -> Array:
        chosen = points[rows[part]]
        chosen -= mean
        return chosen

    members: Some = some
    if 4 * n_members * points.shape[1] <= block_bytes:
        whole = some(slice(None))
        if isinstance(whole, np.ndarray) and n_members <= ALL_PAIRS_POINTS:
            return int(summed_distances(whole).argmin())
        members = whole.__getitem__
    # As wide as a row, or as its distances to all that it is compared with.
    width = max(points.shape[1], ALL_PAIRS_POINTS)
    blocks = list(row_blocks(n_members, 4 * width, block_bytes))
    squares = xp.concatenate([squared_lengths(members(part)) for part in blocks])
    everyone = np.arange(n_members)
    if n_members <= ALL_PAIRS_POINTS:
        return int(_sums(everyone, members, squares, blocks, xp).argmin())
    n_asked = min(max(ASKED, _ASKED_VALUES // points.shape[1]), ALL_PAIRS_POINTS)
    likely = _likely(members, squares, blocks, n_asked, xp)
    return int(likely[int(_sums(likely, members, squares, blocks, xp).argmin())])


def _likely(
    members: Some, squares: Array, blocks: list[slice], n_asked: int, xp: Any
) -> NDArray[np.int64]:
    """Give the places, ascending, of the members whose sums could be the least."""
    n_members = len(squares)
    asked = np.linspace(0, n_members - 1, n_asked).astype(np.int64)
    others = members(asked)
    average = xp.sqrt(squares + squares.mean())
    estimates, errors = xp.empty(n_members), xp.empty(n_members)
    for part in blocks:
        lengths = xp.maximum(average[part, None], np.float32(1e-30))
        left = _distances(members(part), others, squares[part], squares[asked], xp)
        left -= lengths
        # sqrt(a) - sqrt(t) - (a - t) / (2 * sqrt(t)) is minus the square of the first difference
        # over 2 * sqrt(t).
        left *= left
        left /= 2 * lengths
        estimates[part] = average[part] - left.mean(axis=1)
        errors[part] = left.std(axis=1) / n_asked**0.5
    best = np.array([int(estimates.argmin())])
    mean_distance = _sums(best, members, squares, blocks, xp)[0] / n_members
    bound = xp.maximum(mean_distance, estimates[best[0]])
    likely = np.flatnonzero(on_host(estimates - DOUBT * errors <= bound))
    if len(likely) > ALL_PAIRS_POINTS:
        by_estimate = np.argpartition(on_host(estimates)[likely], ALL_PAIRS_POINTS)
        likely = np.sort(likely[by_estimate[:ALL_PAIRS_POINTS]])
    return likely


def _sums(
    heads: NDArray[np.int64], members: Some, squares: Array, blocks: list[slice], xp: Any
) -> Array:
    own, totals = members(heads), xp.zeros(len(heads))
    for part in blocks:
        block = _distances(own, members(part), squares[heads], squares[part], xp)
        totals += block.sum(axis=1, dtype=np.float64)
    return totals


def _distances(
    left: Array, right: Array, left_squares: Array, right_squares: Array, xp: Any
) -> Array:
    """Give all distances between rows around the origin, where squares keep their digits."""
    block = left @ right.T
    block *= -2
    block += left_squares[:, None]
    block += right_squares
    xp.maximum(block, 0, out=block)
    return xp.sqrt(block, out=block)
