"""Which columns of Parquet files become vectors, ids and payload, and whether they can.

The ids of all files are read here, before the first point is written: a duplicate must be
known by then. Vectors and payload are read later, batch by batch (`parquet_points`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from server.qdrant.errors import ImportFileError

DEFAULT_ID_COLUMN = "id"
MAX_POINT_ID = 2**64 - 1


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
    files = [open_parquet(path) for path in paths]
    schema = files[0].schema_arrow
    for path, file in zip(paths[1:], files[1:], strict=True):
        if not file.schema_arrow.equals(schema):
            raise ImportFileError(str(path), f"its columns differ from those of {paths[0]}")
    names = _vector_columns(schema, vectors)
    sizes = {name: _vector_size(files, schema.field(name)) for name in names}
    id_name = _id_column(files, schema, id_column, names)
    return ColumnPlan(
        vector_sizes=sizes,
        payload=tuple(n for n in schema.names if n not in sizes and n != id_name),
        id_column=id_name,
        n_rows=sum(file.metadata.num_rows for file in files),
    )


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file for reading; ImportFileError if it is missing or no Parquet file."""
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


def _vector_columns(schema: pa.Schema, wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        # None is fine: documents without vectors can be grouped by their payload fields.
        return [
            f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)
        ]
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
