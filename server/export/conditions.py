"""The operators of the filter language and what value each takes.

Values arrive from a protobuf Struct, where every number is a double: 3.0 means the integer
3, and an integer beyond 2**53 - 1 was rounded on its way, so it is refused. Dates stay the
text they were sent as. Words of a text are runs of letters and digits, in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import re2

from server.export.dates import parse_instant
from server.export.geo import MAX_RADIUS_M, GeoBoundingBox, GeoPoint, GeoPolygon, GeoRadius

Scalar: TypeAlias = str | bool | int | float
Value: TypeAlias = Scalar | tuple[Scalar, ...] | GeoRadius | GeoBoundingBox | GeoPolygon

MAX_SAFE_INTEGER: Final = 2**53 - 1
MAX_VALUES: Final = 10_000
MAX_TEXT_CHARS: Final = 8192
MAX_REGEX_CHARS: Final = 1000
MAX_POLYGON_POINTS: Final = 1000
_REGEX_MEMORY_BYTES: Final = 8 << 20
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Condition:
    """One claim about a field: ``{field, operator, value}`` with the value as checked."""

    field: str
    operator: str
    value: Value
    case_sensitive: bool = False


class ValueFault(Exception):
    """Why a value is refused. `at` continues the path of the value, such as ``[2]``."""

    def __init__(self, message: str, at: str = "") -> None:
        super().__init__(message)
        self.at = at


def words(text: str) -> list[str]:
    """The words of a text in order, in lower case; marks and underscores separate."""
    return [word.lower() for word in _WORD.findall(text)]


@lru_cache(maxsize=256)
def compile_regex(pattern: str, case_sensitive: bool) -> Any:
    """Compile with RE2, whose time is linear in the text. Raises `re2.error`."""
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY_BYTES
    return re2.compile(pattern, options)


def sent(value: Any) -> str:
    """A value as its sender would write it, cut to a readable length."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _scalar(value: Any) -> Scalar:
    if value is None:
        raise ValueFault("null equals nothing; use operator is_null or exists")
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return _number(value)
    kind = "a list" if isinstance(value, list | tuple) else "an object"
    hint = "; use operator in for several values" if kind == "a list" else ""
    raise ValueFault(f"needs a string, a number or true/false, got {kind}{hint}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueFault(f"needs a string, got {sent(value)}")
    if len(value) > MAX_TEXT_CHARS:
        raise ValueFault(f"has {len(value)} characters, at most {MAX_TEXT_CHARS} are allowed")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueFault(f"needs a number, got {sent(value)}")
    if isinstance(value, float) and not value.is_integer():
        if value - value != 0:  # Only true of infinities and NaN.
            raise ValueFault(f"needs a finite number, got {sent(value)}")
        return value
    if abs(value) > MAX_SAFE_INTEGER:
        raise ValueFault(
            f"{sent(value)} is beyond 2**53 - 1 and was rounded on its way; "
            "store and send such ids as strings"
        )
    return int(value)


def _filled_text(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueFault("needs a string that is not empty; every string would match")
    return text


def _comparable(value: Any) -> int | float | str:
    if isinstance(value, str):
        if parse_instant(value) is None:
            raise ValueFault(
                f"needs a number or a date such as 2024-05-01T12:00:00Z, got {sent(value)}"
            )
        return value
    return _number(value)


def _scalars(value: Any) -> tuple[Scalar, ...]:
    if not isinstance(value, list | tuple):
        raise ValueFault(f"needs a list of values, got {sent(value)}; use eq or ne for one value")
    if not 1 <= len(value) <= MAX_VALUES:
        raise ValueFault(f"needs 1 to {MAX_VALUES} values, got {len(value)}")
    checked: list[Scalar] = []
    for position, item in enumerate(value):
        try:
            checked.append(_scalar(item))
        except ValueFault as fault:
            raise ValueFault(str(fault), at=f"[{position}]") from fault
    return tuple(checked)


def _claim(value: Any) -> bool:
    if value is None:  # Left out: {"field": "x", "operator": "exists"}.
        return True
    if not isinstance(value, bool):
        raise ValueFault(f"needs true or false, got {sent(value)}")
    return value


def _pattern(value: Any) -> str:
    pattern = _filled_text(value)
    if len(pattern) > MAX_REGEX_CHARS:
        raise ValueFault(f"has {len(pattern)} characters, at most {MAX_REGEX_CHARS} are allowed")
    try:
        compile_regex(pattern, True)
        compile_regex(pattern, False)
    except re2.error as error:
        detail = error.args[0] if error.args else error
        why = detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
        raise ValueFault(
            f"{sent(pattern)} is not a regular expression of RE2 ({why}); "
            "it has no look-around and no back-references"
        ) from error
    return pattern


def _query(value: Any) -> str:
    text = _text(value)
    if not words(text):
        raise ValueFault(f"needs at least one word, got {sent(value)}")
    return text


def _shape(value: Any, keys: Iterable[str], example: str) -> Mapping[str, Any]:
    wanted = set(keys)
    if not isinstance(value, Mapping) or set(value) != wanted:
        raise ValueFault(f"needs {example}, got {sent(value)}")
    return value


def _point(value: Any, at: str) -> GeoPoint:
    try:
        pair = _shape(value, ("lat", "lon"), '{"lat": 52.5, "lon": 13.4}')
        lat, lon = float(_number(pair["lat"])), float(_number(pair["lon"]))
    except ValueFault as fault:
        raise ValueFault(str(fault), at=at) from fault
    if not -90 <= lat <= 90:
        raise ValueFault(f"a latitude lies in -90 to 90, got {lat:g}", at=f"{at}.lat")
    if not -180 <= lon <= 180:
        raise ValueFault(f"a longitude lies in -180 to 180, got {lon:g}", at=f"{at}.lon")
    return GeoPoint(lat, lon)


def _radius(value: Any) -> GeoRadius:
    example = '{"center": {"lat": 52.5, "lon": 13.4}, "radius": 1000} (metres)'
    shape = _shape(value, ("center", "radius"), example)
    center = _point(shape["center"], ".center")
    try:
        radius = float(_number(shape["radius"]))
    except ValueFault as fault:
        raise ValueFault(str(fault), at=".radius") from fault
    if not 0 < radius <= MAX_RADIUS_M:
        raise ValueFault(
            f"a radius lies above 0 and at most {MAX_RADIUS_M:.0f} metres, got {radius:g}",
            at=".radius",
        )
    return GeoRadius(center, radius)


def _box(value: Any) -> GeoBoundingBox:
    corner = '{"lat": …, "lon": …}'
    shape = _shape(
        value,
        ("top_left", "bottom_right"),
        f'{{"top_left": {corner}, "bottom_right": {corner}}}',
    )
    box = GeoBoundingBox(
        _point(shape["top_left"], ".top_left"), _point(shape["bottom_right"], ".bottom_right")
    )
    if box.top_left.lat < box.bottom_right.lat:
        raise ValueFault(
            f"top_left lies south of bottom_right ({box.top_left.lat:g} < "
            f"{box.bottom_right.lat:g}); swap their latitudes"
        )
    return box


def _ring(value: Any, at: str) -> tuple[GeoPoint, ...]:
    if isinstance(value, Mapping) and set(value) == {"points"}:  # As Qdrant writes a ring.
        value = value["points"]
    if not isinstance(value, list | tuple) or not 3 <= len(value) <= MAX_POLYGON_POINTS:
        raise ValueFault(f"needs a list of 3 to {MAX_POLYGON_POINTS} places", at=at)
    return tuple(_point(item, f"{at}[{i}]") for i, item in enumerate(value))


def _polygon(value: Any) -> GeoPolygon:
    if not isinstance(value, Mapping) or "exterior" not in value:
        raise ValueFault(f'needs {{"exterior": [places], "interiors": [rings]}}, got {sent(value)}')
    if unknown := set(value) - {"exterior", "interiors"}:
        raise ValueFault(f"does not know {sorted(unknown)}; allowed: exterior, interiors")
    holes = value.get("interiors") or []
    if not isinstance(holes, list | tuple) or len(holes) > MAX_POLYGON_POINTS:
        raise ValueFault(f"needs at most {MAX_POLYGON_POINTS} rings", at=".interiors")
    return GeoPolygon(
        _ring(value["exterior"], ".exterior"),
        tuple(_ring(hole, f".interiors[{i}]") for i, hole in enumerate(holes)),
    )


OPERATORS: Final[Mapping[str, Callable[[Any], Value]]] = {
    "eq": _scalar,
    "ne": _scalar,
    "gt": _comparable,
    "lt": _comparable,
    "gte": _comparable,
    "lte": _comparable,
    "in": _scalars,
    "nin": _scalars,
    "contains": _filled_text,
    "starts_with": _filled_text,
    "ends_with": _filled_text,
    "regex": _pattern,
    "exists": _claim,
    "is_null": _claim,
    "text": _query,
    "phrase": _query,
    "words": _query,
    "geo_radius": _radius,
    "geo_bounding_box": _box,
    "geo_polygon": _polygon,
}
"""Each operator of the language with the check that its value passes, or `ValueFault`."""
