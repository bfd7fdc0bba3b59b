"""Protobuf's wire format, read in place: where each field of many messages lies.

The messages of a page are walked abreast: a step reads the next field of every message that
has one, as arrays. Every length is checked against the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.export.errors import MalformedResponseError

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
_FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}

Places: TypeAlias = NDArray[np.int64]

_FEW: Final = 16  # Messages: walking fewer abreast costs more than one by one.


class Field(NamedTuple):
    """One protobuf field: its number, wire type, and where its content lies."""

    number: int
    wire_type: int
    start: int
    stop: int


class Spans(NamedTuple):
    """Pieces of a page, ascending and apart: whose each is, its first byte and the one behind."""

    owner: Places
    start: Places
    stop: Places

    def at(self, chosen: NDArray[np.bool_] | Places) -> Spans:
        """Choose some of them."""
        return Spans(self.owner[chosen], self.start[chosen], self.stop[chosen])

    def last_of_each(self) -> Spans:
        """Choose each owner's last, as protobuf does when a single field is there twice."""
        if len(self.owner) < 2:
            return self
        return self.at(np.append(self.owner[1:] != self.owner[:-1], True))


class Fields(NamedTuple):
    """Fields of several messages, ascending by place.

    Attributes
    ----------
    message : array of int64
        Position, among the messages that were walked, of the one that the field is in.
    number, wire_type, start, stop : arrays of int64
        As in `Field`.
    """

    message: Places
    number: Places
    wire_type: Places
    start: Places
    stop: Places

    def are_alone(self) -> NDArray[np.bool_]:
        """Tell of each field whether it is the only one of its message."""
        is_alone: NDArray[np.bool_] = np.bincount(self.message) == 1
        return is_alone[self.message]

    def of(self, number: int, wire_type: int = BYTES) -> Spans:
        """Choose the fields with a number; their owners are the messages."""
        chosen = (self.number == number) & (self.wire_type == wire_type)
        if chosen.all():
            return Spans(self.message, self.start, self.stop)
        return Spans(self.message[chosen], self.start[chosen], self.stop[chosen])


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
        elif wire_type in _FIXED_BYTES:
            end = position + _FIXED_BYTES[wire_type]
        else:
            raise MalformedResponseError(f"unknown wire type {wire_type} at byte {position}")
        if end > stop:
            raise _beyond(number, end, stop)
        yield Field(number, wire_type, position, end)
        position = end


def read_varints(data: bytes, start: Places, stop: Places) -> tuple[NDArray[np.uint64], Places]:
    """The numbers at some positions and the positions behind them, as `read_varint`."""
    view = np.frombuffer(data, dtype=np.uint8)
    byte = view[_within(start, stop)]
    values = (byte & 0x7F).astype(np.uint64)
    position = start + 1
    for shift in range(7, 70, 7):
        going = byte >= 0x80
        if not going.any():
            return values, position
        if going.all():  # The usual case: all as long as each other, nothing to choose.
            byte = view[_within(position, stop)]
            values |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            position += 1
            continue
        left = np.flatnonzero(going)
        byte = np.zeros_like(byte)
        byte[left] = view[_within(position[left], stop[left])]
        values |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
        position[left] += 1
    if (byte >= 0x80).any():
        raise MalformedResponseError(
            f"a number in Qdrant's answer breaks off at byte {position[byte >= 0x80][0]}"
        )
    return values, position


def _within(position: Places, stop: Places) -> Places:
    cut_off = position >= stop
    if cut_off.any():
        raise MalformedResponseError(
            f"a number in Qdrant's answer breaks off at byte {position[cut_off][0]}"
        )
    return position


def walk(data: bytes, messages: Spans) -> Fields:
    """Find all fields of several messages.

    Parameters
    ----------
    data : bytes
        The page.
    messages : Spans
        Where the messages lie in it.

    Raises
    ------
    MalformedResponseError
        If a field does not end within its message.
    """
    steps: list[Fields] = []
    message = np.arange(len(messages.start))
    position, stop = messages.start, messages.stop
    while True:
        going = position < stop
        if not going.all():
            message, position, stop = message[going], position[going], stop[going]
        if len(message) < _FEW:
            break
        steps.append(_step(data, message, position, stop))
        position = steps[-1].stop
    if len(message) or not steps:
        steps.append(_one_by_one(data, message, position, stop))
    return _in_order(steps)


def _in_order(steps: list[Fields]) -> Fields:
    """Put the steps of a walk together, ascending by place."""
    if len(steps) == 1:
        return steps[0]
    if all(len(step.start) == len(steps[0].start) for step in steps):
        return Fields(*(np.stack(parts, axis=1).ravel() for parts in zip(*steps, strict=True)))
    found = Fields(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))
    order = np.argsort(found.start, kind="stable")
    return Fields(*(part[order] for part in found))


def _step(data: bytes, message: Places, position: Places, stop: Places) -> Fields:
    """Read the next field of every message."""
    tags, start = read_varints(data, position, stop)
    wire_type = (tags & np.uint64(7)).view(np.int64)
    number = (tags >> np.uint64(3)).view(np.int64)
    if (wire_type == BYTES).all():
        lengths, start = read_varints(data, start, stop)
        return Fields(message, number, wire_type, start, _ends(number, start, lengths, stop))
    end = start.copy()
    for kind in np.unique(wire_type).tolist():
        of_kind = np.flatnonzero(wire_type == kind)
        if kind == BYTES:
            lengths, begin = read_varints(data, start[of_kind], stop[of_kind])
            start[of_kind] = begin
            end[of_kind] = _ends(number[of_kind], begin, lengths, stop[of_kind])
        elif kind == VARINT:
            _, end[of_kind] = read_varints(data, start[of_kind], stop[of_kind])
        elif kind in _FIXED_BYTES:
            sizes = np.full(len(of_kind), _FIXED_BYTES[kind], dtype=np.uint64)
            end[of_kind] = _ends(number[of_kind], start[of_kind], sizes, stop[of_kind])
        else:
            raise MalformedResponseError(f"unknown wire type {kind} at byte {start[of_kind[0]]}")
    return Fields(message, number, wire_type, start, end)


def _ends(number: Places, start: Places, lengths: NDArray[np.uint64], stop: Places) -> Places:
    """Where contents end, none of them beyond its message."""
    # Unsigned, so that a length near 2**64 is a long one and not a negative one.
    beyond = lengths > (stop - start).view(np.uint64)
    if beyond.any():
        at = int(np.argmax(beyond))
        raise _beyond(int(number[at]), int(start[at]) + int(lengths[at]), int(stop[at]))
    return start + lengths.view(np.int64)


def _one_by_one(data: bytes, message: Places, position: Places, stop: Places) -> Fields:
    found = [
        (owner, *field)
        for owner, start, end in zip(
            message.tolist(), position.tolist(), stop.tolist(), strict=True
        )
        for field in fields(data, start, end)
    ]
    return Fields(*np.array(found, dtype=np.int64).reshape(-1, 5).T)


def cut_out(data: bytes, spans: Spans) -> pa.BinaryArray:
    """Copy the bytes of some spans out of a page, one after the other."""
    # To Arrow the page is an array of pieces and of what lies between them: every second one
    # is wanted, and taking those costs one copy of memory each.
    n_spans = len(spans.start)
    offsets = np.zeros(2 * n_spans + 1, dtype=np.int32)
    offsets[0:-1:2] = spans.start
    offsets[1::2] = spans.stop
    offsets[-1] = spans.stop[-1] if n_spans else 0
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    pieces = pa.BinaryArray.from_buffers(pa.binary(), 2 * n_spans, buffers)
    return pieces.take(pa.array(np.arange(0, 2 * n_spans, 2)))


def cut_texts(data: bytes, spans: Spans) -> pa.StringArray:
    """Copy texts out of a page.

    Raises
    ------
    MalformedResponseError
        If one is no UTF-8.
    """
    try:
        return cut_out(data, spans).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise MalformedResponseError(f"a text in Qdrant's answer is no UTF-8: {error}") from error


def _beyond(number: int, end: int, stop: int) -> MalformedResponseError:
    return MalformedResponseError(
        f"field {number} of Qdrant's answer ends at byte {end}, beyond {stop}"
    )
