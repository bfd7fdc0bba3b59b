"""Checks of names and types in a REST request against the descriptors of its message.

The gateway drops names that it does not know, at any depth, and refuses a value of a wrong
type with the first one only: so both are found here, all at once, from what was sent. What a
value may be is checked later, by the call itself.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from server.errors import Violation
from server.requests import shorten

_FREE_FORM = "google.protobuf.Struct"
_INTEGERS = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
}


def faults_of_object(sent: Any, message: Descriptor, path: str = "") -> Iterator[Violation]:
    """Find the faults of a JSON value that stands for a message.

    Parameters
    ----------
    path : str
        Where the value stands in the request; empty for the request itself.
    """
    if not isinstance(sent, Mapping):
        yield _wrong(path or "request", sent, "a JSON object")
        return
    for name, value in sent.items():
        field = field_of(message, name)
        where = f"{path}.{name}".lstrip(".")
        if field is None:
            yield unknown_name(where, name, message.fields_by_name)
        elif value is not None:
            yield from _faults_of_field(value, field, where)


def field_of(message: Descriptor, name: str) -> FieldDescriptor | None:
    """Find a field by either of the names that protobuf's JSON has for it."""
    field = message.fields_by_name.get(name)
    return field or message.fields_by_camelcase_name.get(name)


def unknown_name(where: str, name: str, known: Iterable[str]) -> Violation:
    """Refuse a name, with the nearest right one, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    if close:
        return Violation(where, f"unknown name; did you mean {close[0]}?")
    return Violation(where, f"unknown name; known here: {', '.join(names)}")


def fault_of_text(text: str, field: FieldDescriptor, where: str) -> Violation | None:
    """Find the fault of a query parameter's value."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            return _wrong(where, text, "true or false")
    elif field.cpp_type in _INTEGERS:
        if not text.isascii() or not text.isdigit():
            return _wrong(where, text, _integer(field))
        return _fault_of_scalar(int(text[:20]), field, where)
    elif field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        try:
            is_number = math.isfinite(float(text))
        except ValueError:
            is_number = False
        if not is_number:
            return _wrong(where, text, "a number")
    return None


def _faults_of_field(sent: Any, field: FieldDescriptor, where: str) -> Iterator[Violation]:
    if not field.is_repeated:
        yield from _faults_of_part(sent, field, where)
    elif isinstance(sent, Sequence) and not isinstance(sent, str):
        for i, part in enumerate(sent):
            yield from _faults_of_part(part, field, f"{where}[{i}]")
    else:
        yield _wrong(where, sent, "a JSON array")


def _faults_of_part(sent: Any, field: FieldDescriptor, where: str) -> Iterator[Violation]:
    if field.message_type is None:
        if fault := _fault_of_scalar(sent, field, where):
            yield fault
    elif field.message_type.full_name == _FREE_FORM:
        if not isinstance(sent, Mapping):
            yield _wrong(where, sent, "a JSON object")
    else:
        yield from faults_of_object(sent, field.message_type, where)


def _fault_of_scalar(sent: Any, field: FieldDescriptor, where: str) -> Violation | None:
    is_number = isinstance(sent, int | float) and not isinstance(sent, bool)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return None if isinstance(sent, str) else _wrong(where, sent, "a string")
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return None if isinstance(sent, bool) else _wrong(where, sent, "true or false")
    if field.cpp_type not in _INTEGERS:
        return None if is_number else _wrong(where, sent, "a number")
    low, high = _INTEGERS[field.cpp_type]
    if is_number and low <= sent <= high and float(sent).is_integer():
        return None
    return _wrong(where, sent, _integer(field))


def _integer(field: FieldDescriptor) -> str:
    low, high = _INTEGERS[field.cpp_type]
    return f"a whole number from {low} to {high}"


def _wrong(where: str, sent: Any, allowed: str) -> Violation:
    return Violation(where, f"sent {shorten(sent)}; {allowed} is allowed")
