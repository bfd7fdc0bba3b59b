"""Manhattan (city block, L1) distances on the CPU, in blocks.

No matrix product gives them, so pairs are walked one by one (SciPy, in float64, with Python's
lock released): a block costs about twenty times a block of Euclidean distances. What needs only
sums of distances takes each dimension by itself, where sorting gives them without any pair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import array_module
from gpu.parallel import Each
from gpu.vectors import (
    DEVICE_BLOCK_BYTES,
    absolute_sums,
    beside,
    block_bytes_of,
    on_host,
    row_blocks,
)

Array = Any

_COLUMNS = 1024
"""Columns of a block that are in float64 at a time."""


class ManhattanDistances:
    """Blocks of the matrix of distances between the rows of one matrix.

    What `gpu.squared_distances.SquaredDistances` is for Euclidean distance, in the input's unit
    and not squared. Safe to call from several threads.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite. Kept, not modified, not copied.

    Attributes
    ----------
    n_points : int
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.n_points = len(vectors)
        self._vectors = vectors

    def block(self, rows: slice | NDArray[Any], columns: slice | NDArray[Any]) -> Any:
        """Compute one block of the matrix.

        Parameters
        ----------
        rows, columns : slice with bounds, or array of int
            Which points.

        Returns
        -------
        array of shape (n_rows, n_columns), float32
            0 for duplicates only, unless the distance is below float32's range.
        """
        return block_between(self._vectors[rows], self._vectors[columns])

    def divisor(self, alpha: float) -> np.float32:
        """Give what divides the values where `alpha` divides the distances."""
        return np.float32(alpha)

    def lengths(self, values: Array) -> NDArray[np.float64]:
        """Give the distances that values of a block stand for."""
        return np.asarray(values, dtype=np.float64)


def block_between(rows: Array, columns: Array) -> NDArray[np.float32]:
    """Give the distance of each row to each column, as float32; NumPy."""
    from scipy.spatial.distance import cdist

    block = np.empty((len(rows), len(columns)), dtype=np.float32)
    for start in range(0, len(columns), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        block[:, part] = cdist(rows, columns[part], "cityblock")
    return block


def nearest_by_manhattan(points: Array, targets: Array, each: Each) -> NDArray[np.int32]:
    """Find the nearest target of each point; of equally near ones the first.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        NumPy or CuPy.
    targets : array of shape (n_targets, n_dims), float32
        NumPy; at least one.
    each : Each
        From `gpu.parallel.worker_threads`.

    Returns
    -------
    array of shape (n_points,), int32
        NumPy.
    """
    if not isinstance(points, np.ndarray):
        return _nearest_on_device(points, targets)
    labels = np.empty(len(points), dtype=np.int32)

    def find(rows: slice) -> None:
        labels[rows] = block_between(points[rows], targets).argmin(axis=1)

    each(find, row_blocks(len(points), 4 * len(targets) + 8 * points.shape[1]))
    return labels


def _nearest_on_device(points: Array, targets: Array) -> NDArray[np.int32]:
    xp = array_module(points)
    targets = beside(targets, points)
    labels = xp.empty(len(points), dtype=np.int32)
    row_bytes = 4 * (len(targets) + 2 * points.shape[1])
    for rows in row_blocks(len(points), row_bytes, DEVICE_BLOCK_BYTES):
        block = xp.empty((rows.stop - rows.start, len(targets)), dtype=np.float32)
        for target in range(len(targets)):
            block[:, target] = absolute_sums(points[rows] - targets[target])
        labels[rows] = block.argmin(axis=1)
    return np.asarray(on_host(labels))


def manhattan_sums(vectors: Array, rows: NDArray[np.int64]) -> Array:
    """Sum the distances of each of some rows to the others.

    In O(n_rows * log(n_rows)) per dimension: in sorted order the values below one and those
    above it are two running sums.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy.
    rows : array of shape (n_rows,), int64
        NumPy.

    Returns
    -------
    array of shape (n_rows,), float64
        Where the vectors are.
    """
    xp = array_module(vectors)
    n_rows = len(rows)
    sums = xp.zeros(n_rows, dtype=np.float64)
    # Of n values in order, the i-th lies above i and below n - 1 - i others.
    balance = xp.arange(1 - n_rows, n_rows + 1, 2, dtype=np.float64)[:, None]
    for part in row_blocks(vectors.shape[1], 48 * n_rows, block_bytes_of(vectors)):
        values = vectors[rows, part].astype(np.float64)
        values -= values.mean(axis=0)  # Running sums of a common offset would lose digits.
        order = values.argsort(axis=0)
        ascending = xp.take_along_axis(values, order, axis=0)
        running = ascending.cumsum(axis=0)
        totals = ascending * balance + ascending + running[-1] - 2 * running
        sums += xp.take_along_axis(totals, order.argsort(axis=0), axis=0).sum(axis=1)
    return sums
