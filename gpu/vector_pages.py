"""Vectors of a Parquet file read as they lie in it, where no number of a page is encoded.

Uncompressed, plain pages of a fixed-size list without gaps end in their numbers, row after row.
So a page's header and marks say where these lie, and the file system copies them straight into
the matrix; Arrow would look at the marks of every number, at a tenth of the speed.

References
----------
https://github.com/apache/parquet-format/blob/master/README.md#data-pages
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_HEAD_BYTES: Final = 256
"""Enough for a page's header and the length of its first marks; a longer header is not read."""

# The numbers of parquet.thrift: a header's fields, the kinds of pages, the encodings.
_N_BYTES, _DATA_HEADER = 3, 5
_N_VALUES, _ENCODING, _DEFINITION, _REPETITION = 1, 2, 3, 4
_PLAIN: Final = 0
_RLE: Final = 3


class Run(NamedTuple):
    """Numbers that lie one behind the other: their first byte in the file, and how many."""

    start: int
    n_numbers: int


def plain_runs(path: str | Path, file: pq.ParquetFile, column: str) -> list[Run] | None:
    """Find where the numbers of a column of vectors lie, in the order of the rows.

    Parameters
    ----------
    path : str or Path
    file : pq.ParquetFile
        The same file.
    column : str

    Returns
    -------
    list of Run, or None
        None where they have to be decoded: compressed or encoded, of another type than
        float32, lists of any length, or with gaps.
    """
    from pyarrow import types

    kind = file.schema_arrow.field(column).type
    if not types.is_fixed_size_list(kind) or not types.is_float32(kind.value_type):
        return None
    leaves = [file.metadata.schema.column(n).path for n in range(len(file.metadata.schema))]
    own = [n for n, leaf in enumerate(leaves) if leaf == f"{column}.list.{kind.value_field.name}"]
    if len(own) != 1:
        return None
    runs: list[Run] = []
    with open(path, "rb") as source:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            chunk = group.column(own[0])
            found = _chunk_runs(source.fileno(), chunk)
            if sum(run.n_numbers for run in found) != group.num_rows * kind.list_size:
                return None
            runs += found
    return runs


def read_run(descriptor: int, run: Run, target: NDArray[np.float32]) -> None:
    """Copy numbers from an open file into an array of as many.

    Raises
    ------
    EOFError
        If the file ends before them.
    """
    view = target.reshape(-1).data.cast("B")
    done = 0
    while done < len(view):
        n_read = os.preadv(descriptor, [view[done:]], run.start + done)
        if not n_read:
            raise EOFError(f"the file ends within the numbers at byte {run.start}")
        done += n_read


def _chunk_runs(descriptor: int, chunk: Any) -> list[Run]:
    """Find the numbers of a column's pages, up to the first page that has to be decoded."""
    runs: list[Run] = []
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return runs
    position = chunk.data_page_offset
    end = position + chunk.total_compressed_size
    while position < end:
        try:
            header, n_header = _struct(os.pread(descriptor, _HEAD_BYTES, position), 0)
            page = header[_DATA_HEADER]
            n_bytes, n_numbers, levels = header[_N_BYTES], page[_N_VALUES], page[_DEFINITION]
            is_plain = page[_ENCODING] == _PLAIN and levels == page[_REPETITION] == _RLE
        except (KeyError, IndexError, ValueError):
            break  # A page of another kind, or damage: Arrow reads it, or says what is wrong.
        content = position + n_header
        start = content + n_bytes - 4 * n_numbers
        # Numbers that are missing take no bytes, so the marks would not end where these start.
        if not is_plain or _marks_end(descriptor, content) != start:
            break
        runs.append(Run(start, n_numbers))
        position = content + n_bytes
    return runs


def _marks_end(descriptor: int, content: int) -> int:
    """Find the byte behind the two marks of a page, each behind its length."""
    for _ in range(2):
        content += 4 + int.from_bytes(os.pread(descriptor, 4, content), "little")
    return content


def _struct(data: bytes, position: int) -> tuple[dict[int, Any], int]:
    """Read a struct of Thrift's compact protocol, as far as page headers use it."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[position]) != 0:
        position += 1
        kind, step = head & 0xF, head >> 4
        if not step:
            zigzag, position = _varint(data, position)
            number = zigzag >> 1 ^ -(zigzag & 1)
        number += step
        fields[number], position = _value(data, position, kind)
    return fields, position + 1


def _value(data: bytes, position: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2):  # True and false are types.
        return kind == 1, position
    if kind in (4, 5, 6):
        zigzag, position = _varint(data, position)
        return zigzag >> 1 ^ -(zigzag & 1), position
    if kind == 8:
        size, position = _varint(data, position)
        return data[position : position + size], position + size
    if kind == 12:
        return _struct(data, position)
    raise ValueError(f"a page header has no fields of Thrift's type {kind}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
