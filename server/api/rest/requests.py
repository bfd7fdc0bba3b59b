"""A REST request as it was sent: its route, and every fault of its path, query and body."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import FieldDescriptor

from server.api.rest.fields import fault_of_text, faults_of_object, field_of, unknown_name
from server.api.rest.routes import Route
from server.errors import InvalidRequestError, Violation
from server.requests import shorten


def check_request(route: Route, path: str, query: str, body: bytes) -> None:
    """Check the names and types in a request.

    Parameters
    ----------
    path, query : str
        As sent, with their percent signs.

    Raises
    ------
    InvalidRequestError
        With every fault.
    """
    violations: list[Violation] = []
    in_path = dict(_path_fields(route, path, violations))
    in_query = _faults_of_query(route, query, violations)
    if route.has_body:
        _check_body(route, body, in_path | in_query, violations)
    elif body.strip():
        violations.append(Violation("body", "this call takes none; send its fields in the query"))
    if violations:
        raise InvalidRequestError(violations)


def _path_fields(route: Route, path: str, violations: list[Violation]) -> Iterator[tuple[str, str]]:
    for own, sent in zip(route.segments, path.removeprefix("/").split("/"), strict=True):
        if own.startswith("{"):
            yield own[1:-1], _decoded(sent, f"path.{own[1:-1]}", violations)


def _faults_of_query(route: Route, query: str, violations: list[Violation]) -> dict[str, str]:
    """Note the faults of the query, and give its values by their names."""
    values: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        raw_name, _, raw_value = pair.replace("+", " ").partition("=")
        name = _decoded(raw_name, "query", violations)
        value = _decoded(raw_value, f"query.{name}", violations)
        field, fault = _query_field(route, name)
        if fault is None and field is not None:
            fault = fault_of_text(value, field, name)
            if name in values and not field.is_repeated:
                fault = Violation(name, f"sent twice: {shorten(values[name])}, {shorten(value)}")
        if fault is not None:
            violations.append(fault)
        values[name] = value
    return values


def _query_field(route: Route, name: str) -> tuple[FieldDescriptor | None, Violation | None]:
    """Find the field that a parameter such as ``sort.field`` names."""
    message, field = route.request, None
    *outer, last = name.split(".")
    for part in (*outer, last):
        field = field_of(message, part)
        if field is None or (part != last and field.message_type is None):
            return None, unknown_name(name, part, message.fields_by_name)
        if field.message_type is not None:
            message = field.message_type
    if name in route.bound:
        return field, Violation(name, "stands in the path already; leave it out of the query")
    if field is not None and field.message_type is not None:
        return field, Violation(name, "is an object, which only a body can hold")
    return field, None


def _check_body(
    route: Route, raw: bytes, elsewhere: dict[str, str], violations: list[Violation]
) -> None:
    try:
        body = _json(raw)
    except ValueError as error:
        violations.append(Violation("body", f"is no JSON: {error}"))
        return
    violations += faults_of_object(body, route.request)
    for name in elsewhere if isinstance(body, dict) else ():
        if name in body and body[name] is not None and body[name] != elsewhere[name]:
            violations.append(
                Violation(name, f"sent as {shorten(elsewhere[name])} and {shorten(body[name])}")
            )


def _json(raw: bytes) -> Any:
    """Read a body; none at all is the empty object.

    Raises
    ------
    ValueError
        If it is no JSON, in UTF-8, or nested too deep to be read.
    """
    try:
        if not raw:
            return {}
        return json.loads(raw.decode(), parse_constant=_refuse, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{shorten(twice)} stands twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _decoded(raw: str, where: str, violations: list[Violation]) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        violations.append(Violation(where, f"sent {raw!r}; UTF-8 is allowed"))
        return ""
