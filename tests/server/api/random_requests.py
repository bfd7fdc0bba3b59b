"""Random requests: messages of any type, from words that mean something and from noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from google.protobuf import message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from server.export.conditions import OPERATORS

MAX_DEPTH = 4

NUMBERS = st.one_of(
    st.integers(-3, 12),
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.sampled_from([0, -1, 2**31, 2**53, 2**53 + 1, 2.0**63, 1e308, -0.0, math.nan]),
)
TEXTS = st.one_of(
    st.sampled_from(
        [
            "", " ", "kmeans", "hdbscan", "auto", "vector", "attribute", "category", "cl_0",
            "cl_noise", "parquet", "csv", "full", "assign", "completed", "PENDING", "..", "../x",
            "a__b", "%s%n", "' OR 1=1 --", "$where", "{namespace_id}", "mixpeek://a@v1/b",
            "x" * 5000, "\u202e", "\x00", "(a+)+$", "[", "2024-01-01T00:00:00Z", "a.b[].c",
        ]
    ),
    st.text(max_size=20),
)  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
CONDITIONS = st.fixed_dictionaries(
    {"field": st.one_of(st.sampled_from(["category", "metadata.title", "a[]"]), TEXTS)},
    optional={"operator": st.one_of(st.sampled_from(sorted(OPERATORS)), TEXTS), "value": JSON},
)
FILTERS = st.recursive(
    st.one_of(CONDITIONS, st.dictionaries(TEXTS, JSON, max_size=2)),
    lambda inner: st.dictionaries(
        st.sampled_from(["AND", "OR", "NOT", "case_sensitive"]),
        st.one_of(st.lists(inner, max_size=3), JSON),
        max_size=3,
    ),
    max_leaves=6,
)


@st.composite
def messages(draw: st.DrawFn, kind: Descriptor, names: Sequence[str], depth: int = 0) -> Message:
    """Draw a message of a type; `names` are ids and names that exist."""
    message: Any = message_factory.GetMessageClass(kind)()
    if kind.full_name == "google.protobuf.Struct":
        fill_struct(message, draw(st.one_of(FILTERS, st.dictionaries(TEXTS, JSON, max_size=4))))
        return message
    for field in kind.fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        if field.is_repeated:
            for _ in range(draw(st.integers(0, 2))):
                _add(message, field, draw(_values(field, names, depth)))
        else:
            _set(message, field, draw(_values(field, names, depth)))
    return message


def _values(field: FieldDescriptor, names: Sequence[str], depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        if depth >= MAX_DEPTH:
            return st.none()
        return messages(field.message_type, names, depth + 1)
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: st.one_of(st.sampled_from(list(names)), TEXTS),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_UINT32: st.sampled_from([0, 1, 2, 7, 1000, 2**31, 2**32 - 1]),
        FieldDescriptor.CPPTYPE_INT32: st.sampled_from([0, 1, -1, -(2**31), 2**31 - 1]),
        FieldDescriptor.CPPTYPE_INT64: st.sampled_from([0, 1, -1, 2**62]),
        FieldDescriptor.CPPTYPE_DOUBLE: NUMBERS.map(float),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
        FieldDescriptor.CPPTYPE_ENUM: st.just(0),
    }
    return kinds[field.cpp_type]


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    elif value is not None:
        setattr(message, field.name, value)


def _add(message: Any, field: FieldDescriptor, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, field.name).add().CopyFrom(value)
    elif value is not None:
        getattr(message, field.name).append(value)


def fill_struct(struct: struct_pb2.Struct, body: dict[str, Any]) -> None:
    """Lay JSON into a Struct, also what no Struct's own JSON form takes."""
    for name, value in body.items():
        _fill_value(struct.fields[name], value)


def _fill_value(value: struct_pb2.Value, body: Any) -> None:
    """Lay JSON into a Value, non-finite numbers too, which the JSON form cannot carry."""
    if body is None:
        value.null_value = struct_pb2.NULL_VALUE
    elif isinstance(body, bool):
        value.bool_value = body
    elif isinstance(body, int | float):
        value.number_value = float(body)
    elif isinstance(body, str):
        value.string_value = body
    elif isinstance(body, list):
        value.list_value.SetInParent()
        for part in body:
            _fill_value(value.list_value.values.add(), part)
    else:
        value.struct_value.SetInParent()
        fill_struct(value.struct_value, body)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw bytes that were a message once: cut, overwritten, doubled."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0:
                del raw[at:]
            case 1 if raw:
                raw[at] = draw(st.integers(0, 255))
            case 2:
                raw[at:at] = draw(st.binary(max_size=16))
            case _:
                raw += raw[at:]
    return bytes(raw[:100_000])
