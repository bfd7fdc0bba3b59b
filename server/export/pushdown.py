"""Split a filter into what Qdrant checks during the scroll and what is checked on the rows.

The rule: a row that passes the whole filter always passes the part that is pushed; and
`residual` is None only when the pushed part decides alone. So a condition is pushed as it
is where Qdrant agrees to the letter, in a wider form where that narrows the scroll (dates,
places, null), and not at all otherwise:

- A list inside AND may be narrowed child by child; OR needs something to push for every
  child; NOT may only be pushed for children on which Qdrant agrees exactly.
- Equality with a number is sent as a range, because Qdrant's exact match never finds the
  payload 3.0 by 3. An integer index does not hold 3.5 or 3.0: such fields are not pushed.
- Equality of strings ignores case by default, which Qdrant cannot do. Where all stored
  spellings of a value are known (`variants`, from a facet of a keyword index), the match
  is sent with them and is exact.
- `ne` and `nin` hold for missing fields and for any differing element of any type: kept.
- Text matching depends on the server's version and the index's tokenizer: kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias

from qdrant_client import models

from server.export.conditions import Condition, Scalar
from server.export.dates import instant_to_datetime, parse_instant
from server.export.filters import Filter
from server.export.geo import MAX_RADIUS_M, GeoBoundingBox, GeoPoint, GeoPolygon, GeoRadius
from server.export.paths import qdrant_spellings

Variants: TypeAlias = Callable[[str, str], Sequence[str] | None]
_NOTHING: Final = models.HasIdCondition(has_id=[])
_MAX_MATCHED: Final = 1000
_SLACK_DEGREES: Final = 1e-4
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Pushdown:
    """What to send to Qdrant, and what is left to check; None where there is nothing."""

    qdrant: models.Filter | None
    residual: Filter | None


@dataclass(frozen=True)
class _Part:
    """A Qdrant filter that is implied by ours (None: all rows), and whether it is equal."""

    sent: models.Filter | None = None
    exact: bool = False


_KEPT: Final = _Part()


@dataclass(frozen=True)
class _Known:
    """What is known of the collection."""

    indexes: Mapping[str, str] = field(default_factory=dict)
    variants: Variants | None = None


def push_down(
    filter: Filter,
    indexes: Mapping[str, str] | None = None,
    *,
    variants: Variants | None = None,
) -> Pushdown:
    """Split a filter for one collection.

    Parameters
    ----------
    filter : Filter
        The whole filter.
    indexes : mapping of str to str
        Payload indexes of the collection: field path as Qdrant spells it, and its type in
        Qdrant's words (keyword, integer, float, bool, datetime, uuid, geo, text).
    variants : callable, optional
        ``variants(field, value)`` gives all stored strings of a keyword-indexed field that
        equal `value` when case is ignored, or None when it cannot know all of them.
    """
    if filter.is_empty:
        return Pushdown(None, None)
    known = _Known(indexes or {}, variants)
    must: list[Any] = []
    must_not: list[Any] = []
    keep_all: list[Filter | Condition] = []
    keep_none: list[Filter | Condition] = []
    for item in filter.all_of:
        part = _push(item, known)
        if part.sent is not None:
            must.append(part.sent)
        if not part.exact:
            keep_all.append(item)
    some = _push_any(filter.any_of, known) if filter.any_of else _Part(exact=True)
    if some.sent is not None:
        must.append(some.sent)
    for item in filter.none_of:
        part = _push(item, known)
        if part.exact and part.sent is not None:
            must_not.append(part.sent)
        else:
            keep_none.append(item)
    residual = Filter(tuple(keep_all), () if some.exact else filter.any_of, tuple(keep_none))
    sent = models.Filter(must=must or None, must_not=must_not or None)
    return Pushdown(sent if must or must_not else None, None if residual.is_empty else residual)


def _push(item: Filter | Condition, known: _Known) -> _Part:
    if isinstance(item, Condition):
        return _push_condition(item, known)
    inner = push_down(item, known.indexes, variants=known.variants)
    return _Part(inner.qdrant, inner.residual is None)


def _push_any(items: Sequence[Filter | Condition], known: _Known) -> _Part:
    parts = [_push(item, known) for item in items]
    sent = [part.sent for part in parts if part.sent is not None]
    if len(sent) < len(parts):
        return _KEPT
    return _Part(models.Filter(should=list(sent)), all(part.exact for part in parts))


def _push_condition(condition: Condition, known: _Known) -> _Part:
    spellings = qdrant_spellings(condition.field)
    if spellings is None:
        return _KEPT
    value: Any = condition.value
    match condition.operator:
        case "eq":
            return _push_equals((value,), spellings, condition.case_sensitive, known)
        case "in":
            return _push_equals(value, spellings, condition.case_sensitive, known)
        case "gt" | "gte" | "lt" | "lte":
            return _push_range(condition.operator, value, spellings, known)
        case "is_null" | "exists":
            return _push_absence(condition.operator, value, spellings)
        case "geo_radius" | "geo_bounding_box" | "geo_polygon":
            return _push_place(value, spellings, known)
        case _:
            return _KEPT


def _any_field(spellings: Sequence[str], exact: bool, **claims: Any) -> _Part:
    conditions: list[Any] = [models.FieldCondition(key=key, **claims) for key in spellings]
    return _Part(models.Filter(should=conditions), exact)


def _index_allows(spellings: Sequence[str], known: _Known, *kinds: str) -> bool:
    """Whether Qdrant looks at all values of the field: no index, or one that holds them."""
    return all(known.indexes.get(key, "none") in ("none", *kinds) for key in spellings)


def _push_equals(
    values: Sequence[Scalar], spellings: Sequence[str], case: bool, known: _Known
) -> _Part:
    parts = []
    texts: list[str] = []
    for value in values:
        if isinstance(value, bool):
            if not _index_allows(spellings, known, "bool"):
                return _KEPT
            parts.append(_any_field(spellings, True, match=models.MatchValue(value=value)))
        elif not isinstance(value, str):
            if not _index_allows(spellings, known, "float"):
                return _KEPT
            same = models.Range(gte=value, lte=value)
            parts.append(_any_field(spellings, True, range=same))
        elif parse_instant(value) is not None:
            parts.append(_push_range("eq", value, spellings, known))
        else:
            stored = _stored_texts(value, spellings, case, known)
            if stored is None:
                return _KEPT
            texts.extend(stored)
        if len(parts) > _MAX_MATCHED or len(texts) > _MAX_MATCHED:
            return _KEPT
    if texts:
        parts.append(_any_field(spellings, True, match=models.MatchAny(any=sorted(set(texts)))))
    sent = [part.sent for part in parts if part.sent is not None]
    if len(sent) < len(parts):
        return _KEPT
    should: list[Any] = list(sent) or [_NOTHING]
    return _Part(models.Filter(should=should), all(part.exact for part in parts))


def _stored_texts(
    value: str, spellings: Sequence[str], case: bool, known: _Known
) -> Sequence[str] | None:
    """All strings that Qdrant must match for this value; None when they are not known."""
    if not _index_allows(spellings, known, "keyword"):
        return None
    if case or (value.isascii() and value.upper() == value.lower()):
        return (value,)
    if known.variants is None:
        return None
    stored: list[str] = []
    for key in spellings:
        if known.indexes.get(key) != "keyword":
            return None
        spelled = known.variants(key, value)
        if spelled is None:
            return None
        stored.extend(spelled)
    return stored


def _push_range(
    operator: str, value: int | float | str, spellings: Sequence[str], known: _Known
) -> _Part:
    if isinstance(value, str):
        return _push_dates(operator, value, spellings, known)
    if not _index_allows(spellings, known, "float"):
        return _KEPT
    return _any_field(spellings, True, range=models.Range(**{operator: value}))


def _push_dates(operator: str, value: str, spellings: Sequence[str], known: _Known) -> _Part:
    """A date range a little wider than asked: Qdrant keeps microseconds, we nanoseconds."""
    instant = parse_instant(value)
    bound = None if instant is None else instant_to_datetime(instant)
    if bound is None or not 1 < bound.year < 9999:
        return _KEPT
    if not _index_allows(spellings, known, "datetime"):
        return _KEPT
    limits = {}
    if operator in ("gt", "gte", "eq"):
        limits["gte"] = bound - _MICROSECOND
    if operator in ("lt", "lte", "eq"):
        limits["lte"] = bound + _MICROSECOND
    return _any_field(spellings, False, range=models.DatetimeRange(**limits))


def _push_absence(operator: str, value: bool, spellings: Sequence[str]) -> _Part:
    """Missing fields are empty in Qdrant's sense, and so are null and []: a wider form."""
    if value == (operator == "exists"):
        return _KEPT
    key = spellings[0]
    absent: list[Any] = [models.IsEmptyCondition(is_empty=models.PayloadField(key=key))]
    if operator == "is_null":
        absent.extend(
            models.IsNullCondition(is_null=models.PayloadField(key=spelling))
            for spelling in spellings
        )
    return _Part(models.Filter(should=absent), False)


def _push_place(
    shape: GeoRadius | GeoBoundingBox | GeoPolygon, spellings: Sequence[str], known: _Known
) -> _Part:
    """A shape a little wider than asked, so that no rounding decides; polygons as a box."""
    if not _index_allows(spellings, known, "geo"):
        return _KEPT
    if isinstance(shape, GeoRadius):
        wider = shape.radius_m * 1.001 + 1.0
        if wider >= MAX_RADIUS_M / 2:
            return _KEPT
        circle = models.GeoRadius(center=_place(shape.center), radius=wider)
        return _any_field(spellings, False, geo_radius=circle)
    if isinstance(shape, GeoBoundingBox):
        north_west, south_east = shape.top_left, shape.bottom_right
    else:
        lats = [point.lat for point in shape.exterior]
        lons = [point.lon for point in shape.exterior]
        north_west = GeoPoint(max(lats), min(lons))
        south_east = GeoPoint(min(lats), max(lons))
    top, left = north_west.lat + _SLACK_DEGREES, north_west.lon - _SLACK_DEGREES
    bottom, right = south_east.lat - _SLACK_DEGREES, south_east.lon + _SLACK_DEGREES
    if top > 90 or bottom < -90 or left < -180 or right > 180:
        return _KEPT  # A box cannot be widened over the edge of the map.
    box = models.GeoBoundingBox(
        top_left=models.GeoPoint(lat=top, lon=left),
        bottom_right=models.GeoPoint(lat=bottom, lon=right),
    )
    return _any_field(spellings, False, geo_bounding_box=box)


def _place(point: GeoPoint) -> models.GeoPoint:
    return models.GeoPoint(lat=point.lat, lon=point.lon)
