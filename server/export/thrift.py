"""Thrift's compact protocol, as far as Parquet's footers and page headers need it written.

A value is its kind and its bytes; a struct maps field numbers, ascending, to values, and leaves
out fields that are None.

References
----------
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_I32: Final = 5
_I64: Final = 6
_BINARY: Final = 8
_LIST: Final = 9
_STRUCT: Final = 12


class Value(NamedTuple):
    """An encoded value and the number of its type."""

    kind: int
    content: bytes


def varint(number: int) -> bytes:
    """Encode a number that is not negative, seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def i32(number: int) -> Value:
    """Encode a 32-bit integer."""
    return Value(_I32, varint(number << 1 ^ number >> 31))


def i64(number: int) -> Value:
    """Encode a 64-bit integer."""
    return Value(_I64, varint(number << 1 ^ number >> 63))


def text(content: str | bytes) -> Value:
    """Encode a text as UTF-8, or bytes as they are."""
    data = content.encode() if isinstance(content, str) else content
    return Value(_BINARY, varint(len(data)) + data)


def listed(values: Sequence[Value]) -> Value:
    """Encode a list of values of one type; an empty one is a list of structs."""
    kind = values[0].kind if values else _STRUCT
    size = len(values)
    head = bytes([size << 4 | kind]) if size < 15 else bytes([0xF0 | kind]) + varint(size)
    return Value(_LIST, head + b"".join(value.content for value in values))


def struct(fields: Mapping[int, Value | None]) -> Value:
    """Encode a struct."""
    out = bytearray()
    last = 0
    for number, value in fields.items():
        if value is None:
            continue
        out.append(number - last << 4 | value.kind)  # Parquet's numbers are never 16 apart.
        out += value.content
        last = number
    out.append(0)
    return Value(_STRUCT, bytes(out))
