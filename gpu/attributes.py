"""Groups rows by the values of their payload fields. No vectors are needed.

Every combination of values of the attributes that some row has is a group. A row with several
values of an attribute is a member of several groups.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpu.attribute_values import MISSING, Values, read_values, runs, shown, whole_codes
from gpu.backend import Backend
from gpu.errors import HostMemoryError, InvalidParametersError, TooFewPointsError, Violation
from gpu.memory import free_bytes

Aggregation = Literal["most_frequent", "first", "last"]

MISSING_TEXT = "(missing)"
"""How a label writes that members lack the attribute."""

MEMBERSHIP_BYTES = 96
"""About what one membership takes while groups are made."""


@dataclass(frozen=True)
class AttributeGroups:
    """Groups of rows with the same values.

    Attributes
    ----------
    groups : pyarrow Table
        One row per group, parents before leaves, each kind largest first (ties by first
        member): ``group_id`` (``cl_0``; under a parent ``cl_0_sub_1``), ``parent_id`` (null
        without one), ``is_leaf``, ``label`` ("category: shoes, size: 42"), ``values`` (JSON
        object of the attributes, null for a missing one), ``member_count`` (rows).
    member_rows, member_groups : arrays of shape (n_memberships,), int64
        Each row with each leaf that it is in, by row; groups as positions in `groups`.
    fields : pyarrow Table
        One row per group, in the order of `groups`: the other fields, each in its own type,
        null where no member has a value.
    """

    groups: Any
    member_rows: NDArray[np.int64]
    member_groups: NDArray[np.int64]
    fields: Any


@dataclass(frozen=True)
class _Level:
    """Groups of one level, largest first.

    rows, groups : memberships, by row
    codes : (n_groups, n_attributes used), the value of each attribute
    sizes : (n_groups,)
    """

    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    codes: NDArray[np.int32]
    sizes: NDArray[np.int64]


def group_by_attributes(
    table: Any,
    attributes: Sequence[str],
    *,
    backend: Backend,
    hierarchical: bool = False,
    aggregation: Aggregation = "most_frequent",
    other_fields: Sequence[str] = (),
) -> AttributeGroups:
    """Group rows by attributes.

    Parameters
    ----------
    table : pyarrow Table
        A column per attribute and other field: JSON text (`gpu.attribute_values.json_column`),
        plain values, or lists of them. Nested fields come as columns of their own.
    attributes : sequence of str
        Columns to group by.
    backend : Backend
        Where distinct values are found; the rest is NumPy on small numbers.
    hierarchical : bool
        Make each value of the first attribute the parent of the groups that have it. Without
        effect for one attribute.
    aggregation : {"most_frequent", "first", "last"}
        Which member's value fills a group's other fields: the value most members have (ties:
        the one seen first), or that of the first or last member that has one.
    other_fields : sequence of str
        Columns to fill per group; lists count as one value.

    Raises
    ------
    InvalidParametersError
        For no attributes, one named twice, or one that no row has a value of; names each, at
        ``attributes[0]`` and so on.
    TooFewPointsError
        Without rows.
    HostMemoryError
        If rows with long lists in several attributes make more memberships than memory holds.
    """
    if not len(table):
        raise TooFewPointsError(n_points=0, needed=1)
    values = _read(table, attributes, backend)
    _require_memory(values, len(table))
    levels = _levels(values, hierarchical and len(attributes) > 1)
    leaves, parents = levels[-1], levels[0] if len(levels) > 1 else None

    described = [_described(level, attributes, values) for level in levels]
    offset = len(described[0]["label"]) if parents else 0
    ids, parent_ids = _ids(leaves, parents)
    groups = pa.table(
        {
            "group_id": pa.array(ids, pa.string()),
            "parent_id": pa.array(parent_ids, pa.string()),
            "is_leaf": pa.array(np.arange(len(ids)) >= offset),
            "label": pa.concat_arrays([part["label"] for part in described]),
            "values": pa.concat_arrays([part["values"] for part in described]),
            "member_count": pa.array(np.concatenate([level.sizes for level in levels])),
        }
    )
    fields = {name: _aggregated(table[name], levels, aggregation, backend) for name in other_fields}
    return AttributeGroups(groups, leaves.rows, leaves.groups + offset, pa.table(fields))


def _read(table: Any, attributes: Sequence[str], backend: Backend) -> list[Values]:
    violations = []
    if not attributes:
        violations.append(Violation("attributes", "[]", "must name at least one field"))
    values = []
    for position, name in enumerate(attributes):
        path, sent = f"attributes[{position}]", json.dumps(name, ensure_ascii=False)
        if name in attributes[:position]:
            violations.append(Violation(path, sent, "is named twice"))
            continue
        found = read_values(table[name], backend) if name in table.column_names else None
        if found is None or not found.keys:
            allowed = "no document has a value of this field; check its spelling and the filter"
            violations.append(Violation(path, sent, allowed))
        else:
            values.append(found)
    if violations:
        raise InvalidParametersError(violations)
    return values


def _require_memory(values: list[Values], n_rows: int) -> None:
    per_row = np.ones(n_rows)
    for attribute in values:
        per_row *= np.diff(attribute.starts)
    needed, free = int(per_row.sum()) * MEMBERSHIP_BYTES, free_bytes("cpu")
    if needed > free:
        fits = int(np.searchsorted(np.cumsum(per_row), free / MEMBERSHIP_BYTES))
        raise HostMemoryError(needed_bytes=needed, free_bytes=free, fits_points=fits)


def _levels(values: list[Values], hierarchical: bool) -> list[_Level]:
    """Combine the attributes one by one; keep the first level too where it makes parents."""
    first = values[0]
    rows = np.repeat(np.arange(len(first.starts) - 1), np.diff(first.starts))
    level = _dense(rows, first.codes, np.empty((1, 0), np.int32), np.zeros(len(rows), np.int64))
    levels = [level]
    for attribute in values[1:]:
        counts = np.diff(attribute.starts)[level.rows]
        picked = runs(attribute.starts[level.rows], counts)
        level = _dense(
            np.repeat(level.rows, counts),
            attribute.codes[picked],
            level.codes,
            np.repeat(level.groups, counts),
        )
        levels.append(level)
    return [levels[0], levels[-1]] if hierarchical else [levels[-1]]


def _dense(
    rows: NDArray[np.int64],
    codes: NDArray[np.int32],
    before: NDArray[np.int32],
    groups: NDArray[np.int64],
) -> _Level:
    """Make a group of each pair of a group so far and a value, numbered by size."""
    width = int(codes.max()) + 2
    pairs, first, where, sizes = np.unique(
        groups * width + codes + 1, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    old, code = np.divmod(pairs[order], width)
    table = np.column_stack([before[old], (code - 1).astype(np.int32)])
    return _Level(rows, rank[where], table, sizes[order].astype(np.int64))


def _described(level: _Level, attributes: Sequence[str], values: list[Values]) -> dict[str, Any]:
    labels, objects = [], []
    for position, codes in enumerate(level.codes.T):
        name, keys = attributes[position], values[position].keys
        quoted = json.dumps(name, ensure_ascii=False)
        # The last one is for MISSING, -1.
        texts = [
            f"{name}: {text}" for text in (*(shown(k, MISSING_TEXT) for k in keys), MISSING_TEXT)
        ]
        parts = [f"{quoted}: {key}" for key in (*keys, "null")]
        at = pa.array(np.where(codes == MISSING, len(keys), codes))
        labels.append(pa.array(texts, pa.string()).take(at))
        objects.append(pa.array(parts, pa.string()).take(at))
    inner = pc.binary_join_element_wise(*objects, ", ")
    return {
        "label": pc.binary_join_element_wise(*labels, ", "),
        "values": pc.binary_join_element_wise("{", inner, "}", ""),
    }


def _ids(leaves: _Level, parents: _Level | None) -> tuple[list[str], list[str | None]]:
    if parents is None:
        return [f"cl_{rank}" for rank in range(len(leaves.sizes))], [None] * len(leaves.sizes)
    of_code = {int(code): rank for rank, (code,) in enumerate(parents.codes)}
    taken = [0] * len(parents.sizes)
    ids = [f"cl_{rank}" for rank in range(len(parents.sizes))]
    parent_ids: list[str | None] = [None] * len(parents.sizes)
    for code in leaves.codes[:, 0].tolist():
        parent = of_code[code]
        ids.append(f"cl_{parent}_sub_{taken[parent]}")
        parent_ids.append(f"cl_{parent}")
        taken[parent] += 1
    return ids, parent_ids


def _aggregated(
    column: Any, levels: list[_Level], aggregation: Aggregation, backend: Backend
) -> Any:
    codes = whole_codes(column, backend)
    picked = np.concatenate([_picked_rows(codes, level, aggregation) for level in levels])
    return column.take(pa.array(picked, mask=picked == MISSING))


def _picked_rows(
    codes: NDArray[np.int32], level: _Level, aggregation: Aggregation
) -> NDArray[np.int64]:
    """Give, for each group, a row that has the value the group takes; `MISSING` for none."""
    of_member = codes[level.rows]
    has = np.flatnonzero(of_member != MISSING)
    if aggregation == "last":
        has = has[::-1]
    rows, groups, kinds = level.rows[has], level.groups[has], of_member[has]
    picked = np.full(len(level.sizes), MISSING, dtype=np.int64)
    if aggregation != "most_frequent":
        found, first = np.unique(groups, return_index=True)
        picked[found] = rows[first]
        return picked
    width = int(codes.max(initial=0)) + 1
    pairs, first, counts = np.unique(groups * width + kinds, return_index=True, return_counts=True)
    owner = pairs // width
    best = np.lexsort((first, -counts, owner))
    found, where = np.unique(owner[best], return_index=True)
    picked[found] = rows[first[best[where]]]
    return picked
