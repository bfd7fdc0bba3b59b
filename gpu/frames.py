"""Vectors from Parquet files, without a Python object per number.

A vector column is a fixed-size list of floats, or a list whose rows all have one length. A null
row becomes a row of NaN, which `gpu.vectors.usable_rows` then leaves out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpu.errors import InvalidVectorsError
from gpu.parallel import n_cores
from gpu.vector_pages import Run, plain_runs, read_run

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 16_384
"""Rows decoded at a time, where they are encoded; the peak is the matrix and one batch."""


def load_vectors(
    paths: Sequence[str | Path], column: str, disk: Path | None = None
) -> NDArray[np.float32]:
    """Load one vector column of Parquet files into the machine's memory, one after the other.

    `gpu.device_frames.load_for` loads to where a fit will run.

    Parameters
    ----------
    paths : sequence of str or Path
    column : str
        Of fixed-size lists or lists of float16, float32 or float64.
    disk : Path or None
        A folder on whose disk the matrix is to lie, in a file without a name; the system brings
        what is looked at into memory that is free. None: in memory.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        C-contiguous.

    Raises
    ------
    InvalidVectorsError
        If a file lacks the column, the column holds no numbers, or lengths differ.
    OSError
        If the disk has no room for the matrix.
    """
    if not paths:
        raise InvalidVectorsError("no files to load vectors from")
    import pyarrow.parquet as pq

    n_points = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            require_column(file.schema_arrow.names, column, path)
            n_points += file.metadata.num_rows
    target = _Target(n_points, column, disk)
    for path in paths:
        with pq.ParquetFile(path) as file:
            runs = plain_runs(path, file, column)
            if runs:
                target.copy(path, runs, file.schema_arrow.field(column).type.list_size)
                continue
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
                target.append(path, _matrix(batch.column(0), column), len(batch))
    if target.matrix is None:
        raise InvalidVectorsError(f"column {column!r} holds no vectors: {n_points} rows")
    return target.matrix


def load_row_groups(file: BinaryIO, row_groups: Sequence[int], column: str) -> NDArray[np.float32]:
    """Load one vector column of some row groups of an open Parquet file.

    As `load_vectors`, which reads plain pages faster, but of local files only.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        require_column(parquet.schema_arrow.names, column, "the file")
        n_points = sum(parquet.metadata.row_group(group).num_rows for group in row_groups)
        target = _Target(n_points, column)
        for batch in parquet.iter_batches(BATCH_ROWS, list(row_groups), columns=[column]):
            target.append("the file", _matrix(batch.column(0), column), len(batch))
    if target.matrix is None:
        raise InvalidVectorsError(f"column {column!r} holds no vectors: {n_points} rows")
    return target.matrix


class _Target:
    """The matrix under way: it is made when the first vector tells its width."""

    def __init__(self, n_points: int, column: str, disk: Path | None = None) -> None:
        self.matrix: NDArray[np.float32] | None = None
        self._disk = disk
        self._n_points = n_points
        self._column = column
        self._n_filled = 0

    def append(self, path: str | Path, rows: NDArray[Any] | None, n_rows: int) -> None:
        """Take decoded rows; None for so many null ones."""
        if rows is not None:
            self._of_width(rows.shape[1], path)
        if self.matrix is not None:
            stop = self._n_filled + n_rows
            self.matrix[self._n_filled : stop] = np.nan if rows is None else rows
        self._n_filled += n_rows

    def copy(self, path: str | Path, runs: Sequence[Run], n_dims: int) -> None:
        """Take rows from where their numbers lie in a file."""
        numbers = self._of_width(n_dims, path)[self._n_filled :].reshape(-1)
        stops = np.cumsum([run.n_numbers for run in runs])
        # Several threads, because a new matrix gets its memory while it is written.
        with open(path, "rb") as source, ThreadPoolExecutor(n_cores()) as pool:
            targets = np.split(numbers[: stops[-1]], stops[:-1])
            list(pool.map(lambda run, own: read_run(source.fileno(), run, own), runs, targets))
        self._n_filled += int(stops[-1]) // n_dims

    def _of_width(self, n_dims: int, path: str | Path) -> NDArray[np.float32]:
        """Give the matrix, with rows that were null so far."""
        if self.matrix is None:
            self.matrix = self._empty((self._n_points, n_dims))
            self.matrix[: self._n_filled] = np.nan
        if self.matrix.shape[1] != n_dims:
            raise InvalidVectorsError(
                f"vectors of column {self._column!r} differ in length: {self.matrix.shape[1]}, "
                f"and {n_dims} in {path}"
            )
        return self.matrix

    def _empty(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        if self._disk is None:
            return np.empty(shape, dtype=np.float32)
        with tempfile.TemporaryFile(dir=self._disk) as file:
            # A full disk is told here; when it is met while writing to a page, it kills.
            os.posix_fallocate(file.fileno(), 0, max(1, 4 * shape[0] * shape[1]))
            return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=shape))


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
