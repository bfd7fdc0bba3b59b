"""Protobuf's wire format, read in place: where each field lies, nothing copied.

Every length is checked against the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from server.export.errors import MalformedResponseError

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5


class Field(NamedTuple):
    """One protobuf field: its number, wire type, and where its content lies."""

    number: int
    wire_type: int
    start: int
    stop: int


def read_varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """The number at a position and the position behind it."""
    value = shift = 0
    while position < stop:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            break
    raise MalformedResponseError(f"a number in Qdrant's answer breaks off at byte {position}")


def fields(data: bytes, start: int, stop: int) -> Iterator[Field]:
    """Walk the fields of the message in ``data[start:stop]``."""
    position = start
    while position < stop:
        tag, position = read_varint(data, position, stop)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == BYTES:
            length, position = read_varint(data, position, stop)
            end = position + length
        elif wire_type == VARINT:
            _, end = read_varint(data, position, stop)
        elif wire_type == FIXED64:
            end = position + 8
        elif wire_type == FIXED32:
            end = position + 4
        else:
            raise MalformedResponseError(f"unknown wire type {wire_type} at byte {position}")
        if end > stop:
            raise MalformedResponseError(
                f"field {number} of Qdrant's answer ends at byte {end}, beyond {stop}"
            )
        yield Field(number, wire_type, position, end)
        position = end
