"""A Parquet file as Qdrant points: which columns are what, and batch after batch of rows.

Only one record batch is in memory at a time. The ids are read once more beforehand, since
a duplicate must be known before the first point is written.
"""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from server.qdrant.errors import ImportFileError

DEFAULT_ID_COLUMN = "id"
MAX_POINT_ID = 2**64 - 1

FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ColumnPlan:
    """What each column of the files becomes.

    Attributes
    ----------
    vector_sizes : dict of str to int
        Vector columns and their dimensions.
    payload : tuple of str
        Columns that become payload fields.
    id_column : str or None
        Column of the point ids; None numbers the rows from 0.
    n_rows : int
        Rows of all files together.
    """

    vector_sizes: dict[str, int]
    payload: tuple[str, ...]
    id_column: str | None
    n_rows: int


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


def plan_columns(
    paths: Sequence[Path], vectors: Sequence[str] | None, id_column: str | None
) -> ColumnPlan:
    """Decide what each column becomes, and check the ids of all files.

    Raises
    ------
    ImportFileError
        If a file is no Parquet file, the files differ in their columns, a wanted column
        is missing or of the wrong type, or the ids are not usable.
    """
    if not paths:
        raise ImportFileError("paths", "no file given")
    files = [_open(path) for path in paths]
    schema = files[0].schema_arrow
    for path, file in zip(paths[1:], files[1:], strict=True):
        if not file.schema_arrow.equals(schema):
            raise ImportFileError(str(path), f"its columns differ from those of {paths[0]}")
    names = _vector_columns(paths[0], schema, vectors)
    sizes = {name: _vector_size(files, schema.field(name)) for name in names}
    id_name = _id_column(files, schema, id_column, names)
    return ColumnPlan(
        vector_sizes=sizes,
        payload=tuple(n for n in schema.names if n not in sizes and n != id_name),
        id_column=id_name,
        n_rows=sum(file.metadata.num_rows for file in files),
    )


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise ImportFileError(str(path), "there is no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ImportFileError(str(path), f"not a readable Parquet file: {error}") from error


def _is_list(kind: pa.DataType) -> bool:
    is_list: bool = (
        pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    )
    return is_list


def _vector_columns(path: Path, schema: pa.Schema, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        found = [
            f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)
        ]
        if not found:
            raise ImportFileError(
                str(path), f"no column is a list of floats; columns: {_listed(schema)}"
            )
        return found
    for name in wanted:
        if name not in schema.names:
            raise ImportFileError(name, f"no such column; columns: {_listed(schema)}")
        kind = schema.field(name).type
        if not _is_list(kind) or not (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        ):
            raise ImportFileError(name, f"a vector is a list of numbers, this column is {kind}")
    return list(dict.fromkeys(wanted))


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name} ({f.type})" for f in schema)


def _vector_size(files: Sequence[pq.ParquetFile], column: pa.Field) -> int:
    if pa.types.is_fixed_size_list(column.type):
        size: int = column.type.list_size
        return size
    # A plain list has no size of its own: the first row that has one gives it.
    for file in files:
        for batch in file.iter_batches(batch_size=1024, columns=[column.name]):
            lengths = pc.drop_null(pc.list_value_length(batch.column(0)))
            if len(lengths) and lengths[0].as_py():
                return int(lengths[0].as_py())
    raise ImportFileError(column.name, "no row has a vector, so its size is unknown")


def _id_column(
    files: Sequence[pq.ParquetFile],
    schema: pa.Schema,
    wanted: str | None,
    vectors: Sequence[str],
) -> str | None:
    name = wanted or DEFAULT_ID_COLUMN
    if name not in schema.names:
        if wanted is None:
            return None
        raise ImportFileError(name, f"no such column; columns: {_listed(schema)}")
    kind = schema.field(name).type
    if pa.types.is_integer(kind):
        _check_integer_ids(name, files)
        return name
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text and not _is_uuid_type(kind):
        if wanted is None:
            return None
        raise ImportFileError(name, f"ids are integers or UUIDs, this column is {kind}")
    wrong = _first_non_uuid(name, files) if is_text else None
    if wrong is not None:
        if wanted is None:
            return None
        raise ImportFileError(
            name, f"row {wrong[0]} has {wrong[1]!r}, which is no UUID; ids are integers or UUIDs"
        )
    _check_unique(name, files)
    return name


def _is_uuid_type(kind: pa.DataType) -> bool:
    return bool(kind == pa.binary(16) or getattr(kind, "extension_name", "") == "arrow.uuid")


def _read_column(name: str, files: Sequence[pq.ParquetFile]) -> pa.ChunkedArray:
    column = pa.chunked_array([c for f in files for c in f.read([name]).column(0).chunks])
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise ImportFileError(
            name, f"{column.null_count} rows have no id, first: row {row}; every point needs one"
        )
    return column


def _check_integer_ids(name: str, files: Sequence[pq.ParquetFile]) -> None:
    if not sum(file.metadata.num_rows for file in files):
        return
    lowest = pc.min(_read_column(name, files)).as_py()
    if lowest < 0:
        raise ImportFileError(name, f"ids run from 0 to {MAX_POINT_ID}, the lowest is {lowest}")
    _check_unique(name, files)


def _check_unique(name: str, files: Sequence[pq.ParquetFile]) -> None:
    if not sum(file.metadata.num_rows for file in files):
        return
    column = _read_column(name, files)
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        # One UUID has several spellings.
        column = pa.chunked_array(
            [
                pa.array([uuid.UUID(text).hex for text in chunk.to_pylist()])
                for chunk in column.chunks
            ]
        )
    counts = pc.value_counts(column)
    repeated = counts.filter(pc.greater(counts.field(1), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise ImportFileError(
            name,
            f"{len(repeated)} ids occur more than once, first: {first['values']!r} "
            f"({first['counts']} times); ids must be unique",
        )


def _first_non_uuid(name: str, files: Sequence[pq.ParquetFile]) -> tuple[int, str] | None:
    if not sum(file.metadata.num_rows for file in files):
        return None
    row = 0
    for chunk in _read_column(name, files).chunks:
        for text in chunk.to_pylist():
            try:
                uuid.UUID(text)
            except ValueError:
                return row, text
            row += 1
    return None


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
    for batch in _open(path).iter_batches(batch_size=rows_per_batch):
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
    values: list[Any] = column.to_pylist()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_int64(kind):
        return values
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime ends at microseconds.
        values = column.cast(pa.timestamp("us", kind.tz), safe=False).to_pylist()
    return [json_value(value) for value in values]


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
