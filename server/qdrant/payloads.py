"""Python values as Qdrant's protobuf payload values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdrant_client import grpc as pb


def to_value(value: Any) -> pb.Value:
    """A JSON-like Python value as a payload value."""
    if isinstance(value, str):
        return pb.Value(string_value=value)
    if isinstance(value, bool):
        return pb.Value(bool_value=value)
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return pb.Value(integer_value=value)
        return pb.Value(double_value=float(value))
    if isinstance(value, float):
        return pb.Value(double_value=value)
    if value is None:
        return pb.Value(null_value=pb.NullValue.NULL_VALUE)
    if isinstance(value, Mapping):
        return pb.Value(struct_value=pb.Struct(fields=to_payload(value)))
    return pb.Value(list_value=pb.ListValue(values=[to_value(item) for item in value]))


def to_payload(payload: Mapping[str, Any]) -> dict[str, pb.Value]:
    """A dict as a payload."""
    return {key: to_value(value) for key, value in payload.items()}
