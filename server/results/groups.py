"""The groups of a run and the table that says who belongs to which.

The members table is the one form of a run's membership: artifacts, output collections and
enrichment are all written from it. Its rows are sorted by group (in the order of the
groups, noise last) and then by distance to the centroid, so a group is one slice of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NOISE = -1
NOISE_ID = "cl_noise"
NOISE_LABEL = "Noise"
SUBGROUP = "_sub_"
"""What stands between a group's id and the number of a group inside it: ``cl_0_sub_1``."""

AXES = ("x", "y", "z")
"""Columns of a place on the map; `z` only in three dimensions."""

MEMBERS_SCHEMA = pa.schema(
    [
        pa.field("source_collection_id", pa.string(), nullable=False),
        pa.field("source_document_id", pa.string(), nullable=False),
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("cluster_label", pa.string(), nullable=False),
        pa.field("distance_to_centroid", pa.float32()),
        pa.field("confidence", pa.float32()),
        *(pa.field(axis, pa.float32()) for axis in AXES),
    ]
)


@dataclass(frozen=True, eq=False)
class Group:
    """One group that a run found.

    Attributes
    ----------
    cluster_id : str
        Its id within the run, such as ``cl_0``.
    label, summary, keywords
        What it is called; `summary` and `keywords` only where a language model gave them.
    member_count : int
        How many documents it has.
    parent_cluster_id : str or None
        The group that it is a part of, in a hierarchy.
    centroid : array of shape (n_dims,), float32, or None
        Its centre, in the space of the source vectors. None where there are no vectors.
    radius : float or None
        The 95th percentile of its members' distance to the centroid, in the run's metric.
    cohesion : float or None
        Mean distance of its members to the centroid, in the run's metric.
    feature_uri : str or None
        The feature it was found in, where each feature has groups of its own.
    place : array of shape (2 or 3,), float32, or None
        The median place of its members on the map, where the run made one.
    fields : mapping
        Payload fields that the group's document has beside these: by attributes, their values.
    """

    cluster_id: str
    label: str
    member_count: int
    summary: str | None = None
    keywords: tuple[str, ...] = ()
    parent_cluster_id: str | None = None
    centroid: NDArray[np.float32] | None = None
    radius: float | None = None
    cohesion: float | None = None
    feature_uri: str | None = None
    place: NDArray[np.float32] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def member_order(
    labels: NDArray[np.integer], distances: NDArray[np.floating] | None
) -> NDArray[np.int64]:
    """Give the order in which the members table lists the rows that `labels` describes.

    Parameters
    ----------
    labels : array of shape (n_points,), int
        Position of each row's group, -1 for noise.
    distances : array of shape (n_points,), float, or None
        Distance of each row to its centroid; NaN sorts last within the group.

    Returns
    -------
    array of shape (n_points,), int64
        Row numbers: by group, noise last, nearest first, ties in the order given.
    """
    group_key = np.where(labels == NOISE, np.iinfo(np.int64).max, labels.astype(np.int64))
    if distances is None:
        return np.argsort(group_key, kind="stable")
    return np.lexsort((distances, group_key))


def members_table(
    collection_ids: pa.Array | pa.ChunkedArray,
    document_ids: pa.Array | pa.ChunkedArray,
    labels: NDArray[np.integer],
    groups: Sequence[Group],
    *,
    distances: NDArray[np.floating] | None = None,
    confidence: NDArray[np.floating] | None = None,
    coordinates: NDArray[np.floating] | None = None,
    noise_id: str = NOISE_ID,
) -> pa.Table:
    """Build the members table from parallel columns, one row for each clustered document.

    Parameters
    ----------
    collection_ids, document_ids : string arrays of length n_points
        Where each document lives; ids are decimal numbers or UUIDs as text.
    labels : array of shape (n_points,), int
        Position in `groups`, -1 for noise.
    groups : sequence of Group
        What the labels mean.
    distances, confidence : array of shape (n_points,), float, or None
        NaN becomes null. Noise never has a distance.
    coordinates : array of shape (n_points, 2 or 3), float, or None
        Places on the map.
    noise_id : str
        What the documents of no group have as their group's id.

    Returns
    -------
    pa.Table
        Of `MEMBERS_SCHEMA`, in the order of `member_order`.

    Raises
    ------
    ValueError
        If the columns differ in length or a label names no group.
    """
    n_points = len(labels)
    _check_lengths(n_points, collection_ids, document_ids, distances, confidence, coordinates)
    if n_points and not (labels.min() >= NOISE and labels.max() < len(groups)):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, "
            f"there are {len(groups)} groups (0 to {len(groups) - 1}) and noise ({NOISE})"
        )
    if distances is not None:
        distances = np.where(labels == NOISE, np.nan, distances)
    order = member_order(labels, distances)
    names = np.where(labels == NOISE, len(groups), labels)[order]
    columns = [
        _strings(collection_ids).take(pa.array(order)),
        _strings(document_ids).take(pa.array(order)),
        _named(names, [group.cluster_id for group in groups] + [noise_id]),
        _named(names, [group.label for group in groups] + [NOISE_LABEL]),
        _floats(distances, order),
        _floats(confidence, order),
    ]
    axes = 0 if coordinates is None else coordinates.shape[1]
    for axis in range(len(AXES)):
        values = coordinates[:, axis] if coordinates is not None and axis < axes else None
        columns.append(_floats(values, order))
    return pa.Table.from_arrays(columns, schema=MEMBERS_SCHEMA)


def with_labels(members: pa.Table, labels: Mapping[str, str]) -> pa.Table:
    """Give a members table with other labels for some groups, by their ids."""
    if not labels:
        return members
    known = pa.array(list(labels), type=pa.string())
    new = pa.array(list(labels.values()), type=pa.string())
    position = members.schema.get_field_index("cluster_label")
    changed = new.take(pc.index_in(members["cluster_id"].combine_chunks(), value_set=known))
    column = pc.coalesce(changed, members["cluster_label"].combine_chunks())
    return members.set_column(position, members.schema.field(position), column)


def _check_lengths(n_points: int, *columns: pa.Array | NDArray[np.floating] | None) -> None:
    lengths = [len(column) for column in columns if column is not None]
    if any(length != n_points for length in lengths):
        raise ValueError(f"{n_points} labels beside columns of {lengths} rows")


def _strings(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return flat.cast(pa.string())


def _named(positions: NDArray[np.integer], names: list[str]) -> pa.Array:
    codes = pa.array(positions, type=pa.int64())
    return pa.array(names, type=pa.string()).take(codes)


def _floats(values: NDArray[np.floating] | None, order: NDArray[np.int64]) -> pa.Array:
    if values is None:
        return pa.nulls(len(order), pa.float32())
    return pa.array(values[order].astype(np.float32), from_pandas=True)
