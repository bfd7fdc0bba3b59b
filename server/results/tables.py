"""Groups and members as Parquet, laid out so that one group is read without the rest.

`members.parquet` keeps, in its own metadata, which rows each group has; a page of a group
then touches the row groups that hold it and the columns that are asked for, no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from server.results.groups import AXES, MEMBERS_SCHEMA, Group

ROWS_PER_ROW_GROUP = 16_384
SLICES_KEY = b"shoal.slices"

Slices = dict[str, tuple[int, int]]


def groups_table(groups: Sequence[Group]) -> pa.Table:
    """Lay groups out as one row each; a group without a centroid has null there."""
    places = [() if group.place is None else group.place.tolist() for group in groups]
    return pa.table(
        {
            "cluster_id": _text([group.cluster_id for group in groups]),
            "label": _text([group.label for group in groups]),
            "summary": _text([group.summary for group in groups]),
            "keywords": pa.array(
                [list(group.keywords) for group in groups], type=pa.list_(pa.string())
            ),
            "member_count": pa.array([group.member_count for group in groups], pa.int64()),
            "parent_cluster_id": _text([group.parent_cluster_id for group in groups]),
            "feature_uri": _text([group.feature_uri for group in groups]),
            "fields": _text([json.dumps(dict(group.fields)) for group in groups]),
            "radius": pa.array([group.radius for group in groups], pa.float32()),
            "cohesion": pa.array([group.cohesion for group in groups], pa.float32()),
            **{
                axis: pa.array(
                    [place[at] if at < len(place) else None for place in places], pa.float32()
                )
                for at, axis in enumerate(AXES)
            },
            "centroid": _centroids(groups),
        }
    )


def _centroids(groups: Sequence[Group]) -> pa.Array:
    """Give the centroids as FixedSizeList<float32>; as lists where their sizes differ."""
    sizes = {len(group.centroid) for group in groups if group.centroid is not None}
    kind = pa.list_(pa.float32(), sizes.pop()) if len(sizes) == 1 else pa.list_(pa.float32())
    return pa.array([group.centroid for group in groups], type=kind)


def _text(values: Iterable[str | None]) -> pa.Array:
    return pa.array(list(values), type=pa.string())


def groups_of(table: pa.Table) -> list[Group]:
    """Read groups back, in their order. Without a centroid column they have none."""
    rows = table.drop_columns(["centroid"] if "centroid" in table.column_names else [])
    centroids: Sequence[Any] = [None] * len(table)
    if "centroid" in table.column_names:
        centroids = [
            np.array(value.values, dtype=np.float32) if value.is_valid else None
            for value in table["centroid"]
        ]
    return [
        Group(
            **{
                **{name: value for name, value in row.items() if name not in AXES},
                "keywords": tuple(row["keywords"] or ()),
                "fields": json.loads(row.get("fields") or "{}"),
            },
            place=_place_of(row),
            centroid=centroid,
        )
        for row, centroid in zip(rows.to_pylist(), centroids, strict=True)
    ]


def _place_of(row: dict[str, Any]) -> NDArray[np.float32] | None:
    """Read a group's place; None where the run made no map."""
    axes = [row[axis] for axis in AXES if row.get(axis) is not None]
    return np.array(axes, dtype=np.float32) if axes else None


def slices_of(members: pa.Table) -> Slices:
    """Find the first row and the number of rows of each group in a sorted members table.

    Raises
    ------
    ValueError
        If the rows of a group do not lie together.
    """
    if len(members) == 0:
        return {}
    runs = pc.run_end_encode(members["cluster_id"].combine_chunks())
    names, ends = runs.values.to_pylist(), runs.run_ends.to_pylist()
    if len(set(names)) != len(names):
        raise ValueError("the members are not sorted by group; use members_table to build them")
    starts = [0, *ends[:-1]]
    return {
        name: (start, end - start) for name, start, end in zip(names, starts, ends, strict=True)
    }


def write_members(members: pa.Table, sink: Any) -> None:
    """Write a sorted members table, with the place of each group in its metadata."""
    if members.schema.names != MEMBERS_SCHEMA.names:
        raise ValueError(
            f"a members table has the columns {MEMBERS_SCHEMA.names}, not {members.schema.names}"
        )
    slices = json.dumps(slices_of(members)).encode()
    tagged = members.cast(MEMBERS_SCHEMA).replace_schema_metadata({SLICES_KEY: slices})
    write_parquet(tagged, sink)


def write_parquet(table: pa.Table, sink: Any) -> None:
    """Write a table with a checksum on every page, so that damage shows when it is read."""
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=ROWS_PER_ROW_GROUP,
        write_page_checksum=True,
    )


def read_slices(file: pq.ParquetFile) -> Slices:
    """Read the place of each group from the metadata of a members file."""
    metadata = file.schema_arrow.metadata or {}
    if SLICES_KEY not in metadata:
        raise pa.ArrowInvalid("it does not say where its groups are")
    return {name: (start, rows) for name, (start, rows) in json.loads(metadata[SLICES_KEY]).items()}


def read_rows(
    file: pq.ParquetFile, start: int, n_rows: int, columns: Sequence[str] | None
) -> pa.Table:
    """Read `n_rows` rows from row `start`, touching only the row groups that hold them."""
    names = list(columns) if columns is not None else None
    wanted: list[int] = []
    first_row, position = 0, 0
    for index in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(index).num_rows
        if position < start + n_rows and position + size > start:
            first_row = position if not wanted else first_row
            wanted.append(index)
        position += size
    table = file.read_row_groups(wanted, columns=names)
    return table.slice(start - first_row, n_rows).replace_schema_metadata(None)
