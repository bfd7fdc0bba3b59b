"""Reads columns of payload values: which values each row has, as small numbers.

A column is either of JSON text (`json_column`; values of any mixture of types) or of a plain
Arrow type. Two values are the same when their JSON is: the number 1 and the number 1.0 are, the
number 1, the text "1" and true are three. Text is compared as it is written, byte by byte. A
list gives its row each of its values once; null, NaN, an empty list and a list of nulls are
missing. Work in Python is per distinct value, never per row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpu.backend import Backend, device_errors

MISSING = -1
"""Code of a row without a value."""

Column = Any
"""A pyarrow Array or ChunkedArray."""


@dataclass(frozen=True)
class Values:
    """Values of one attribute, row by row.

    Attributes
    ----------
    keys : list of str
        JSON text of each distinct value; its position is the value's code.
    starts : array of shape (n_rows + 1,), int64
        Row i has ``codes[starts[i]:starts[i + 1]]``, at least one.
    codes : array of shape (n_memberships,), int32
        Distinct within a row; `MISSING`, alone, where the row has no value.
    """

    keys: list[str]
    starts: NDArray[np.int64]
    codes: NDArray[np.int32]


def json_column(values: Iterable[object]) -> Column:
    """Make a column of JSON values of any types.

    Parameters
    ----------
    values : iterable of JSON values
        One per row; None where the row has none.

    Returns
    -------
    pyarrow array of type ``arrow.json``
    """
    texts = [None if value is None else _text(value) for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def read_values(column: Column, backend: Backend) -> Values:
    """Read the values of an attribute.

    Parameters
    ----------
    column : pyarrow array of any type but struct, map or union
        Of JSON text, plain values, or lists of plain values.
    backend : Backend
        Where distinct values are found.
    """
    array = _one_array(column)
    n_rows = len(array)
    if isinstance(array.type, pa.JsonType):
        raw, distinct = _distinct(array.storage, backend)
        parsed = [_json_keys(json.loads(text)) for text in distinct.to_pylist()]
        rows = np.arange(n_rows)
    elif _is_list(array.type):
        rows = np.asarray(pc.list_parent_indices(array))
        raw, distinct = _distinct(pc.list_flatten(array), backend)
        parsed = [_json_keys(value) for value in distinct.to_pylist()]
    else:
        raw, distinct = _distinct(array, backend)
        parsed = [_json_keys(value) for value in distinct.to_pylist()]
        rows = np.arange(n_rows)
    return _by_row(n_rows, rows, raw, parsed)


def whole_codes(column: Column, backend: Backend) -> NDArray[np.int32]:
    """Number each row's value, lists as a whole; the same number for the same value.

    Returns
    -------
    array of shape (n_rows,), int32
        `MISSING` for null, and for the JSON text ``null``.
    """
    array = _one_array(column)
    if isinstance(array.type, pa.JsonType):
        array = array.storage
        array = pc.if_else(pc.equal(array, "null"), None, array)
    elif pa.types.is_nested(array.type):
        # Arrow numbers no lists; written out they are plain text.
        array = pa.array([None if v is None else _text(v) for v in array.to_pylist()], pa.string())
    return _distinct(array, backend)[0]


def shown(key: str, missing: str) -> str:
    """Give a value as a person reads it: text bare, unless it could be taken for another value."""
    value = json.loads(key)
    if not isinstance(value, str) or value == missing:
        return key
    try:
        json.loads(value)
    except ValueError:
        return value
    return key


def _one_array(column: Column) -> Column:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _json_keys(value: object) -> list[str]:
    """Give the canonical JSON of each value that a cell holds; none when it is missing."""
    elements = value if isinstance(value, list) else [value]
    keys = (_text(_plain(element)) for element in elements if not _is_missing(element))
    return list(dict.fromkeys(keys))


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _distinct(array: Column, backend: Backend) -> tuple[NDArray[np.int32], Column]:
    """Number the values in order of appearance, `MISSING` for null, and give them."""
    if pa.types.is_null(array.type):
        return np.full(len(array), MISSING, dtype=np.int32), array[:0]
    if backend.device == "gpu":
        return _distinct_on_gpu(array)
    encoded = array.dictionary_encode()
    codes = encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False), encoded.dictionary


def _distinct_on_gpu(array: Column) -> tuple[NDArray[np.int32], Column]:
    import cudf

    with device_errors(2 * array.nbytes):
        codes, distinct = cudf.Series(array).factorize(use_na_sentinel=True)
        return codes.get().astype(np.int32), distinct.to_arrow()


def _by_row(
    n_rows: int, rows: NDArray[np.int64], raw: NDArray[np.int32], parsed: list[list[str]]
) -> Values:
    """Turn raw codes into codes of canonical values, and give every row at least one."""
    code_of: dict[str, int] = {}
    flat = [code_of.setdefault(key, len(code_of)) for keys in parsed for key in keys]
    lengths = np.array([*map(len, parsed), 0], dtype=np.int64)  # The last is for MISSING, -1.
    starts = np.cumsum(lengths) - lengths
    counts = lengths[raw]
    owners = np.repeat(rows, counts)
    codes = np.array([*flat, 0], dtype=np.int64)[runs(starts[raw], counts)]
    # Sorted by row and distinct in it; a row keeps the order its values were first seen in.
    n_keys = max(1, len(code_of))
    pairs = owners * n_keys + codes
    if len(pairs) > 1 and not (np.diff(pairs) > 0).all():
        pairs = np.unique(pairs)
    owners, codes = np.divmod(pairs, n_keys)
    absent = np.flatnonzero(np.bincount(owners, minlength=n_rows) == 0)
    owners = np.concatenate([owners, absent])
    codes = np.concatenate([codes, np.full(len(absent), MISSING)])
    order = np.argsort(owners, kind="stable")
    bounds = np.zeros(n_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(owners, minlength=n_rows), out=bounds[1:])
    return Values(list(code_of), bounds, codes[order].astype(np.int32))


def runs(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give ``starts[i], starts[i] + 1, …`` for ``counts[i]`` numbers, one run after another."""
    first = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(starts - first, counts))
