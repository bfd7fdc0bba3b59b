"""Payloads of a page as columns and as JSON, decoded only when they are looked at.

Scalars become Arrow columns without a Python object each. What is nested (objects and lists)
and texts that JSON has to escape are left to the protobuf and json libraries, one by one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cached_property
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from qdrant_client import grpc as pb

from server.export.errors import MalformedResponseError
from server.export.paths import keep
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
_NULL: Final = 1
_DOUBLE: Final = 2
_INTEGER: Final = 3
_STRING: Final = 4
_BOOL: Final = 5
_NESTED: Final = 6
_SCALARS: Final = {_NULL: VARINT, _DOUBLE: FIXED64, _INTEGER: VARINT, _STRING: BYTES, _BOOL: VARINT}

_NEEDS_ESCAPE: Final = np.isin(np.arange(256), [*range(32), ord('"'), ord("\\")])


class Column(NamedTuple):
    """One payload field of a page.

    Attributes
    ----------
    values : pa.Array
        Strings, int64, double or bool where all the values are of that kind; else their JSON.
        Null where the point lacks the field or has null there.
    is_json : bool
        Whether it is JSON.
    """

    values: pa.Array
    is_json: bool


class _Entries(NamedTuple):
    """The fields of all points: whose each is, its key's number, its kind and its place."""

    row: Places
    key: Places
    kind: Places
    value: Spans

    def at(self, chosen: NDArray[np.bool_] | Places) -> _Entries:
        return _Entries(
            self.row[chosen], self.key[chosen], self.kind[chosen], self.value.at(chosen)
        )


class Payloads:
    """The payloads of a page.

    Parameters
    ----------
    data : bytes
        The page.
    entries : Spans
        Every field of every point's payload; the owners are rows.
    n_rows : int
        Points of the page.
    """

    def __init__(self, data: bytes, entries: Spans, n_rows: int) -> None:
        self._data = data
        self._spans = entries
        self._n_rows = n_rows

    def __len__(self) -> int:
        """Count the points."""
        return self._n_rows

    def column(self, key: str) -> Column:
        """Give one field of all points.

        Raises
        ------
        MalformedResponseError
            If the bytes are not what Qdrant's protocol says.
        """
        if not len(self._spans.start):
            return Column(pa.nulls(self._n_rows), False)
        names, entries = self._decoded
        own = entries.at(entries.key == (names.index(key) if key in names else -1))
        own = own.at(np.append(own.row[1:] != own.row[:-1], True)[: len(own.row)])
        kinds = set(np.unique(own.kind).tolist()) - {_NULL}
        is_json = len(kinds) > 1 or _NESTED in kinds
        place = np.full(self._n_rows, -1)
        place[own.row] = np.arange(len(own.row))
        if is_json:
            values = self._texts(own)
            place[own.row[own.kind == _NULL]] = -1
        else:
            own = own.at(own.kind != _NULL)
            place[:] = -1
            place[own.row] = np.arange(len(own.row))
            values = self._scalars(next(iter(kinds), _NULL), own.value)
        return Column(values.take(pa.array(place, mask=place < 0)), is_json)

    def json(
        self,
        paths: Collection[Sequence[str]] | None,
        rows: NDArray[np.bool_] | None = None,
    ) -> pa.StringArray:
        """Give payloads as JSON objects, keys sorted; null where there is nothing to keep.

        Parameters
        ----------
        paths : collection of split paths, or None
            What to keep; None for everything.
        rows : array of shape (n_rows,), bool, or None
            The points that are wanted; None for all.
        """
        n_wanted = self._n_rows if rows is None else int(rows.sum())
        if not len(self._spans.start) or (paths is not None and not paths):
            return pa.nulls(n_wanted, pa.string())
        names, entries = self._decoded
        if rows is not None:
            entries = entries.at(rows[entries.row])
        kept = names if paths is None else {path[0] for path in paths}
        is_kept = np.array([name in kept for name in names], dtype=np.bool_)
        entries = entries.at(is_kept[entries.key]) if not is_kept.all() else entries
        texts = self._texts(entries, paths)
        rank = np.empty(len(names), dtype=np.int64)
        rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        order = np.lexsort((rank[entries.key], entries.row))
        if texts.null_count:  # Fields of which the paths keep nothing.
            order = order[texts.is_valid().to_numpy(zero_copy_only=False)[order]]
        labels = pa.array([f"{encode_basestring(name)}:" for name in names], pa.string())
        labels = labels.take(pa.array(entries.key[order]))
        members = pc.binary_join_element_wise(labels, texts.take(pa.array(order)), "")
        counts = np.bincount(entries.row[order], minlength=self._n_rows)
        counts = counts if rows is None else counts[rows]
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        objects = pc.binary_join(pa.ListArray.from_arrays(offsets, members), ",")
        objects = pc.binary_join_element_wise("{", objects, "}", "")
        return pc.if_else(pa.array(counts > 0), objects, pa.scalar(None, pa.string()))

    def dicts(self) -> list[dict[str, Any]]:
        """Give payloads as the objects that they stand for."""
        return [json.loads(text) if text else {} for text in self.json(None).to_pylist()]

    @cached_property
    def _decoded(self) -> tuple[list[str], _Entries]:
        """Find the keys there are, and every field."""
        data, spans = self._data, self._spans
        parts = walk(data, spans)
        labels, values = parts.of(1).last_of_each(), parts.of(2).last_of_each()
        encoded = cut_texts(data, labels).dictionary_encode()
        names: list[str] = encoded.dictionary.to_pylist()
        key = np.full(len(spans.start), -1)
        key[labels.owner] = encoded.indices.to_numpy(zero_copy_only=False)
        if (key < 0).any():  # Protobuf leaves an empty key out.
            names = names if "" in names else [*names, ""]
            key[key < 0] = names.index("")
        kind, place = self._kinds(values, len(spans.start))
        return names, _Entries(spans.owner, key, kind, place)

    def _kinds(self, values: Spans, n_entries: int) -> tuple[Places, Spans]:
        """Say of each entry what its value is, and where; nested ones with all their bytes."""
        inner = walk(self._data, values)
        is_alone = (np.bincount(inner.message, minlength=len(values.start)) == 1)[inner.message]
        kind = np.full(n_entries, _NULL)
        start, stop = np.zeros(n_entries, dtype=np.int64), np.zeros(n_entries, dtype=np.int64)
        entry = values.owner[inner.message]
        kind[entry] = _NESTED
        start[values.owner], stop[values.owner] = values.start, values.stop
        for number, wire_type in _SCALARS.items():
            chosen = is_alone & (inner.number == number) & (inner.wire_type == wire_type)
            of_kind = entry[chosen]
            kind[of_kind] = number
            start[of_kind], stop[of_kind] = inner.start[chosen], inner.stop[chosen]
        return kind, Spans(np.arange(n_entries), start, stop)

    def _scalars(self, kind: int, spans: Spans) -> pa.Array:
        """Give values of one kind as an Arrow array."""
        data = self._data
        if kind == _STRING:
            return cut_texts(data, spans)
        if kind == _DOUBLE:
            return pa.array(np.frombuffer(cut_out(data, spans).buffers()[2] or b"", dtype="<f8"))
        if kind == _INTEGER:
            return pa.array(read_varints(data, spans.start, spans.stop)[0].view(np.int64))
        if kind == _BOOL:
            return pa.array(read_varints(data, spans.start, spans.stop)[0] != 0)
        return pa.nulls(len(spans.start))

    def _texts(
        self, entries: _Entries, paths: Collection[Sequence[str]] | None = None
    ) -> pa.StringArray:
        """Give each value as JSON; null where the paths keep nothing of it."""
        names = self._decoded[0]
        chunks = [pa.array([], pa.string())]
        orders = []
        for kind in np.unique(entries.kind).tolist():
            chosen = np.flatnonzero(entries.kind == kind)
            if kind == _NESTED:
                keys = [names[key] for key in entries.key[chosen].tolist()]
                texts = pa.array(self._nested(keys, entries.value.at(chosen), paths), pa.string())
            else:
                texts = _as_json(kind, self._scalars(kind, entries.value.at(chosen)))
            chunks.append(texts)
            orders.append(chosen)
        if len(orders) == 1:
            texts = chunks[1]
        else:
            order = np.argsort(np.concatenate([np.zeros(0, dtype=np.int64), *orders]))
            texts = pa.concat_arrays(chunks).take(pa.array(order))
        return _without_scalars_below(texts, names, entries, paths)

    def _nested(
        self, keys: Sequence[str], spans: Spans, paths: Collection[Sequence[str]] | None
    ) -> list[str | None]:
        texts: list[str | None] = []
        below: dict[str, list[Sequence[str]]] = {}
        for path in paths or ():
            below.setdefault(path[0], []).append(path)
        for key, start, stop in zip(keys, spans.start.tolist(), spans.stop.tolist(), strict=True):
            value = _value(self._data[start:stop])
            kept = {key: value} if paths is None else keep({key: value}, below[key])
            texts.append(_dumped(kept[key]) if key in kept else None)
        return texts


def _without_scalars_below(
    texts: pa.StringArray,
    names: Sequence[str],
    entries: _Entries,
    paths: Collection[Sequence[str]] | None,
) -> pa.StringArray:
    """Drop scalars where paths want only what lies below the field."""
    if paths is None:
        return texts
    whole = {path[0] for path in paths if len(path) == 1}
    is_whole = np.array([name in whole for name in names], dtype=np.bool_)
    dropped = ~is_whole[entries.key] & (entries.kind != _NESTED)
    if not dropped.any():
        return texts
    return pc.if_else(pa.array(dropped), pa.scalar(None, pa.string()), texts)


def _as_json(kind: int, values: pa.Array) -> pa.StringArray:
    """Write scalars of one kind as JSON does."""
    if kind == _STRING:
        return _quoted_all(values)
    if kind == _DOUBLE:
        return pa.array(json.dumps(values.to_pylist())[1:-1].split(", "), pa.string())
    if kind == _NULL:
        return pa.array(["null"] * len(values), pa.string())
    return values.cast(pa.string())


def _quoted_all(texts: pa.StringArray) -> pa.StringArray:
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[: len(texts) + 1]
    content = np.frombuffer(texts.buffers()[2] or b"", dtype=np.uint8)[: offsets[-1]]
    special = np.flatnonzero(_NEEDS_ESCAPE[content])
    if not len(special):
        return pc.binary_join_element_wise('"', texts, '"', "")
    rows = np.unique(np.searchsorted(offsets, special, side="right") - 1)
    if 2 * len(rows) > len(texts):
        return pa.array(map(encode_basestring, texts.to_pylist()), pa.string())
    mask = np.zeros(len(texts), dtype=np.bool_)
    mask[rows] = True
    escaped = pa.array(map(encode_basestring, texts.take(pa.array(rows)).to_pylist()), pa.string())
    plain = pc.binary_join_element_wise('"', texts, '"', "")
    return pc.replace_with_mask(plain, pa.array(mask), escaped)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _value(message: bytes) -> Any:
    try:
        return value_to_python(pb.Value.FromString(message))
    except DecodeError as error:
        raise MalformedResponseError(f"a payload cannot be read: {error}") from error


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
