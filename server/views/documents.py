"""A document in words: its title and its fields, from a payload that can be anything."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.export.paths import found, split_path

TITLE_FIELDS = ("title", "name", "package", "text", "label", "subject", "headline", "url")
"""What stands for a document where nobody says otherwise, the first that it has."""

N_HOVER_FIELDS = 5
MAX_TITLE_CHARS = 120
MAX_VALUE_CHARS = 160

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Columns:
    """Which payload fields are shown.

    Attributes
    ----------
    titles : tuple of str
        Dot paths; the first that a document has is its title, else its id.
    fields : tuple of str
        Dot paths of what is shown beside it.
    """

    titles: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys((*self.titles, *self.fields)))


@dataclass(frozen=True)
class Document:
    """One document as people see it; `values` are those of `Columns.fields`, as words."""

    document_id: str
    title: str
    values: tuple[str, ...] = field(default_factory=tuple)


def choose_columns(
    payloads: Sequence[Mapping[str, Any]],
    title_field: str | None = None,
    fields: Sequence[str] = (),
) -> Columns:
    """Decide what to show, from some of the documents and what the caller asks for."""
    kinds: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for payload in payloads:
        for name, value in payload.items():
            if _PLAIN_NAME.fullmatch(name) and _is_short(value):
                kinds[name] += 1
                texts[name] += isinstance(value, str)
    titles = (title_field,) if title_field else _title_fields(payloads, texts)
    others = [name for name, _ in kinds.most_common() if name not in titles]
    return Columns(titles, tuple(fields) or tuple(others[:N_HOVER_FIELDS]))


def _title_fields(payloads: Iterable[Mapping[str, Any]], texts: Counter[str]) -> tuple[str, ...]:
    known = {name for payload in payloads for name, value in payload.items() if _is_text(value)}
    usual = tuple(name for name in TITLE_FIELDS if name in known)
    return usual or tuple(sorted(name for name, count in texts.items() if count))[:1]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_short(value: Any) -> bool:
    """Tell what a line can show from long texts, vectors and objects."""
    if isinstance(value, list):
        return 0 < len(value) <= 12 and all(isinstance(part, str | int | float) for part in value)
    return isinstance(value, int | float) or (_is_text(value) and len(value) <= 4 * MAX_VALUE_CHARS)


def document_of(document_id: str, payload: Mapping[str, Any] | None, columns: Columns) -> Document:
    """Put a document into words; one that is gone from its collection has its id only."""
    if payload is None:
        return Document(document_id, document_id, ("",) * len(columns.fields))
    texts = (value_at(payload, path) for path in columns.titles)
    title = next((text for text in texts if text), document_id)
    values = tuple(_cut(value_at(payload, path), MAX_VALUE_CHARS) for path in columns.fields)
    return Document(document_id, _cut(title, MAX_TITLE_CHARS), values)


def value_at(payload: Mapping[str, Any], path: str) -> str:
    """Give what a payload has at a dot path as one line of words; empty where it has nothing."""
    values = found(payload, split_path(path))
    return " ".join(", ".join(_in_words(value) for value in values).split())


def _in_words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_in_words(part) for part in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
