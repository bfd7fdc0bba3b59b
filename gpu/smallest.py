"""The smallest values of each row of a matrix, and where they stand.

A partition moves whole rows about; a few smallest values need only a look at each value. Runs of
values are passed over when none is a candidate, which vector instructions find fast.
NumPy's own partition takes ten times as long on processors whose compressed stores are slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.compiled import compiled

_RUN = 64
"""Values that are passed over together."""

_FEW = 64
"""Up to this many values of a row are kept sorted; for more, a partition is faster."""


def nth_smallest(matrix: NDArray[np.float32], nth: int) -> NDArray[np.float32]:
    """Give the `nth` smallest value of each row, counted from 1.

    Parameters
    ----------
    matrix : array of shape (n_rows, n_columns), float32
        Without NaN.
    nth : int
        1 to n_columns.

    Returns
    -------
    array of shape (n_rows,), float32
    """
    if nth > _FEW:
        return np.partition(matrix, nth - 1, axis=1)[:, nth - 1]
    values = np.empty((len(matrix), nth), dtype=np.float32)
    smallest(matrix, values, np.empty(values.shape, dtype=np.int32))
    return values[:, -1]


@compiled
def smallest(
    matrix: NDArray[np.float32], values: NDArray[np.float32], at: NDArray[np.int32]
) -> None:
    """Find the smallest values of each row, ascending; of equal ones those that come first.

    Parameters
    ----------
    matrix : array of shape (n_rows, n_columns), float32
        Without NaN; infinity stands for "none".
    values : array of shape (n_rows, n_kept), float32
        Filled; infinite where a row has fewer finite values.
    at : array of shape (n_rows, n_kept), int32
        Filled with their columns; 0 where the value is infinite.

    Notes
    -----
    O(n_columns) a row, and n_kept for each of the some ``n_kept * log(n_columns)`` insertions.
    """
    columns = np.arange(matrix.shape[1])
    for line in range(len(matrix)):
        values[line] = np.inf
        at[line] = 0
        _keep(matrix[line], columns, values[line], at[line])


@compiled
def _keep(
    found: NDArray[np.float32],
    columns: NDArray[np.int64],
    kept: NDArray[np.float32],
    names: NDArray[np.int32],
) -> None:
    """Merge the values of one row, which stand for `columns`, into its smallest ones."""
    last = len(kept) - 1
    for start in range(0, len(found), _RUN):
        run = found[start : start + _RUN]
        bound, n_candidates = kept[last], 0
        for column in range(len(run)):
            n_candidates += run[column] < bound
        if not n_candidates:
            continue
        for column in range(len(run)):
            value = run[column]
            if value < kept[last]:
                insert(kept, names, value, columns[start + column])


@compiled
def insert(kept: NDArray[np.float32], names: NDArray[np.int32], value: Any, name: Any) -> None:
    """Put a value, and whose it is, among those kept in ascending order; the largest goes."""
    place = len(kept) - 1
    while place > 0 and kept[place - 1] > value:
        kept[place], names[place] = kept[place - 1], names[place - 1]
        place -= 1
    kept[place], names[place] = value, name
