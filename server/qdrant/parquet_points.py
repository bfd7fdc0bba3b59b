"""The rows of a Parquet file as Qdrant points, one record batch in memory at a time."""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from server.qdrant.parquet_columns import ColumnPlan, open_parquet

FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PointBatch:
    """Rows of one record batch whose vectors are all good.

    Attributes
    ----------
    ids : list of int or str
        One per row; a str is a UUID.
    vectors : dict of str to array of shape (n_rows, n_dims), float32
    payloads : list of dict
    bad_rows : list of (int, str)
        Row number in the import and what is wrong with it, for the rows left out.
    """

    ids: list[int | str]
    vectors: dict[str, FloatRows]
    payloads: list[dict[str, Any]]
    bad_rows: list[tuple[int, str]] = field(default_factory=list)


def read_points(
    path: Path, plan: ColumnPlan, *, first_row: int, rows_per_batch: int
) -> Iterator[PointBatch]:
    """Read a file as points, one record batch at a time.

    Parameters
    ----------
    first_row : int
        Rows of the files before this one, so that row numbers go on.
    rows_per_batch : int
        Rows in memory at a time.
    """
    row = first_row
    for batch in open_parquet(path).iter_batches(batch_size=rows_per_batch):
        yield _batch_points(batch, plan, row)
        row += batch.num_rows


def _batch_points(batch: pa.RecordBatch, plan: ColumnPlan, first_row: int) -> PointBatch:
    is_good = np.ones(batch.num_rows, dtype=bool)
    faults: dict[int, str] = {}
    matrices = {}
    for name, size in plan.vector_sizes.items():
        matrices[name], reasons = _matrix(batch.column(name), size)
        for position, reason in reasons.items():
            is_good[position] = False
            faults.setdefault(position, f"{name}: {reason}")
    keep = np.flatnonzero(is_good)
    if plan.id_column is None:
        ids: list[int | str] = [first_row + int(i) for i in keep]
    else:
        ids = _ids(batch.column(plan.id_column).take(pa.array(keep)))
    return PointBatch(
        ids=ids,
        vectors={name: matrix[keep] for name, matrix in matrices.items()},
        payloads=_payloads(batch.select(list(plan.payload)).take(pa.array(keep))),
        bad_rows=[(first_row + i, faults[i]) for i in sorted(faults)],
    )


def _matrix(column: pa.Array, size: int) -> tuple[FloatRows, dict[int, str]]:
    """Vectors as rows, and what is wrong where. Rows that are wrong hold zeros."""
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    has_size = (lengths == size) & column.is_valid().to_numpy(zero_copy_only=False)
    faults = {
        int(i): "no vector" if lengths[i] < 0 else f"{lengths[i]} dimensions instead of {size}"
        for i in np.flatnonzero(~has_size)
    }
    flat = column.filter(pa.array(has_size)).flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # A float64 beyond float32 turns infinite: caught below.
        found = flat.astype(np.float32).reshape(-1, size)
    rows: FloatRows = np.zeros((len(column), size), dtype=np.float32)
    rows[has_size] = found
    for i in np.flatnonzero(~np.isfinite(rows).all(axis=1)):
        faults[int(i)] = "a value that is missing, not a number or infinite"
    return rows, faults


def _ids(column: pa.Array) -> list[int | str]:
    values = column.to_pylist()
    if pa.types.is_integer(column.type):
        return values  # type: ignore[no-any-return]
    return [str(uuid.UUID(bytes=v) if isinstance(v, bytes) else uuid.UUID(str(v))) for v in values]


def _payloads(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    payloads: list[dict[str, Any]] = [{} for _ in range(batch.num_rows)]
    for name in batch.schema.names:
        for payload, value in zip(payloads, _column_values(batch.column(name)), strict=True):
            if value is not None:
                payload[name] = value
    return payloads


def _column_values(column: pa.Array) -> list[Any]:
    kind = _in_microseconds(column.type)
    if kind != column.type:
        column = column.cast(kind, safe=False)
    values: list[Any] = column.to_pylist()
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_int64(kind):
        return values
    return [json_value(value) for value in values]


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """The type without nanoseconds, which Python's times cannot hold."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, _in_microseconds(f.type)) for f in kind])
    return kind


def json_value(value: Any) -> Any:
    """A value of an Arrow column as JSON has it.

    Times become RFC 3339 text in UTC (those without a zone are taken as UTC), dates and
    times of day ISO text, durations seconds, decimals numbers, bytes base64 text. What
    JSON lacks (NaN, infinity) becomes None, which is left out as a missing value is.
    Integers beyond 64 bits signed, which Qdrant lacks, become text.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): json_value(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(v, tuple) and len(v) == 2 for v in value):
            # Arrow gives a map as a list of pairs.
            return {str(k): json_value(v) for k, v in value if v is not None}
        return [json_value(v) for v in value]
    return _json_scalar(value)


def _json_scalar(value: Any) -> Any:
    if isinstance(value, datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        return zoned.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        is_whole = value == value.to_integral_value()
        return json_value(int(value)) if is_whole else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
