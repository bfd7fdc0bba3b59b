"""Vectors from Parquet files straight into the GPU's memory.

Where the numbers lie in a file as they are in memory, as in our own exports (`gpu.vector_pages`),
they are copied from there: nothing has to be decoded. Other files are read by cuDF, a few row
groups at a time into the matrix, so the peak is the matrix and one piece; and a column of cuDF
holds at most 2**31 - 1 numbers, which is 2.8 million vectors of 768. What cuDF does not read as a
matrix (lists of any length, float16, larger row groups) is read on the CPU and copied over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpu.backend import Backend, Device, choose_backend, device_errors
from gpu.errors import DeviceError, DeviceMemoryError, InvalidVectorsError
from gpu.frames import load_vectors, require_column
from gpu.memory import BASE_BYTES, free_bytes
from gpu.parallel import n_cores
from gpu.vector_pages import Run, plain_runs, read_run
from gpu.vectors import on_device

Array = Any

COLUMN_NUMBERS = 2**31 - 1
"""Most numbers that a column of cuDF holds."""

PIECE_BYTES = 256 << 20
"""Row groups are read together up to about this size of matrix."""

BUFFER_NUMBERS = 16 << 20
"""Numbers in a buffer that is filled from a file while the one before is sent."""

READ_NUMBERS = 1 << 20
"""Numbers that one thread reads at a time."""

MOST_READERS = 8
"""Threads that fill a buffer; few suffice to keep up with the bus."""

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
    except DeviceError as error:
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
        with device_errors(rows.nbytes):
            return on_device(rows, cupy)
    with device_errors(loading_bytes(*shape)):
        matrix = cupy.empty(shape, dtype=cupy.float32)
        at = n_valid = 0
        for path in paths:
            if runs := _runs(path, column):
                n_rows = sum(run.n_numbers for run in runs) // shape[1]
                _send(path, runs, matrix[at : at + n_rows].reshape(-1))
                at, n_valid = at + n_rows, n_valid + n_rows
                continue
            for piece in _pieces([path], shape[1]):
                n_valid += _read(piece, column, matrix[at : at + piece.n_rows])
                at += piece.n_rows
    cupy.get_default_pinned_memory_pool().free_all_blocks()
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


def _runs(path: str | Path, column: str) -> list[Run] | None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return plain_runs(path, file, column)


def _send(path: str | Path, runs: Sequence[Run], target: Array) -> None:
    """Copy numbers of a file to the GPU; while one buffer is sent the other one is filled."""
    import cupy

    stream = cupy.cuda.get_current_stream()
    size = min(BUFFER_NUMBERS, len(target))
    # Locked memory is what the device copies from without the processor.
    locked = [cupy.cuda.alloc_pinned_memory(4 * size) for _ in range(2)]
    buffers = [np.frombuffer(memory, dtype=np.float32, count=size) for memory in locked]
    sent: list[Any] = [None, None]
    at = 0
    with open(path, "rb") as source, ThreadPoolExecutor(min(MOST_READERS, n_cores())) as readers:
        for number, batch in enumerate(_batches(runs, size)):
            turn = number % 2
            if sent[turn] is not None:
                sent[turn].synchronize()
            n_numbers = _fill(buffers[turn], batch, source.fileno(), readers)
            target[at : at + n_numbers].set(buffers[turn][:n_numbers])
            sent[turn] = stream.record()
            at += n_numbers
    stream.synchronize()


def _batches(runs: Sequence[Run], most: int) -> Iterator[list[Run]]:
    """Cut runs into short ones, and take as many together as a buffer holds."""
    batch: list[Run] = []
    room = most
    for run in runs:
        start, left = run
        while left:
            taken = min(left, room, READ_NUMBERS)
            batch.append(Run(start, taken))
            start, left, room = start + 4 * taken, left - taken, room - taken
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def _fill(
    buffer: np.ndarray[Any, Any], batch: Sequence[Run], descriptor: int, readers: ThreadPoolExecutor
) -> int:
    """Read runs one behind the other into a buffer; gives how many numbers they are."""
    edges = np.cumsum([0, *(run.n_numbers for run in batch)]).tolist()
    parts = [buffer[a:b] for a, b in pairwise(edges)]
    list(readers.map(partial(read_run, descriptor), batch, parts))
    return int(edges[-1])


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
