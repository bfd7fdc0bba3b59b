"""The values of many payload fields as Arrow columns: which kind each is, and where it lies.

Qdrant's `Value` is read in place, many abreast, without a Python object each.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.export.protobytes import (
    BYTES,
    FIXED64,
    VARINT,
    Places,
    Spans,
    cut_out,
    cut_texts,
    read_varints,
    walk,
)

# Fields of Qdrant's `Value`, each with the wire type that it has; what is none of these is
# nested, or a message that the stubs shall judge.
NULL: Final = 1
DOUBLE: Final = 2
INTEGER: Final = 3
STRING: Final = 4
BOOL: Final = 5
NESTED: Final = 6
_SCALARS: Final = {NULL: VARINT, DOUBLE: FIXED64, INTEGER: VARINT, STRING: BYTES, BOOL: VARINT}


class Entries(NamedTuple):
    """Fields of objects: whose each is, its key's number, its kind and where its value lies."""

    row: Places
    key: Places
    kind: Places
    value: Spans

    def at(self, chosen: NDArray[np.bool_] | Places) -> Entries:
        """Choose some of them."""
        return Entries(self.row[chosen], self.key[chosen], self.kind[chosen], self.value.at(chosen))


def entries_of(data: bytes, spans: Spans) -> tuple[list[str], Entries]:
    """Read entries of maps from keys to values; their owners are rows.

    Returns
    -------
    names : list of str
        The keys there are.
    entries : Entries

    Raises
    ------
    MalformedResponseError
        If the bytes are not what Qdrant's protocol says.
    """
    parts = walk(data, spans)
    labels, values = parts.of(1).last_of_each(), parts.of(2).last_of_each()
    encoded = cut_texts(data, labels).dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    key = np.full(len(spans.start), -1)
    key[labels.owner] = encoded.indices.to_numpy(zero_copy_only=False)
    if (key < 0).any():  # Protobuf leaves an empty key out.
        names = names if "" in names else [*names, ""]
        key[key < 0] = names.index("")
    kind, place = kinds_of(data, values, len(spans.start))
    return names, Entries(spans.owner, key, kind, place)


def kinds_of(data: bytes, values: Spans, n_entries: int) -> tuple[Places, Spans]:
    """Say of each entry what its value is, and where; nested ones with all their bytes.

    Parameters
    ----------
    values : Spans
        Messages `Value`; their owners are the entries. An entry without one has null.
    """
    inner = walk(data, values)
    is_alone = inner.are_alone()
    kind = np.full(n_entries, NULL)
    start, stop = np.zeros(n_entries, dtype=np.int64), np.zeros(n_entries, dtype=np.int64)
    entry = values.owner[inner.message]
    kind[entry] = NESTED
    start[values.owner], stop[values.owner] = values.start, values.stop
    for number, wire_type in _SCALARS.items():
        chosen = is_alone & (inner.number == number) & (inner.wire_type == wire_type)
        of_kind = entry[chosen]
        kind[of_kind] = number
        start[of_kind], stop[of_kind] = inner.start[chosen], inner.stop[chosen]
    return kind, Spans(np.arange(n_entries), start, stop)


def scalars(data: bytes, kind: int, spans: Spans) -> pa.Array:
    """Give values of one kind as an Arrow array."""
    if kind == STRING:
        return cut_texts(data, spans)
    if kind == DOUBLE:
        return pa.array(np.frombuffer(cut_out(data, spans).buffers()[2] or b"", dtype="<f8"))
    if kind == INTEGER:
        return pa.array(read_varints(data, spans.start, spans.stop)[0].view(np.int64))
    if kind == BOOL:
        return pa.array(read_varints(data, spans.start, spans.stop)[0] != 0)
    return pa.nulls(len(spans.start))
