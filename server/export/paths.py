"""Dot paths into a document's payload, such as ``metadata.author.name``.

A path goes through objects by key. Where it meets a list it goes on through every object
in it, so ``a.b`` reads what Qdrant writes as ``a[].b``; that spelling is accepted too and
means the same. A list at the end of a path stays a list: `elements` opens it by one level.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

Tree: TypeAlias = "dict[str, Any] | None"
"""What is kept of an object, by key; None: all of it. A key's value is a tree, too."""

MAX_PATH_CHARS = 256
_INDEXED = re.compile(r"\[[^\]]+\]$")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


def path_fault(path: object) -> str | None:
    """Say in words what is wrong with a path, or None when it can be used."""
    if not isinstance(path, str):
        return f"a field is a string such as 'metadata.title', got {type(path).__name__}"
    if not path.strip():
        return "the field is empty; name a payload field such as 'metadata.title'"
    if len(path) > MAX_PATH_CHARS:
        return f"the field has {len(path)} characters, at most {MAX_PATH_CHARS} are allowed"
    for segment in path.split("."):
        if _INDEXED.search(segment):
            return f"{segment!r} picks one position of a list; name the list, every element counts"
        if not segment.removesuffix("[]"):
            return f"{path!r} has an empty part between its dots"
    return None


@lru_cache(maxsize=4096)
def split_path(path: str) -> tuple[str, ...]:
    """Split a path into its keys, without the optional ``[]`` marks."""
    return tuple(segment.removesuffix("[]") for segment in path.split("."))


def found(payload: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    """All values at the end of a path, lists unopened; empty when the field is missing."""
    level: list[Any] = [payload]
    for key in keys:
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                if key in value:
                    deeper.append(value[key])
            elif isinstance(value, list):
                deeper.extend(
                    item[key] for item in value if isinstance(item, Mapping) and key in item
                )
        if not deeper:
            return []
        level = deeper
    return level


def elements(values: Iterable[Any]) -> list[Any]:
    """Open each list by one level, as a condition looks at the elements of an array."""
    opened: list[Any] = []
    for value in values:
        if isinstance(value, list):
            opened.extend(value)
        else:
            opened.append(value)
    return opened


def qdrant_spellings(path: str, *, max_dots: int = 3) -> tuple[str, ...] | None:
    """Qdrant's ways to write a path, which does not go through lists unless told to.

    Their union reads exactly what `found` reads. None when a key needs quoting or the
    path is so deep that it would have too many spellings.
    """
    keys = split_path(path)
    if len(keys) - 1 > max_dots or not all(_PLAIN_KEY.fullmatch(key) for key in keys):
        return None
    spellings = [keys[0]]
    for key in keys[1:]:
        spellings = [f"{head}{mark}.{key}" for head in spellings for mark in ("", "[]")]
    return tuple(spellings)


def top_level_selectors(paths: Iterable[str]) -> list[str] | None:
    """Qdrant's payload selectors for the top-level keys of some paths, sorted.

    Whole top-level values are asked for: Qdrant's selector ``a.b`` returns nothing where
    ``a`` is a list. None when a key holds a quote, which no selector can spell.
    """
    keys = sorted({split_path(path)[0] for path in paths})
    if any('"' in key for key in keys):
        return None
    return [key if _PLAIN_KEY.fullmatch(key) else f'"{key}"' for key in keys]


def tree_of(paths: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Lay split paths together: what is kept below each key, None for all of it."""
    tree: dict[str, Any] = {}
    for keys in sorted(paths, key=len):
        node = tree
        for key in keys[:-1]:
            below = node.setdefault(key, {})
            if below is None:  # A shorter path already keeps all that lies under this key.
                break
            node = below
        else:
            node.setdefault(keys[-1], None)
    return tree


def keep(payload: Mapping[str, Any], paths: Iterable[Sequence[str]]) -> dict[str, Any]:
    """The parts of a payload under some split paths, in its own shape; the rest dropped."""
    kept: dict[str, Any] = prune(payload, tree_of(paths))
    return kept


def prune(value: Any, tree: Mapping[str, Any]) -> Any:
    """The parts of an object, or of the objects in a list, that a tree keeps."""
    if isinstance(value, Mapping):
        kept: dict[str, Any] = {}
        for key, below in tree.items():
            if key not in value:
                continue
            if below is None:
                kept[key] = value[key]
            elif isinstance(value[key], Mapping | list):
                kept[key] = prune(value[key], below)
        return kept
    return [prune(item, tree) for item in value if isinstance(item, Mapping)]
