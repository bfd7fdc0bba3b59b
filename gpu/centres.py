"""Medians and medoids of groups of rows, on the CPU.

A median by counting: bisection over the values' bits asks how many rows lie below, for many
columns side by side, and nothing is sorted or moved. A medoid from half of the pairs: what a
tile of the symmetric matrix of distances adds to its rows, it adds to its columns as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.compiled import compiled

Array = Any

COUNTED_ROWS = 1 << 14
"""Most rows whose median is found by counting; more would leave the cache at each of its passes."""

_KEYS = 1 << 17
"""Values that are counted at a time: half a core's own cache."""

_TILE = 256
_SIGN, _ALL = np.uint32(1 << 31), np.uint32(0xFFFFFFFF)


def median_of(points: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give the median of each column over some rows, as `numpy.median` does.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        Finite.
    rows : array of shape (n_rows,), int64
        At least one, at most `COUNTED_ROWS`.
    """
    n_dims = points.shape[1]
    medians = np.empty(n_dims, dtype=np.float32)
    width = max(16, _KEYS // len(rows))
    for start in range(0, n_dims, width):
        _median(points, rows, start, medians[start : start + width])
    return medians


def summed_distances(centred: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give each row's summed Euclidean distance to all of them.

    Parameters
    ----------
    centred : array of shape (n_rows, n_dims), float32
        Around the origin: squares of differences come from a product and keep their digits there.
    """
    squares = np.einsum("ij,ij->i", centred, centred)
    totals = np.zeros(len(centred))
    cuts = [slice(at, min(at + _TILE, len(centred))) for at in range(0, len(centred), _TILE)]
    for at, rows in enumerate(cuts):
        for columns in cuts[at:]:
            products = centred[rows] @ centred[columns].T
            _add_distances(
                products, squares[rows], squares[columns], totals[rows], totals[columns],
                rows == columns,
            )  # fmt: skip
    return totals


@compiled
def _median(
    points: NDArray[np.float32], rows: NDArray[np.int64], first: int, medians: NDArray[np.float32]
) -> None:
    n_rows, n_columns = len(rows), len(medians)
    keys = np.empty((n_rows, n_columns), dtype=np.float32).view(np.uint32)
    for at in range(n_rows):
        bits = points[rows[at], first : first + n_columns].view(np.uint32)
        for column in range(n_columns):
            # Unsigned numbers in the order of the values.
            flipped = _ALL if bits[column] & _SIGN else _SIGN
            keys[at, column] = bits[column] ^ flipped
    wanted = (n_rows + 1) // 2
    low, high = np.zeros(n_columns, dtype=np.uint32), np.full(n_columns, _ALL)
    middle, counts = np.empty(n_columns, dtype=np.uint32), np.empty(n_columns, dtype=np.int32)
    for _ in range(32):
        for column in range(n_columns):
            middle[column] = low[column] + ((high[column] - low[column]) >> np.uint32(1))
        counts[:] = 0
        for at in range(n_rows):
            for column in range(n_columns):
                counts[column] += keys[at, column] <= middle[column]
        for column in range(n_columns):
            if counts[column] >= wanted:
                high[column] = middle[column]
            else:
                low[column] = middle[column] + np.uint32(1)
    counts[:] = 0
    above = np.full(n_columns, _ALL)
    for at in range(n_rows):
        for column in range(n_columns):
            is_above = keys[at, column] > low[column]
            counts[column] += not is_above
            above[column] = min(above[column], keys[at, column] if is_above else _ALL)
    for column in range(n_columns):
        is_single = n_rows % 2 == 1 or counts[column] > wanted
        if is_single:
            above[column] = low[column]
        low[column] ^= _SIGN if low[column] & _SIGN else _ALL
        above[column] ^= _SIGN if above[column] & _SIGN else _ALL
    lower, upper = low.view(np.float32), above.view(np.float32)
    for column in range(n_columns):
        half = np.float32(0.5)
        medians[column] = half * lower[column] + half * upper[column]


@compiled
def _add_distances(
    products: NDArray[np.float32],
    row_squares: NDArray[np.float32],
    column_squares: NDArray[np.float32],
    row_totals: NDArray[np.float64],
    column_totals: NDArray[np.float64],
    is_diagonal: bool,
) -> None:
    """Add a tile's distances to the totals of its rows, and off the diagonal of its columns."""
    sums = np.zeros(len(column_squares), dtype=np.float32)
    for row in range(len(row_squares)):
        product, square = products[row], row_squares[row]
        total = np.float32(0)
        for column in range(len(sums)):
            apart = square + (column_squares[column] - 2 * product[column])
            distance = np.sqrt(max(apart, np.float32(0)))
            total += distance
            sums[column] += distance
        row_totals[row] += total
    if not is_diagonal:
        column_totals += sums
