"""Payload values written as JSON, many abreast: objects inside objects and lists, too.

What nests deeper than `DEEPEST`, and what is no plain `Value`, is left to the protobuf and json
libraries, one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from qdrant_client import grpc as pb

from server.export.errors import MalformedResponseError
from server.export.paths import Tree, prune
from server.export.payload_values import (
    DOUBLE,
    NESTED,
    NULL,
    STRING,
    Entries,
    entries_of,
    kinds_of,
    scalars,
)
from server.export.protobytes import BYTES, Places, Spans, walk

DEEPEST: Final = 16
"""Objects and lists inside each other that are read abreast."""

_STRUCT: Final = pb.Value.STRUCT_VALUE_FIELD_NUMBER
_LIST: Final = pb.Value.LIST_VALUE_FIELD_NUMBER
_INSIDE: Final = 1  # The field of both that holds what is inside.

_NEEDS_ESCAPE: Final = np.isin(np.arange(256), [*range(32), ord('"'), ord("\\")])
_NOTHING: Final = pa.scalar(None, pa.string())


def objects(
    data: bytes, names: Sequence[str], entries: Entries, n_rows: int, tree: Tree, depth: int = 0
) -> pa.StringArray:
    """Write objects, keys sorted; null where there is nothing to keep.

    Parameters
    ----------
    names : sequence of str
        The keys, by the numbers that entries have.
    entries : Entries
        The fields of the objects, in the order of the rows.
    tree : Tree
        What to keep; None for everything.
    depth : int
        Objects and lists around these.
    """
    if tree is not None:
        is_kept = np.array([name in tree for name in names], dtype=np.bool_)
        entries = entries.at(is_kept[entries.key])
    texts = value_texts(data, names, entries, tree, depth)
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    order = np.lexsort((rank[entries.key], entries.row))
    if texts.null_count:  # Fields of which nothing is kept.
        order = order[texts.is_valid().to_numpy(zero_copy_only=False)[order]]
    labels = pa.array([f"{encode_basestring(name)}:" for name in names], pa.string())
    labels = labels.take(pa.array(entries.key[order]))
    members = pc.binary_join_element_wise(labels, texts.take(pa.array(order)), "")
    counts = np.bincount(entries.row[order], minlength=n_rows)
    found = _enclosed("{", members, counts, "}")
    return pc.if_else(pa.array(counts > 0), found, _NOTHING)


def value_texts(
    data: bytes, names: Sequence[str], entries: Entries, tree: Tree, depth: int = 0
) -> pa.StringArray:
    """Write each value; null where the tree keeps nothing of it."""
    parts, orders = [], []
    for kind in np.unique(entries.kind).tolist():
        of_kind = np.flatnonzero(entries.kind == kind)
        for below, chosen in _by_subtree(of_kind, entries.key, names, tree):
            values = entries.value.at(chosen)
            if kind == NESTED:
                texts = _nested(data, values, below, depth)
            elif below is None:
                texts = _as_json(kind, scalars(data, kind, values))
            else:  # Only what lies below the field is wanted.
                texts = pa.nulls(len(chosen), pa.string())
            parts.append(texts)
            orders.append(chosen)
    return _merged(parts, orders)


def _by_subtree(
    chosen: Places, key: Places, names: Sequence[str], tree: Tree
) -> list[tuple[Tree, Places]]:
    """Sort entries by what is kept of them: those that are kept whole together."""
    if tree is None:
        return [(None, chosen)]
    numbers = [number for number, name in enumerate(names) if tree.get(name) is not None]
    found: list[tuple[Tree, Places]] = [(None, chosen[~np.isin(key[chosen], numbers)])]
    found += [(tree[names[number]], chosen[key[chosen] == number]) for number in numbers]
    return [(below, own) for below, own in found if len(own)]


def _merged(parts: list[pa.StringArray], orders: list[Places]) -> pa.StringArray:
    """Put parts into one array, each at its places."""
    if not parts:
        return pa.array([], pa.string())
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(orders))))


def _nested(data: bytes, values: Spans, tree: Tree, depth: int) -> pa.StringArray:
    """Write objects and lists."""
    inner = walk(data, values)
    is_alone = inner.are_alone() & (inner.wire_type == BYTES) & (depth < DEEPEST)
    structs = np.flatnonzero(is_alone & (inner.number == _STRUCT))
    lists = np.flatnonzero(is_alone & (inner.number == _LIST))
    parts, orders = [], []
    for write, chosen in ((_structs, structs), (_lists, lists)):
        if len(chosen):
            spans = Spans(np.arange(len(chosen)), inner.start[chosen], inner.stop[chosen])
            parts.append(write(data, spans, tree, depth + 1))
            orders.append(inner.message[chosen])
    others = np.setdiff1d(np.arange(len(values.start)), np.concatenate([[], *orders]))
    if len(others):
        parts.append(_one_by_one(data, values.at(others.astype(np.int64)), tree))
        orders.append(others)
    return _merged(parts, orders)


def _structs(data: bytes, structs: Spans, tree: Tree, depth: int) -> pa.StringArray:
    n_structs = len(structs.start)
    spans = walk(data, structs).of(_INSIDE)
    if not len(spans.start):
        return pa.array(["{}"] * n_structs, pa.string())
    names, entries = entries_of(data, spans)
    return pc.fill_null(objects(data, names, entries, n_structs, tree, depth), "{}")


def _lists(data: bytes, lists: Spans, tree: Tree, depth: int) -> pa.StringArray:
    items = walk(data, lists).of(_INSIDE)
    n_items = len(items.start)
    values = Spans(np.arange(n_items), items.start, items.stop)
    kind, place = kinds_of(data, values, n_items)
    if tree is None:
        whole = Entries(items.owner, np.zeros(n_items, dtype=np.int64), kind, place)
        owner, texts = items.owner, value_texts(data, [""], whole, None, depth)
    else:  # Paths go through the objects of a list.
        inside = np.flatnonzero(kind == NESTED)
        texts = _nested(data, values.at(inside), tree, depth)
        is_object = pc.fill_null(pc.starts_with(texts, "{"), False)
        texts = texts.filter(is_object)
        owner = items.owner[inside][is_object.to_numpy(zero_copy_only=False)]
    return _enclosed("[", texts, np.bincount(owner, minlength=len(lists.start)), "]")


def _enclosed(
    left: str, texts: pa.StringArray, counts: NDArray[np.int64], right: str
) -> pa.StringArray:
    """Join texts that follow each other by commas, as many to a row as `counts` says."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")
    return pc.binary_join_element_wise(left, joined, right, "")


def _one_by_one(data: bytes, values: Spans, tree: Tree) -> pa.StringArray:
    spans = zip(values.start.tolist(), values.stop.tolist(), strict=True)
    found = [_value(data[start:stop]) for start, stop in spans]
    return pa.array([_dumped(value, tree) for value in found], pa.string())


def _dumped(value: Any, tree: Tree) -> str | None:
    if tree is not None:
        if not isinstance(value, dict | list):
            return None
        value = prune(value, tree)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _as_json(kind: int, values: pa.Array) -> pa.StringArray:
    """Write scalars of one kind as JSON does."""
    if kind == STRING:
        return _quoted_all(values)
    if kind == DOUBLE:
        return pa.array(json.dumps(values.to_pylist())[1:-1].split(", "), pa.string())
    if kind == NULL:
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
