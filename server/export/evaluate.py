"""Does a payload pass a filter? The exact answer, whatever Qdrant was asked before.

A condition looks at the elements of its field: those of an array, else the one value. It
holds when any element does what the operator says; on a missing field (or an empty array)
it is false, except `ne` and `nin`. `exists` asks for the key alone, whatever stands there.
`is_null: true` holds for a missing field, for null, and for an array with a null in it;
`is_null: false` for any other value that is there.

Numbers never equal strings, and true is not 1. Where both sides are dates, `eq`, `ne`,
`in`, `nin` and the comparisons look at the instants. Without `case_sensitive`, strings are
compared casefolded. `regex` searches anywhere in the string. `text` wants every word of
the query in the string, `words` any of them, `phrase` all of them in a row; case and
punctuation never count there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from server.export.conditions import Condition, Scalar, compile_regex, words
from server.export.dates import parse_instant
from server.export.filters import Filter
from server.export.geo import GeoBoundingBox, GeoPolygon, GeoRadius, payload_point
from server.export.paths import elements, found, split_path

Predicate: TypeAlias = Callable[[Mapping[str, Any]], bool]
ElementTest: TypeAlias = Callable[[Any], bool]

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def matches(filter: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether a document with this payload passes the filter."""
    return compile_filter(filter)(payload)


def compile_filter(filter: Filter) -> Predicate:
    """The filter as a function of a payload, for many documents.

    Not cached by the filter: to Python a claim on 1 equals a claim on True.
    """
    every = [_compile(item) for item in filter.all_of]
    some = [_compile(item) for item in filter.any_of]
    none = [_compile(item) for item in filter.none_of]

    def passes(payload: Mapping[str, Any]) -> bool:
        return (
            all(test(payload) for test in every)
            and (not some or any(test(payload) for test in some))
            and not any(test(payload) for test in none)
        )

    return passes


def _compile(item: Filter | Condition) -> Predicate:
    if isinstance(item, Filter):
        return compile_filter(item)
    keys = split_path(item.field)
    if item.operator == "exists":
        return lambda payload: bool(found(payload, keys)) == item.value
    if item.operator == "is_null":
        claim = _is_null if item.value else _is_not_null
        return lambda payload: claim(found(payload, keys))
    test = _element_test(item)
    if item.operator in ("ne", "nin"):

        def differs(payload: Mapping[str, Any]) -> bool:
            values = elements(found(payload, keys))
            return not values or any(not test(value) for value in values)

        return differs
    return lambda payload: any(test(value) for value in elements(found(payload, keys)))


def _is_null(values: list[Any]) -> bool:
    if not values:
        return True
    return any(v is None or (isinstance(v, list) and None in v) for v in values)


def _is_not_null(values: list[Any]) -> bool:
    for value in values:
        if isinstance(value, list):
            if not value or any(item is not None for item in value):
                return True
        elif value is not None:
            return True
    return False


def _element_test(condition: Condition) -> ElementTest:
    value: Any = condition.value
    name = condition.operator
    match name:
        case "eq" | "ne":
            return _equals_any((value,), condition.case_sensitive)
        case "in" | "nin":
            return _equals_any(value, condition.case_sensitive)
        case "gt" | "gte" | "lt" | "lte":
            return _compares(_COMPARISONS[name], value)
        case "contains" | "starts_with" | "ends_with":
            return _holds_text(name, value, condition.case_sensitive)
        case "regex":
            regex = compile_regex(value, condition.case_sensitive)
            return lambda item: isinstance(item, str) and regex.search(item) is not None
        case "text" | "words" | "phrase":
            return _holds_words(name, words(value))
        case _:
            return _holds_place(value)


def _equals_any(values: tuple[Scalar, ...], case_sensitive: bool) -> ElementTest:
    texts = [v for v in values if isinstance(v, str)]
    folded = set(texts) if case_sensitive else {text.casefold() for text in texts}
    instants = {i for i in map(parse_instant, texts) if i is not None}
    flags = {v for v in values if isinstance(v, bool)}
    numbers = {v for v in values if not isinstance(v, str | bool)}

    def equals(item: Any) -> bool:
        if isinstance(item, str):
            if (item if case_sensitive else item.casefold()) in folded:
                return True
            return bool(instants) and parse_instant(item) in instants
        if isinstance(item, bool):
            return item in flags
        return isinstance(item, int | float) and item in numbers

    return equals


def _compares(compare: Callable[[Any, Any], bool], value: Any) -> ElementTest:
    if isinstance(value, str):
        bound = parse_instant(value)

        def compares_instant(item: Any) -> bool:
            instant = parse_instant(item) if isinstance(item, str) else None
            return instant is not None and compare(instant, bound)

        return compares_instant
    return lambda item: (
        isinstance(item, int | float) and not isinstance(item, bool) and compare(item, value)
    )


def _holds_text(name: str, value: str, case_sensitive: bool) -> ElementTest:
    wanted = value if case_sensitive else value.casefold()
    tests: dict[str, Callable[[str, str], bool]] = {
        "contains": lambda text, part: part in text,
        "starts_with": lambda text, part: text.startswith(part),
        "ends_with": lambda text, part: text.endswith(part),
    }
    holds = tests[name]
    if case_sensitive:
        return lambda item: isinstance(item, str) and holds(item, wanted)
    return lambda item: isinstance(item, str) and holds(item.casefold(), wanted)


def _holds_words(name: str, wanted: list[str]) -> ElementTest:
    if name == "words":
        return lambda item: isinstance(item, str) and not set(wanted).isdisjoint(words(item))
    if name == "text":
        return lambda item: isinstance(item, str) and set(wanted).issubset(words(item))
    # A word holds no space, so spaces around mark whole words.
    row = f" {' '.join(wanted)} "
    return lambda item: isinstance(item, str) and row in f" {' '.join(words(item))} "


def _holds_place(shape: GeoRadius | GeoBoundingBox | GeoPolygon) -> ElementTest:
    def holds(item: Any) -> bool:
        point = payload_point(item)
        return point is not None and shape.holds(point)

    return holds
