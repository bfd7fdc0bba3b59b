"""A run's map: where each document lies in two or three dimensions, kept beside its results.

``layout.parquet`` (in three dimensions ``layout-3d.parquet``) has one row for each row of the
members table, in its order. Most maps are made when they are first asked for, after the manifest
was written; so each has a line of its own, ``layout.json``, with size and checksum. It is written
last, and its presence means that the map is whole. A map that the run itself made is in the
members table, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from server.results.artifacts import RunFolder
from server.results.failures import ArtifactError
from server.results.groups import AXES, SUBGROUP
from server.results.manifest import ArtifactFile
from server.results.tables import write_parquet

KEYS = ["source_collection_id", "source_document_id", "cluster_id"]


class MapFile(BaseModel):
    """The line about one map: its file, and how many dimensions and rows it has."""

    model_config = ConfigDict(frozen=True)

    file: ArtifactFile
    dimensions: int
    rows: int


def map_name(n_dims: int) -> str:
    """Give the name of the map's file, without its ending."""
    return "layout" if n_dims == 2 else f"layout-{n_dims}d"


def write_map(folder: RunFolder, members: pa.Table, places: NDArray[np.float32]) -> MapFile:
    """Keep a map, whole or not at all.

    Parameters
    ----------
    members : pa.Table
        Columns `KEYS`, in the order of the members table.
    places : array of shape (n_members, 2 or 3), float32
    """
    n_dims = places.shape[1]
    table = members.select(KEYS)
    for axis in range(n_dims):
        table = table.append_column(
            pa.field(AXES[axis], pa.float32(), nullable=False), pa.array(places[:, axis])
        )
    name = map_name(n_dims)
    file = folder.add_copy(f"{name}.parquet", lambda sink: write_parquet(table, sink))
    kept = MapFile(file=file, dimensions=n_dims, rows=len(table))
    folder.add_copy(f"{name}.json", partial(_put, kept.model_dump_json(indent=2).encode()))
    return kept


def _put(content: bytes, sink: BinaryIO) -> None:
    sink.write(content)


def find_map(folder: RunFolder, n_dims: int) -> MapFile | None:
    """Give the line about a map; None where there is no whole one.

    Raises
    ------
    ArtifactError
        If the line cannot be understood.
    """
    name = f"{map_name(n_dims)}.json"
    text = folder.read_copy(name)
    if text is None:
        return None
    try:
        return MapFile.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(f"{name} of {folder.run_id} is damaged: {error}", file=name) from error


def all_maps(folder: RunFolder) -> list[MapFile]:
    """List the maps that there are."""
    found = [find_map(folder, n_dims) for n_dims in (2, 3)]
    return [each for each in found if each is not None]


def read_map(folder: RunFolder, n_dims: int) -> pa.Table:
    """Read a map that `find_map` found."""
    with folder.open_parquet(f"{map_name(n_dims)}.parquet") as file:
        return file.read()


def places_of(table: pa.Table) -> NDArray[np.float32]:
    """Give the places as a matrix of shape (n_rows, n_dims), float32.

    A members table has a column for every axis; on a map in two dimensions `z` is null.
    """
    axes = [
        axis
        for axis in AXES
        if axis in table.column_names and table[axis].null_count < max(1, len(table))
    ]
    return np.column_stack([table[axis].to_numpy() for axis in axes])


def with_places(members: pa.Table, folder: RunFolder, n_dims: int) -> pa.Table:
    """Give members their places on the run's map; null for those it has not."""
    kept = read_map(folder, n_dims)
    at = pc.index_in(document_keys(members), value_set=document_keys(kept))
    for axis in AXES[:n_dims]:
        position = members.schema.get_field_index(axis)
        places = kept[axis].combine_chunks().take(at)
        members = members.set_column(position, members.schema.field(position), places)
    return members


def document_keys(table: pa.Table) -> pa.Array:
    """Give one text for each row that names its document."""
    texts = [table[name].combine_chunks().cast(pa.string()) for name in KEYS[:2]]
    return pc.binary_join_element_wise(*texts, "\0")


def group_centres(table: pa.Table) -> dict[str, NDArray[np.float32]]:
    """Give the median place of every group's members, those of groups below it included."""
    places = places_of(table)
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for name, start, stop in _slices(table):
        for each in _with_those_above(name):
            parts.setdefault(each, []).append(places[start:stop])
    return {name: np.median(np.concatenate(found), axis=0) for name, found in parts.items()}


def thin(table: pa.Table, max_points: int, seed: int = 42) -> pa.Table:
    """Choose rows to show: of each group in proportion to its size, and at least one.

    With more groups than `max_points` each of the largest has one. The same rows every time.
    """
    if len(table) <= max_points:
        return table
    slices = _slices(table)
    quotas = _quotas(np.array([stop - start for _, start, stop in slices]), max_points)
    rng = np.random.default_rng(seed)
    chosen = [
        start + rng.choice(stop - start, quota, replace=False)
        for (_, start, stop), quota in zip(slices, quotas, strict=True)
    ]
    return table.take(np.sort(np.concatenate(chosen)))


def nearest_rows(table: pa.Table, n_each: int) -> dict[str, NDArray[np.int64]]:
    """Give the rows of each group's members that are nearest to its centroid, at most so many.

    Those of a group that has only groups below it are not told apart here; it has none.
    """
    return {
        name: np.arange(start, min(stop, start + n_each)) for name, start, stop in _slices(table)
    }


def _quotas(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Share `total` among groups: one each, the others in proportion to what is left."""
    quotas = np.zeros(len(sizes), dtype=np.int64)
    if len(sizes) >= total:
        quotas[np.argsort(-sizes, kind="stable")[:total]] = 1
        return quotas
    left = sizes - 1
    exact = left * (total - len(sizes)) / left.sum()
    quotas += 1 + exact.astype(np.int64)
    missing = total - int(quotas.sum())
    quotas[np.argsort(np.floor(exact) - exact, kind="stable")[:missing]] += 1
    return quotas


def _slices(table: pa.Table) -> list[tuple[str, int, int]]:
    """Find the first row and the end of each group; a group's rows lie together."""
    if not len(table):
        return []
    runs = pc.run_end_encode(table["cluster_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    return list(zip(runs.values.to_pylist(), [0, *ends[:-1]], ends, strict=True))


def _with_those_above(name: str) -> Iterator[str]:
    """Give a group and all that it lies in: ``cl_0_sub_1``, then ``cl_0``."""
    while name:
        yield name
        name, _, _ = name.rpartition(SUBGROUP)
