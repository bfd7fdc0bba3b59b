"""A run's tables for others to take away: as stored, or converted once and kept beside them.

Artifacts never change, so a copy is made where the stored form is not what is asked for: for
CSV and JSON Lines, and for Parquet when groups were renamed since. Copies lie in
``copies/{names}/``, where `names` tells which names they carry; the list of a format's copies
is written last, so its presence means that they are whole. The same run, format and names
always give the same bytes, so whoever makes a copy at the same time makes the same one.

In CSV, keywords and centroids are JSON inside their cell, and what is absent is empty. Floats
have as many digits as float32 needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv
from pydantic import BaseModel, ConfigDict, TypeAdapter

from server.errors import NotFoundError
from server.jobs.model import GroupNames
from server.results.artifacts import CENTROIDS, MEMBERS, RunFolder
from server.results.manifest import MANIFEST, digest_of
from server.results.maps import all_maps
from server.results.names import renamed_groups, renamed_members
from server.results.storage import EXPORT
from server.results.tables import ROWS_PER_ROW_GROUP, groups_table

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)

COPIES = "copies"
GROUPS_AT_ONCE = 256


class FileForOthers(BaseModel):
    """One file of a run; `rows` only where it is a table."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int
    sha256: str
    rows: int | None = None


_FILES = TypeAdapter(list[FileForOthers])


@dataclass(frozen=True)
class _Table:
    """A table as it is copied: its stored name, its layout, and its rows in batches."""

    name: str
    schema: pa.Schema
    n_rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


def files_for_others(
    folder: RunFolder, format: Format, names: Sequence[GroupNames] = ()
) -> list[FileForOthers]:
    """List a run's files in a format, converting the tables where that was not done before.

    Parameters
    ----------
    names : sequence of GroupNames
        What groups were renamed to since the run.

    Returns
    -------
    list of FileForOthers
        For parquet, every file of the run, maps that were made included; for others, members
        and centroids alone. Tables that would show old names are replaced by copies.

    Raises
    ------
    NotFoundError
        If the run's artifacts were retired.
    """
    try:
        if format != "parquet":
            return _copies(folder, format, names)
        stored = _stored(folder)
        if not names:
            return stored
        kept = [file for file in stored if file.name not in (MEMBERS, CENTROIDS)]
        return [*_copies(folder, format, names), *kept]
    finally:
        if not folder.is_whole:  # Retired meanwhile: leave no copy behind.
            folder.delete()


def _stored(folder: RunFolder) -> list[FileForOthers]:
    listed = []
    for file in folder.files():
        try:
            rows = _n_rows(folder, file.name) if file.name.endswith(".parquet") else None
        except NotFoundError:
            if not file.name.startswith(f"{EXPORT}/"):
                raise
            continue  # A newer run took the export away since the manifest was read.
        listed.append(FileForOthers(**file.model_dump(), rows=rows))
    for kept in all_maps(folder):
        listed.append(FileForOthers(**kept.file.model_dump(), rows=kept.rows))
    with folder.fs.open(f"{folder.root}/{MANIFEST}", "rb") as source:
        listed.append(FileForOthers(**digest_of(source, MANIFEST).model_dump()))
    return listed


def _n_rows(folder: RunFolder, name: str) -> int:
    with folder.open_parquet(name) as file:
        return int(file.metadata.num_rows)


def _copies(folder: RunFolder, format: Format, names: Sequence[GroupNames]) -> list[FileForOthers]:
    place = f"{COPIES}/{_word_for(names)}"
    listing = f"{place}/{format}.json"
    known = folder.read_copy(listing)
    if known is not None:
        return _FILES.validate_json(known)
    made = []
    for table in (_members(folder, names), _groups(folder, names)):
        name = f"{place}/{table.name.removesuffix('.parquet')}.{format}"
        written = folder.add_copy(name, partial(_write, format, table))
        made.append(FileForOthers(**written.model_dump(), rows=table.n_rows))
    folder.add_copy(listing, partial(_put, _FILES.dump_json(made)))
    return made


def _word_for(names: Sequence[GroupNames]) -> str:
    """Name a set of names: by their content, so that every server finds the same copies."""
    if not names:
        return "as-found"
    by_id = sorted(names, key=lambda name: name.cluster_id)
    text = "\n".join(name.model_dump_json() for name in by_id)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _put(content: bytes, sink: BinaryIO) -> None:
    sink.write(content)


def _members(folder: RunFolder, names: Sequence[GroupNames]) -> _Table:
    with folder.open_parquet(MEMBERS) as file:
        schema, n_rows = file.schema_arrow, int(file.metadata.num_rows)

    def batches() -> Iterator[pa.RecordBatch]:
        with folder.open_parquet(MEMBERS) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_ROW_GROUP):
                table = renamed_members(pa.Table.from_batches([batch]), names)
                yield from table.cast(schema).to_batches()

    return _Table(MEMBERS, schema, n_rows, batches)


def _groups(folder: RunFolder, names: Sequence[GroupNames]) -> _Table:
    groups = renamed_groups(folder.read_groups(), names)
    # One layout for all: a part of the groups alone may have no centroids.
    schema = groups_table(groups).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(groups), GROUPS_AT_ONCE):
            part = groups_table(groups[start : start + GROUPS_AT_ONCE])
            yield from part.cast(schema).to_batches()

    return _Table(CENTROIDS, schema, len(groups), batches)


def _write(format: Format, table: _Table, sink: BinaryIO) -> None:
    if format == "jsonl":
        for batch in table.batches():
            sink.write(_json_lines(batch))
    elif format == "csv":
        fields = [(f.name, pa.string() if _is_list(f.type) else f.type) for f in table.schema]
        with csv.CSVWriter(sink, pa.schema(fields)) as writer:
            for batch in table.batches():
                writer.write_batch(_flat(batch))
    else:
        with pq.ParquetWriter(
            sink, table.schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for batch in table.batches():
                writer.write_batch(batch, row_group_size=ROWS_PER_ROW_GROUP)


def _json_lines(batch: pa.RecordBatch) -> bytes:
    names = batch.schema.names
    columns = [_plain(column) for column in batch.columns]
    lines = (
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)
        for row in zip(*columns, strict=True)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Turn lists into JSON texts, which fit into a cell."""
    columns = [_texts(each) if _is_list(each.type) else each for each in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _texts(column: pa.Array) -> pa.Array:
    texts = (None if row is None else json.dumps(row, ensure_ascii=False) for row in _plain(column))
    return pa.array(list(texts), pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _plain(column: pa.Array) -> list[Any]:
    """Give a column as Python values; floats with the digits of float32."""
    if pa.types.is_float32(column.type):
        texts = pc.cast(column, pa.string())
        return list(pc.cast(texts, pa.float64()).to_pylist())
    rows = column.to_pylist()
    if not pa.types.is_fixed_size_list(column.type):
        return list(rows)
    return [None if row is None else _shortest(row) for row in rows]


def _shortest(row: list[float]) -> list[float]:
    values: list[float] = np.asarray(row, dtype=np.float32).astype(str).astype(float).tolist()
    return values
