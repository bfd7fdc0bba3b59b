"""Vectors from Parquet files straight into the GPU's memory, by cuDF.

The files are read a few row groups at a time into the matrix, so the peak is the matrix and one
piece; and a column of cuDF holds at most 2**31 - 1 numbers, which is 2.8 million vectors of 768.
What cuDF does not read as our exports are written (lists of any length, float16, larger row
groups) is read on the CPU and copied over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu.backend import Backend, Device, choose_backend, device_memory_errors
from gpu.errors import DeviceMemoryError, InvalidVectorsError
from gpu.frames import load_vectors, require_column
from gpu.memory import BASE_BYTES, free_bytes

Array = Any

COLUMN_NUMBERS = 2**31 - 1
"""Most numbers that a column of cuDF holds."""

PIECE_BYTES = 256 << 20
"""Row groups are read together up to about this size of matrix."""

_PIECE_COPIES = 4
"""The file's bytes, decompressed pages, the column and a copy of it."""


@dataclass(frozen=True)
class Loaded:
    """Vectors, and where they are.

    Attributes
    ----------
    vectors : array of shape (n_points, n_dims), float32
        C-contiguous. CuPy where they fit on the GPU that the fit will use, else NumPy, which
        every function of this package takes as well.
    backend : Backend
        What `gpu.backend.choose_backend` says of the device asked for.
    notes : list of str
        In plain words, for the run's record.
    """

    vectors: Array
    backend: Backend
    notes: list[str] = field(default_factory=list)


def load_for(
    paths: Sequence[str | Path],
    column: str,
    device: Device,
    needed_bytes: Callable[[int, int], int] | None = None,
) -> Loaded:
    """Load vectors to where the fit will run.

    Where they do not fit on the GPU they stay on the machine, and the fit decides for itself:
    of a sample it may still run on the GPU.

    Parameters
    ----------
    paths : sequence of str or Path
    column : str
        See `gpu.frames.load_vectors`.
    device : {"auto", "gpu", "cpu"}
    needed_bytes : callable or None
        Numbers of points and of dimensions to the bytes that the run will need on the GPU, with
        the vectors; None: the vectors alone.

    Raises
    ------
    InvalidVectorsError
    DeviceUnavailableError
        With device "gpu" when there is none.
    """
    backend = choose_backend(device)
    if backend.device == "cpu":
        return Loaded(load_vectors(paths, column), backend)
    shape = shape_of(paths, column)
    if shape is None:  # Then only the loaded matrix tells its size, and `fit` looks at that.
        return Loaded(load_vectors(paths, column), backend)
    needed = max(loading_bytes(*shape), needed_bytes(*shape) if needed_bytes else 0)
    try:
        free = free_bytes("gpu")
        if needed > free:
            raise DeviceMemoryError(needed_bytes=needed, free_bytes=free)
        return Loaded(load_on_gpu(paths, column), backend)
    except DeviceMemoryError as error:
        note = f"the vectors were read into the machine's memory, not the GPU's: {error}"
    return Loaded(load_vectors(paths, column), backend, [note])


def loading_bytes(n_points: int, n_dims: int) -> int:
    """Estimate the peak of the GPU's memory while the vectors are loaded."""
    matrix = 4 * n_points * n_dims
    return BASE_BYTES + matrix + _PIECE_COPIES * min(matrix, PIECE_BYTES)


def load_on_gpu(paths: Sequence[str | Path], column: str) -> Array:
    """Load the vectors into the GPU's memory; as `gpu.frames.load_vectors`.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        CuPy, C-contiguous. Null rows are NaN.
    """
    import cupy

    shape = shape_of(paths, column)
    if shape is None:
        rows = load_vectors(paths, column)
        with device_memory_errors(rows.nbytes):
            return cupy.asarray(rows)
    with device_memory_errors(loading_bytes(*shape)):
        matrix = cupy.empty(shape, dtype=cupy.float32)
        at = n_valid = 0
        for piece in _pieces(paths, shape[1]):
            n_valid += _read(piece, column, matrix[at : at + piece.n_rows])
            at += piece.n_rows
    if not n_valid:
        raise InvalidVectorsError(f"column {column!r} holds no vectors: {shape[0]} rows")
    return matrix


def shape_of(paths: Sequence[str | Path], column: str) -> tuple[int, int] | None:
    """Tell the matrix's shape from the files' footers; None where cuDF cannot read it directly.

    Raises
    ------
    InvalidVectorsError
        If a file lacks the column, or lengths differ.
    """
    import pyarrow.parquet as pq
    from pyarrow import types

    n_points, n_dims = 0, None
    for path in paths:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            require_column(schema.names, column, path)
            kind = schema.field(column).type
            if not types.is_fixed_size_list(kind):
                return None
            if not (types.is_float32(kind.value_type) or types.is_float64(kind.value_type)):
                return None
            if n_dims not in (None, kind.list_size):
                raise InvalidVectorsError(
                    f"vectors of column {column!r} differ in length: {n_dims}, and "
                    f"{kind.list_size} in {path}"
                )
            n_dims = kind.list_size
            footer = file.metadata
            groups = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
            if n_dims * max(groups, default=0) > COLUMN_NUMBERS:
                return None
            n_points += footer.num_rows
    return (n_points, n_dims) if n_dims and n_points else None


@dataclass(frozen=True)
class _Piece:
    """Some row groups of one file, in order."""

    path: str
    row_groups: list[int]
    n_rows: int


def _pieces(paths: Sequence[str | Path], n_dims: int) -> Iterator[_Piece]:
    import pyarrow.parquet as pq

    most_rows = min(PIECE_BYTES // (4 * n_dims), COLUMN_NUMBERS // n_dims)
    for path in paths:
        with pq.ParquetFile(path) as file:
            sizes = [
                file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)
            ]
        groups: list[int] = []
        n_rows = 0
        for group, size in enumerate(sizes):
            if groups and n_rows + size > most_rows:
                yield _Piece(str(path), groups, n_rows)
                groups, n_rows = [], 0
            groups.append(group)
            n_rows += size
        if n_rows:
            yield _Piece(str(path), groups, n_rows)


def _read(piece: _Piece, column: str, target: Array) -> int:
    """Fill rows of the matrix; gives the number of vectors that are not null."""
    import cudf
    import cupy

    lists = cudf.read_parquet(
        piece.path,
        columns=[column],
        row_groups=[piece.row_groups],
        use_pandas_metadata=False,
        dataset_kwargs={"partitioning": None},  # A folder named a=b is no column of ours.
    )[column]
    n_valid = len(lists) - int(lists.null_count)
    filled = lists if n_valid == len(lists) else lists.dropna()
    numbers = filled.list.leaves
    if numbers.null_count:
        raise InvalidVectorsError(f"column {column!r} has vectors with missing numbers")
    if not n_valid:
        target.fill(cupy.nan)
        return 0
    rows = numbers.values.reshape(n_valid, target.shape[1])
    if n_valid == len(lists):
        target[...] = rows
    else:
        target.fill(cupy.nan)
        target[cupy.flatnonzero(lists.notna().values)] = rows
    return n_valid
