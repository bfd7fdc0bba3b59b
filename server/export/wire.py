"""A page of Qdrant's scroll from its bytes: ids, vectors and payloads as columns.

The protobuf library would turn each value into a Python object, which costs more than the
network. So the records of a ``ScrollResponse`` are walked abreast, and what is wanted of them
is copied out of the page in one go. Both spellings of a dense vector are read: ``data`` of
servers before 1.16 and the ``dense`` message of later ones; what is neither is left to the
protobuf library. Every length is checked against the bytes that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from qdrant_client import grpc as pb

from server.export.errors import MalformedResponseError, UnsupportedVectorError
from server.export.multivectors import plain_means
from server.export.payloads import Payloads
from server.export.protobytes import (
    BYTES,
    VARINT,
    Spans,
    cut_out,
    cut_texts,
    fields,
    read_varint,
    read_varints,
    walk,
)

_RECORD_TAG: Final = 0x12
_WORTH_A_RUN: Final = 8  # Records of one length: fewer are found as fast one by one.
_MAX_PAGE_BYTES: Final = 2**31 - 1  # Arrow counts a page's bytes in 32 bits.


PointKey: TypeAlias = tuple[int, int | str]
"""Where a point stands in Qdrant's order: numbers first, then UUIDs."""


class Outline(NamedTuple):
    """The parts of a page: each record's place, and the id that the next page starts with."""

    records: Spans
    next_offset: bytes | None


@dataclass(frozen=True)
class Records:
    """A parsed page of n points.

    Attributes
    ----------
    ids : pa.StringArray of length n
        Decimal numbers or UUIDs.
    vectors : dict of str to array of shape (n, d), float32
        Zeros where the point has no such vector; (n, 0) when none of them has. Read only.
    has_vector : dict of str to array of shape (n,), bool
        Whether the point has it.
    payloads : Payloads
        Empty when no payload was asked for; decoded when it is looked at.
    """

    ids: pa.StringArray
    vectors: dict[str, NDArray[np.float32]]
    has_vector: dict[str, NDArray[np.bool_]]
    payloads: Payloads

    def __len__(self) -> int:
        """Count the points."""
        return len(self.ids)


def outline(data: bytes) -> Outline:
    """Find the records of a page and the next page's offset, without reading either.

    Raises
    ------
    MalformedResponseError
        If the bytes are not what Qdrant's protocol says.
    """
    if len(data) > _MAX_PAGE_BYTES:
        raise MalformedResponseError(f"a page of {len(data):,} bytes; at most 2 GiB can be read")
    next_offset = None
    starts: list[int] = []
    stops: list[int] = []
    view = np.frombuffer(data, dtype=np.uint8)
    position, size = 0, len(data)
    last_stride, may_run = 0, True
    while position < size:
        if data[position] == _RECORD_TAG and position + 3 < size:
            # This loop is all that is done record by record, so it reads lengths in line.
            start = position + 2
            length = data[position + 1]
            if length >= 0x80:
                length += (data[start] << 7) - 0x80
                start += 1
                if length >= 0x4000:
                    length, start = read_varint(data, position + 1, size)
            if start + length <= size:
                stride = start + length - position
                n_alike = 1
                if may_run and stride == last_stride:
                    n_alike = _n_alike(view, position, start - position, stride)
                    may_run = n_alike >= _WORTH_A_RUN
                last_stride = stride
                starts.extend(range(start, start + n_alike * stride, stride))
                position += n_alike * stride
                stops.extend(range(start + length, position + 1, stride))
                continue
        number, wire_type, start, position = next(fields(data, position, size))
        if number == 1 and wire_type == BYTES:
            next_offset = data[start:position]
        elif number == 2 and wire_type == BYTES:
            starts.append(start)
            stops.append(position)
    owners = np.arange(len(starts))
    return Outline(Spans(owners, np.array(starts, int), np.array(stops, int)), next_offset)


def _n_alike(view: NDArray[np.uint8], position: int, n_header: int, stride: int) -> int:
    """Count the records from a position on that are as long as the one there."""
    n_most = (len(view) - position) // stride
    heads = view[position : position + n_most * stride].reshape(n_most, stride)[:, :n_header]
    is_alike = (heads == heads[0]).all(axis=1)
    return n_most if is_alike.all() else int(np.argmin(is_alike))


def parse_page(data: bytes, records: Spans, vector_names: tuple[str, ...]) -> Records:
    """Read the records of a page.

    Parameters
    ----------
    data : bytes
        A ``ScrollResponse``.
    records : Spans
        Those to read, as `outline` found them.
    vector_names : tuple of str
        Wanted vectors; ``""`` is the unnamed one.

    Raises
    ------
    MalformedResponseError
        If the bytes are not what Qdrant's protocol says.
    UnsupportedVectorError
        If a wanted vector is sparse.
    """
    records = Spans(np.arange(len(records.start)), records.start, records.stop)
    found = walk(data, records)
    ids = _ids(data, records, found.of(1).last_of_each())
    vectors = {}
    has_vector = {}
    outputs = _outputs(data, found.of(4).last_of_each(), vector_names)
    for name in vector_names:
        vectors[name], has_vector[name] = _matrix(data, name, outputs[name], len(ids))
    return Records(ids, vectors, has_vector, Payloads(data, found.of(2), len(ids)))


def point_key(data: bytes, start: int, stop: int) -> PointKey:
    """Where the point of a record stands in Qdrant's order."""
    key = None
    for number, wire_type, begin, end in fields(data, start, stop):
        if number == 1 and wire_type == BYTES:
            key = id_key(data, begin, end)
    if key is None:
        raise MalformedResponseError(f"the record at byte {start} has no id")
    return key


def id_key(data: bytes, start: int, stop: int) -> PointKey:
    """Where the id in ``data[start:stop]`` stands in Qdrant's order."""
    for number, wire_type, begin, end in fields(data, start, stop):
        if number == 1 and wire_type == VARINT:
            return 0, read_varint(data, begin, end)[0]
        if number == 2 and wire_type == BYTES:
            return 1, data[begin:end].decode("ascii", errors="replace").lower()
    raise MalformedResponseError(f"the id at byte {start} is neither a number nor a UUID")


def _ids(data: bytes, records: Spans, spans: Spans) -> pa.StringArray:
    if len(spans.start) != len(records.start):
        missing = np.setdiff1d(records.owner, spans.owner)[0]
        raise MalformedResponseError(f"the record at byte {records.start[missing]} has no id")
    # The number 0 is a set oneof and so is sent; nothing at all is not an id.
    found = walk(data, spans)
    numbers = found.of(1, VARINT).last_of_each()
    uuids = found.of(2, BYTES).last_of_each()
    texts = []
    if len(numbers.start):
        texts.append(pa.array(read_varints(data, numbers.start, numbers.stop)[0]).cast("string"))
    if len(uuids.start) or not len(numbers.start):
        texts.append(cut_texts(data, uuids))
    owners = np.concatenate([numbers.owner, uuids.owner])
    order = np.argsort(owners, kind="stable")
    if len(order) != len(records.start) or (owners[order] != records.owner).any():
        raise MalformedResponseError(
            f"an id of the page at byte {spans.start[0]} is neither a number nor a UUID, or both"
        )
    return texts[0] if len(texts) == 1 else pa.concat_arrays(texts).take(pa.array(order))


def _outputs(data: bytes, spans: Spans, names: tuple[str, ...]) -> dict[str, Spans]:
    """Find each point's ``VectorOutput`` for each of some names; the unnamed one is ``""``."""
    if not names:
        return {}
    found = walk(data, spans)
    unnamed = found.of(1)
    unnamed = Spans(spans.owner[unnamed.owner], unnamed.start, unnamed.stop)
    maps = found.of(2)
    entries = walk(data, maps).of(1)
    owners = spans.owner[maps.owner][entries.owner]
    parts = walk(data, entries)
    labels, outputs = parts.of(1).last_of_each(), parts.of(2).last_of_each()
    encoded = cut_out(data, labels).dictionary_encode()
    known = [word.decode(errors="replace") for word in encoded.dictionary.to_pylist()]
    code_of = np.full(len(owners), -1)
    code_of[labels.owner] = encoded.indices.to_numpy(zero_copy_only=False)
    if "" not in known:  # Protobuf leaves an empty name out.
        code_of[code_of < 0] = len(known)
        known.append("")
    chosen = {}
    for name in names:
        own = outputs.at(code_of[outputs.owner] == (known.index(name) if name in known else -1))
        own = Spans(owners[own.owner], own.start, own.stop).last_of_each()
        chosen[name] = unnamed if name == "" and not len(own.start) else own
        if name == "" and len(own.start) and len(unnamed.start):
            chosen[name] = _merged(unnamed, own)
    return chosen


def _merged(some: Spans, others: Spans) -> Spans:
    both = Spans(*(np.concatenate(parts) for parts in zip(some, others, strict=True)))
    return both.at(np.argsort(both.start, kind="stable")).last_of_each()


def _matrix(
    data: bytes, name: str, outputs: Spans, n_rows: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Copy the vectors of one name out of a page, and say who has one."""
    plain, others = _dense_places(data, outputs)
    positions, means = plain_means(data, others)
    averaged = others.owner[positions]
    others = others.at(np.setdiff1d(np.arange(len(others.start)), positions))
    unusual = [
        (owner, _unusual_vector(name, data[start:stop]))
        for owner, start, stop in zip(*(part.tolist() for part in others), strict=True)
    ]
    unusual = [(owner, vector) for owner, vector in unusual if len(vector)]
    sizes = set(np.unique((plain.stop - plain.start) // 4).tolist())
    sizes |= {len(vector) for _, vector in unusual} | set(means.shape[1:] if len(means) else ())
    if len(sizes) > 1:
        raise MalformedResponseError(
            f"vector {name!r} has {sorted(sizes)} dimensions within one page"
        )
    n_dims = next(iter(sizes), 0)
    has_vector = np.zeros(n_rows, dtype=np.bool_)
    has_vector[plain.owner] = True
    rows: NDArray[np.float32] = np.zeros((0, n_dims), dtype=np.float32)
    if len(plain.start):
        rows = np.frombuffer(cut_out(data, plain).buffers()[2], dtype="<f4").reshape(-1, n_dims)
    if len(rows) == n_rows:
        return rows, has_vector
    filled = np.zeros((n_rows, n_dims), dtype=np.float32)
    filled[plain.owner] = rows
    if len(means):
        filled[averaged] = means
        has_vector[averaged] = True
    for owner, vector in unusual:
        filled[owner] = vector
        has_vector[owner] = True
    return filled, has_vector


def _dense_places(data: bytes, outputs: Spans) -> tuple[Spans, Spans]:
    """Where the floats of plain dense vectors lie; and the outputs that are anything else."""
    found = walk(data, outputs)
    is_alone = np.bincount(found.message, minlength=len(outputs.start)) == 1
    old = found.of(1)
    new = found.of(101)
    inner = walk(data, new)
    inner_is_alone = np.bincount(inner.message, minlength=len(new.start)) == 1
    floats = inner.of(1)
    floats = floats.at(inner_is_alone[floats.owner])
    floats = Spans(new.owner[floats.owner], floats.start, floats.stop)
    places = floats if not len(old.start) else _merged(old, floats)
    size = places.stop - places.start
    places = places.at(is_alone[places.owner] & (size > 0) & (size % 4 == 0))
    others = np.ones(len(outputs.start), dtype=np.bool_)
    others[places.owner] = False
    return Spans(outputs.owner[places.owner], places.start, places.stop), outputs.at(others)


def _unusual_vector(name: str, message: bytes) -> NDArray[np.float32]:
    """A multi-vector as its mean, an unpacked dense vector, or a refusal; empty for no vector."""
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
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float32] = matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
