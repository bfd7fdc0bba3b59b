"""Protobuf messages written by column: many of one kind at once, without an object each.

A message is a row of a binary Arrow array. Parts of it are columns, too, laid behind each other
by `joined`, and put into a field of the message around them by `field`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BYTES: Final = 2  # The wire type of what has a length.
# The least number that takes one byte more than the one before; a byte has seven bits of it.
_LIMITS: Final = np.uint64(1) << np.arange(7, 64, 7, dtype=np.uint64)

Part: TypeAlias = "pa.BinaryArray | bytes"
"""A column, or the same bytes in every row."""


def varints(numbers: NDArray[np.integer]) -> pa.BinaryArray:
    """Encode numbers of at most 64 bits, none below 0, as protobuf does."""
    values = numbers.astype(np.uint64)
    n_bytes = 1 + np.searchsorted(_LIMITS, values, side="right")
    places = np.arange(n_bytes.max(initial=0))
    septets = (values[:, None] >> (7 * places).astype(np.uint64)).astype(np.uint8)
    septets &= np.uint8(0x7F)
    septets[places < n_bytes[:, None] - 1] |= np.uint8(0x80)
    return _rows(septets[places < n_bytes[:, None]], np.cumsum(n_bytes))


def doubles(numbers: NDArray[np.floating]) -> pa.BinaryArray:
    """Encode numbers as the eight bytes of a double."""
    return _rows(numbers.astype("<f8").view(np.uint8), 8 * np.arange(1, len(numbers) + 1))


def field(number: int, contents: pa.BinaryArray) -> pa.BinaryArray:
    """Put messages, texts or bytes into a field."""
    return joined(bytes([number << 3 | _BYTES]), varints(_sizes(contents)), contents)


def joined(*parts: Part) -> pa.BinaryArray:
    """Lay columns behind each other, row by row."""
    columns = [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in parts]
    return pc.binary_join_element_wise(*columns, pa.scalar(b"", pa.binary()))


def gathered(contents: pa.BinaryArray, counts: NDArray[np.integer]) -> pa.BinaryArray:
    """Join rows that follow each other: as many to a row of the answer as `counts` says."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, contents), b"")


def point_ids(texts: pa.StringArray) -> pa.BinaryArray:
    """Encode Qdrant's `PointId`: decimal numbers, and UUIDs.

    Raises
    ------
    pa.ArrowInvalid
        If a number has more than 64 bits.
    """
    is_number = pc.ascii_is_decimal(texts)
    n_numbers = is_number.true_count
    if not n_numbers:
        return field(2, texts.cast(pa.binary()))
    chosen = texts if n_numbers == len(texts) else pc.if_else(is_number, texts, "0")
    numbers = joined(b"\x08", varints(chosen.cast(pa.uint64()).to_numpy()))
    if n_numbers == len(texts):
        return numbers
    return pc.if_else(is_number, numbers, field(2, texts.cast(pa.binary())))


def _sizes(contents: pa.BinaryArray) -> NDArray[np.int32]:
    sizes: NDArray[np.int32] = pc.binary_length(contents).to_numpy()
    return sizes


def _rows(data: NDArray[np.uint8], stops: NDArray[np.integer]) -> pa.BinaryArray:
    offsets = np.concatenate([[0], stops]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(stops), buffers)
