"""Qdrant's protobuf filters to Edge's. What Edge lacks is refused by name, never dropped."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import qdrant_edge as edge
from google.protobuf.timestamp_pb2 import Timestamp
from qdrant_client import grpc as pb

from server.qdrant.embedded.errors import BadRequestError, UnsupportedError

MAX_POINT_ID = 2**64 - 1


def edge_id(point_id: pb.PointId) -> edge.PointId:
    """A point id as Edge takes it: a number, or a UUID in its usual spelling."""
    if point_id.WhichOneof("point_id_options") == "num":
        return point_id.num
    try:
        return str(uuid.UUID(point_id.uuid))
    except ValueError:
        raise BadRequestError(
            f"Wrong input: point id {point_id.uuid!r} is neither a number nor a UUID"
        ) from None


def edge_filter(message: pb.Filter) -> edge.Filter:
    """Translate a filter with everything nested in it."""
    min_should = None
    if message.HasField("min_should"):
        min_should = edge.MinShould(
            _conditions(message.min_should.conditions), message.min_should.min_count
        )
    return edge.Filter(
        must=_conditions(message.must) or None,
        should=_conditions(message.should) or None,
        must_not=_conditions(message.must_not) or None,
        min_should=min_should,
    )


def optional_filter(message: Any) -> edge.Filter | None:
    """The `filter` field of a request, or None where it is not set."""
    return edge_filter(message.filter) if message.HasField("filter") else None


def _conditions(messages: Iterable[pb.Condition]) -> list[edge.ConditionType]:
    return [_condition(message) for message in messages]


def _condition(message: pb.Condition) -> edge.ConditionType:
    kind = message.WhichOneof("condition_one_of")
    if kind == "field":
        return _field(message.field)
    if kind == "filter":
        return edge_filter(message.filter)
    if kind == "has_id":
        return edge.HasIdCondition({edge_id(i) for i in message.has_id.has_id})
    if kind == "is_empty":
        return edge.IsEmptyCondition(message.is_empty.key)
    if kind == "is_null":
        return edge.IsNullCondition(message.is_null.key)
    if kind == "nested":
        return edge.NestedCondition(message.nested.key, edge_filter(message.nested.filter))
    if kind == "has_vector":
        return edge.HasVectorCondition(message.has_vector.has_vector)
    if kind is None:
        raise BadRequestError("Wrong input: a filter condition is empty")
    raise UnsupportedError(f"filter condition {kind!r} is not supported by the embedded Qdrant")


_FIELD_PARTS: dict[str, Callable[[Any], Any]] = {}


def _field(message: pb.FieldCondition) -> edge.FieldCondition:
    arguments: dict[str, Any] = {}
    for part, value in message.ListFields():
        if part.name == "key":
            continue
        if part.name == "range" or part.name == "datetime_range":
            if "range" in arguments:
                raise BadRequestError(
                    f"Wrong input: condition on {message.key!r} has two kinds of range"
                )
            arguments["range"] = _FIELD_PARTS[part.name](value)
        elif part.name in ("is_empty", "is_null"):
            arguments[part.name] = value
        else:
            arguments[part.name] = _FIELD_PARTS[part.name](value)
    if not arguments:
        raise BadRequestError(f"Wrong input: condition on {message.key!r} asks for nothing")
    return edge.FieldCondition(key=message.key, **arguments)


def _match(message: pb.Match) -> edge.MatchType:
    kind = message.WhichOneof("match_value")
    if kind == "boolean":
        # Edge takes a Python bool for the number 0 or 1; NumPy's it reads rightly.
        return edge.MatchValue(np.bool_(message.boolean))  # type: ignore[arg-type]
    if kind is None:
        raise BadRequestError("Wrong input: a match condition is empty")
    return _MATCHES[kind](getattr(message, kind))


_MATCHES: dict[str, Callable[[Any], edge.MatchType]] = {
    "keyword": edge.MatchValue,
    "integer": edge.MatchValue,
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
    "prefix": edge.MatchPrefix,
    "substring": edge.MatchSubstring,
    "keywords": lambda m: edge.MatchAny(list(m.strings)),
    "integers": lambda m: edge.MatchAny(list(m.integers)),
    "except_keywords": lambda m: edge.MatchExcept(list(m.strings)),
    "except_integers": lambda m: edge.MatchExcept(list(m.integers)),
}


def _bounds(message: Any, convert: Callable[[Any], Any]) -> dict[str, Any]:
    return {bound.name: convert(value) for bound, value in message.ListFields()}


def rfc3339(stamp: Timestamp) -> str:
    """A protobuf time as text, to the nanosecond."""
    text: str = stamp.ToJsonString()
    return text


def _geo_point(message: pb.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(message.lon, message.lat)


def _polygon(message: pb.GeoPolygon) -> edge.GeoPolygon:
    return edge.GeoPolygon(
        [_geo_point(p) for p in message.exterior.points],
        [[_geo_point(p) for p in line.points] for line in message.interiors],
    )


_FIELD_PARTS |= {
    "match": _match,
    "range": lambda m: edge.RangeFloat(**_bounds(m, float)),
    "datetime_range": lambda m: edge.RangeDateTime(**_bounds(m, rfc3339)),
    "values_count": lambda m: edge.ValuesCount(**_bounds(m, int)),
    "geo_bounding_box": lambda m: edge.GeoBoundingBox(
        _geo_point(m.top_left), _geo_point(m.bottom_right)
    ),
    "geo_radius": lambda m: edge.GeoRadius(_geo_point(m.center), m.radius),
    "geo_polygon": _polygon,
}
