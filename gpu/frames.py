"""Vectors from Parquet files, without a Python object per number.

A vector column is a fixed-size list of floats, or a list whose rows all have one length. A null
row becomes a row of NaN, which `gpu.vectors.usable_rows` then leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu.errors import InvalidVectorsError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 16_384
"""Rows decoded at a time, so that the peak is the matrix and one batch."""


def load_vectors(paths: Sequence[str | Path], column: str) -> NDArray[np.float32]:
    """Load one vector column of Parquet files into the machine's memory, one after the other.

    `gpu.device_frames.load_for` loads to where a fit will run.

    Parameters
    ----------
    paths : sequence of str or Path
    column : str
        Of fixed-size lists or lists of float16, float32 or float64.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        C-contiguous.

    Raises
    ------
    InvalidVectorsError
        If a file lacks the column, the column holds no numbers, or lengths differ.
    """
    if not paths:
        raise InvalidVectorsError("no files to load vectors from")
    import pyarrow.parquet as pq

    n_points = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            require_column(file.schema_arrow.names, column, path)
            n_points += file.metadata.num_rows
    matrix: NDArray[np.float32] | None = None
    at = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
                rows = _matrix(batch.column(0), column)
                if matrix is None and rows is not None:
                    matrix = np.empty((n_points, rows.shape[1]), dtype=np.float32)
                    matrix[:at] = np.nan
                if matrix is not None:
                    _require_width(rows, matrix, column, path)
                    matrix[at : at + len(batch)] = np.nan if rows is None else rows
                at += len(batch)
    if matrix is None:
        raise InvalidVectorsError(f"column {column!r} holds no vectors: {n_points} rows")
    return matrix


def _require_width(
    rows: NDArray[Any] | None, first: NDArray[Any], column: str, path: str | Path
) -> None:
    if rows is not None and rows.shape[1] != first.shape[1]:
        raise InvalidVectorsError(
            f"vectors of column {column!r} differ in length: {first.shape[1]}, and "
            f"{rows.shape[1]} in {path}"
        )


def _matrix(lists: pa.Array, column: str) -> NDArray[np.floating[Any]] | None:
    """Give a batch of lists as a matrix, null rows as NaN; None when every row is null."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = lists.type
    is_list = types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)
    if not is_list or not types.is_floating(kind.value_type):
        raise InvalidVectorsError(f"column {column!r} is {kind}, expected lists of floats")
    filled = lists.drop_null() if lists.null_count else lists
    if not len(filled):
        return None
    flat = filled.flatten()
    if flat.null_count:
        raise InvalidVectorsError(f"column {column!r} has vectors with missing numbers")
    lengths = pc.list_value_length(filled)
    low, high = (value.as_py() for value in pc.min_max(lengths).values())
    if low != high or not low:
        raise InvalidVectorsError(
            f"vectors of column {column!r} differ in length or are empty: {low} to {high}"
        )
    rows: NDArray[np.floating[Any]] = flat.to_numpy(zero_copy_only=False).reshape(-1, high)
    if not lists.null_count:
        return rows
    spread = np.full((len(lists), high), np.nan, dtype=np.float32)
    spread[lists.is_valid().to_numpy(zero_copy_only=False)] = rows
    return spread


def require_column(names: Sequence[str], column: str, path: str | Path) -> None:
    """Refuse a file without the column, saying which it has."""
    if column not in names:
        raise InvalidVectorsError(
            f"{path} has no column {column!r}; it has {', '.join(map(str, names))}"
        )
