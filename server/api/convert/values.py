"""The values that messages share: free-form JSON, times and error infos."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf import json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from server.errors import InvalidRequestError, Violation
from server.jobs.model import RunError

DOMAIN = "shoal"
"""Of every `google.rpc.ErrorInfo` that this service sends."""

_LARGEST_EXACT = 2.0**63
"""Beyond it a whole double stays a float: as an int it would pretend to hundreds of digits."""


def json_of(message: Message) -> dict[str, Any]:
    """Give what was sent in a message as JSON, under the fields' own names.

    Unlike protobuf's own JSON, whole numbers of a Struct become ints: ``n_clusters: 8`` is
    what the caller wrote, 8.0 only how it travelled.

    Raises
    ------
    InvalidRequestError
        If a Struct holds NaN or an infinity, which JSON has not; names each place.
    """
    violations: list[Violation] = []
    body = _message(message, "", violations)
    if violations:
        raise InvalidRequestError(violations)
    return body


def _message(message: Message, path: str, violations: list[Violation]) -> dict[str, Any]:
    return {
        field.name: _field(field, value, f"{path}{field.name}", violations)
        for field, value in message.ListFields()
    }


def _field(field: FieldDescriptor, value: Any, path: str, violations: list[Violation]) -> Any:
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.is_repeated:
        return [_part(item, f"{path}[{i}]", violations) for i, item in enumerate(value)]
    return _part(value, path, violations)


def _part(message: Message, path: str, violations: list[Violation]) -> dict[str, Any]:
    if isinstance(message, struct_pb2.Struct):
        return _struct(message, path, violations)
    return _message(message, f"{path}.", violations)


def _struct(struct: struct_pb2.Struct, path: str, violations: list[Violation]) -> dict[str, Any]:
    return {
        name: _value(value, f"{path}.{name}", violations) for name, value in struct.fields.items()
    }


def _value(value: struct_pb2.Value, path: str, violations: list[Violation]) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            return _number(value.number_value, path, violations)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _struct(value.struct_value, path, violations)
        case "list_value":
            items = value.list_value.values
            return [_value(item, f"{path}[{i}]", violations) for i, item in enumerate(items)]
        case _:
            return None


def _number(number: float, path: str, violations: list[Violation]) -> int | float:
    if not math.isfinite(number):
        violations.append(Violation(path, f"sent {number}; a finite number is allowed"))
        return 0
    return int(number) if number.is_integer() and abs(number) < _LARGEST_EXACT else number


def struct_of(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Make a Struct; numbers that JSON has not (an undefined metric) become null."""
    return json_format.ParseDict(_finite(values), struct_pb2.Struct())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def time_of(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    """Make a Timestamp of an aware datetime."""
    if moment is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def error_info(error: RunError | None) -> error_details_pb2.ErrorInfo | None:
    """Say why a run failed, for programs."""
    if error is None:
        return None
    return error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)


def required(request: Any, *names: str, others: Iterable[Violation] = ()) -> None:
    """Refuse a request that leaves one of these fields empty; says all, and `others` too."""
    violations = [*_missing(request, names), *others]
    if violations:
        raise InvalidRequestError(violations)


def _missing(request: Any, names: Sequence[str]) -> Iterator[Violation]:
    for name in names:
        if not getattr(request, name):
            yield Violation(name, "required")
