"""A page of Qdrant's scroll from its bytes: vectors by memory copy, payloads when asked.

The protobuf library would turn each float into a Python object, which costs more than the
network. So the outline of a ``ScrollResponse`` is walked by hand. Records of one collection
have their vectors at the same place behind the same bytes: a layout, learned from the first
record and checked on each other one by comparing those bytes. A record of another layout is
walked again, so nothing depends on the guess. Both spellings of a dense vector are read:
``data`` of servers before 1.16 and the ``dense`` message of later ones; what is neither is
left to the protobuf library. Every length is checked against the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from qdrant_client import grpc as pb

from server.export.errors import MalformedResponseError, UnsupportedVectorError
from server.export.protobytes import BYTES, VARINT, fields, read_varint

_MAX_LAYOUTS: Final = 8


class Outline(NamedTuple):
    """The parts of a page: the offset of the next one, and each record's place."""

    next_offset: bytes | None
    records: list[tuple[int, int]]


@dataclass(frozen=True)
class Records:
    """A parsed page of n points.

    Attributes
    ----------
    ids : list of str
        Decimal numbers or UUIDs.
    vectors : dict of str to array of shape (n, d), float32
        Zeros where the point has no such vector; (n, 0) when none of them has.
    has_vector : dict of str to array of shape (n,), bool
        Whether the point has it.
    payloads : list of dict
        Empty dicts when no payload was asked for.
    """

    ids: list[str]
    vectors: dict[str, NDArray[np.float32]]
    has_vector: dict[str, NDArray[np.bool_]]
    payloads: list[dict[str, Any]]


@dataclass(frozen=True)
class _Layout:
    """Where the vectors lie in a `vectors` field of `n_bytes`, and the bytes between them."""

    n_bytes: int
    between: tuple[tuple[int, bytes], ...]
    places: tuple[tuple[str, int, int], ...]

    def fits(self, data: bytes, start: int, stop: int) -> bool:
        return stop - start == self.n_bytes and all(
            data.startswith(fixed, start + offset) for offset, fixed in self.between
        )


def outline(data: bytes) -> Outline:
    """Find the records of a page and the next page's offset, without reading either."""
    next_offset = None
    records: list[tuple[int, int]] = []
    for number, wire_type, start, stop in fields(data, 0, len(data)):
        if wire_type != BYTES:
            continue
        if number == 2:
            records.append((start, stop))
        elif number == 1:
            next_offset = data[start:stop]
    return Outline(next_offset, records)


class PageParser:
    """Parses pages of one collection and remembers its layouts from page to page."""

    def __init__(self, vector_names: tuple[str, ...], *, with_payload: bool) -> None:
        self._names = vector_names
        self._with_payload = with_payload
        self._layouts: list[_Layout] = []

    def parse(self, data: bytes, records: list[tuple[int, int]]) -> Records:
        """Read the records of a page.

        Raises
        ------
        MalformedResponseError
            If the bytes are not what Qdrant's protocol says.
        UnsupportedVectorError
            If a wanted vector is sparse.
        """
        ids: list[str] = []
        payloads: list[dict[str, Any]] = []
        chunks: dict[str, list[bytes]] = {name: [] for name in self._names}
        rows: dict[str, list[int]] = {name: [] for name in self._names}
        for row, (start, stop) in enumerate(records):
            point_id, payload, vectors = self._parts(data, start, stop)
            ids.append(point_id)
            payloads.append(payload)
            if vectors is None:
                continue
            for name, chunk in self._vectors(data, *vectors):
                if name in chunks:
                    chunks[name].append(chunk)
                    rows[name].append(row)
        arrays = {}
        has_vector = {}
        for name in self._names:
            mask = np.zeros(len(records), dtype=np.bool_)
            mask[rows[name]] = True
            has_vector[name] = mask
            arrays[name] = _stack(name, chunks[name], mask)
        return Records(ids, arrays, has_vector, payloads)

    def _parts(
        self, data: bytes, start: int, stop: int
    ) -> tuple[str, dict[str, Any], tuple[int, int] | None]:
        point_id = ""
        vectors = None
        first = last = -1
        position = start
        for number, wire_type, begin, end in fields(data, start, stop):
            if wire_type == BYTES:
                if number == 1:
                    point_id = _point_id(data, begin, end)
                elif number == 2:
                    first = position if first < 0 else first
                    last = end
                elif number == 4:
                    vectors = (begin, end)
            position = end
        if not point_id:
            raise MalformedResponseError(f"the record at byte {start} has no id")
        payload = _payload(data[first:last]) if self._with_payload and first >= 0 else {}
        return point_id, payload, vectors

    def _vectors(self, data: bytes, start: int, stop: int) -> list[tuple[str, bytes]]:
        """Name and little-endian float32 bytes of each wanted vector of a record."""
        for layout in self._layouts:
            if layout.fits(data, start, stop):
                return [
                    (name, data[start + offset : start + offset + length])
                    for name, offset, length in layout.places
                ]
        places: list[tuple[str, int, int]] = []
        found: list[tuple[str, bytes]] = []
        is_plain = True
        for name, begin, end in _named_outputs(data, start, stop):
            if name not in self._names:
                is_plain = False
                continue
            place = _dense_place(data, begin, end)
            if place is None:
                is_plain = False
                found.append((name, _unusual_vector(name, data[begin:end])))
            else:
                places.append((name, place[0] - start, place[1] - place[0]))
                found.append((name, data[place[0] : place[1]]))
        if is_plain and len(self._layouts) < _MAX_LAYOUTS:
            self._layouts.append(_learn(data, start, stop, places))
        return found


def _learn(data: bytes, start: int, stop: int, places: list[tuple[str, int, int]]) -> _Layout:
    between = []
    position = 0
    for _, offset, length in places:
        between.append((position, data[start + position : start + offset]))
        position = offset + length
    between.append((position, data[start + position : stop]))
    return _Layout(stop - start, tuple(between), tuple(places))


def _point_id(data: bytes, start: int, stop: int) -> str:
    for number, wire_type, begin, end in fields(data, start, stop):
        if number == 1 and wire_type == VARINT:
            return str(read_varint(data, begin, end)[0])
        if number == 2 and wire_type == BYTES:
            return data[begin:end].decode("ascii", errors="replace")
    # The number 0 is a set oneof and so is sent; nothing at all is not an id.
    raise MalformedResponseError(f"the id at byte {start} is neither a number nor a UUID")


def _named_outputs(data: bytes, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Each ``VectorOutput`` of a ``VectorsOutput`` with its name; the unnamed one is ``""``."""
    for number, wire_type, begin, end in fields(data, start, stop):
        if wire_type != BYTES:
            continue
        if number == 1:
            yield "", begin, end
        elif number == 2:
            for entry in fields(data, begin, end):
                name, output = "", (entry.stop, entry.stop)
                for part in fields(data, entry.start, entry.stop):
                    if part.number == 1:
                        name = data[part.start : part.stop].decode("utf-8", errors="replace")
                    elif part.number == 2:
                        output = (part.start, part.stop)
                yield name, *output


def _dense_place(data: bytes, start: int, stop: int) -> tuple[int, int] | None:
    """Where the floats of a plain dense vector lie, or None if it is anything else."""
    found: tuple[int, int] | None = None
    for number, wire_type, begin, end in fields(data, start, stop):
        if wire_type != BYTES or found is not None:
            return None
        if number == 1:
            found = (begin, end)
        elif number == 101:
            inner = list(fields(data, begin, end))
            if len(inner) != 1 or inner[0].number != 1 or inner[0].wire_type != BYTES:
                return None
            found = (inner[0].start, inner[0].stop)
        else:
            return None
    if found is None or (found[1] - found[0]) % 4:
        return None
    return found


def _unusual_vector(name: str, message: bytes) -> bytes:
    """A multi-vector as its mean, an unpacked dense vector, or a refusal; as float32 bytes."""
    try:
        output = pb.VectorOutput.FromString(message)
    except DecodeError as error:
        raise MalformedResponseError(f"vector {name!r} cannot be read: {error}") from error
    if output.HasField("sparse") or output.HasField("indices"):
        raise UnsupportedVectorError(
            f"vector {name!r} is sparse; choose a dense vector (or a multi-vector, whose mean "
            "is taken)",
            vector=name,
        )
    if output.HasField("multi_dense"):
        parts = [np.asarray(v.data, dtype=np.float32) for v in output.multi_dense.vectors]
        if not parts or len({part.size for part in parts}) != 1:
            raise MalformedResponseError(f"the parts of multi-vector {name!r} differ in size")
        matrix = np.stack(parts)
    else:
        flat = output.dense.data if output.HasField("dense") else output.data
        n_parts = output.vectors_count or 1
        values = np.asarray(flat, dtype=np.float32)
        if values.size % n_parts:
            raise MalformedResponseError(
                f"{values.size} floats cannot be {n_parts} vectors of {name!r}"
            )
        matrix = values.reshape(n_parts, -1)
    mean: NDArray[np.float32] = matrix.mean(axis=0, dtype=np.float64).astype("<f4")
    return mean.tobytes()


def _stack(name: str, chunks: list[bytes], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    if not chunks:
        return np.zeros((len(mask), 0), dtype=np.float32)
    sizes = {len(chunk) for chunk in chunks}
    if len(sizes) != 1:
        dims = sorted(size // 4 for size in sizes)
        raise MalformedResponseError(f"vector {name!r} has {dims} dimensions within one page")
    flat = np.frombuffer(b"".join(chunks), dtype="<f4").reshape(len(chunks), -1)
    if len(chunks) == len(mask):
        return flat
    filled = np.zeros((len(mask), flat.shape[1]), dtype=np.float32)
    filled[mask] = flat
    return filled


def _payload(message: bytes) -> dict[str, Any]:
    """Decode the payload entries of a record, cut out as a message of their own."""
    try:
        point = pb.RetrievedPoint.FromString(message)
    except DecodeError as error:
        raise MalformedResponseError(f"a payload cannot be read: {error}") from error
    return {key: value_to_python(value) for key, value in point.payload.items()}


def value_to_python(value: Any) -> Any:
    """A Qdrant ``Value`` as the JSON value it stands for."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "struct_value":
        return {key: value_to_python(item) for key, item in value.struct_value.fields.items()}
    if kind == "list_value":
        return [value_to_python(item) for item in value.list_value.values]
    return getattr(value, kind)
