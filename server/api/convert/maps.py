"""The map of a run out, and what is asked of it in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
from clusters.v1 import artifact_pb2, group_pb2

from server.api.convert.groups import group_to_pb
from server.errors import Violation
from server.jobs.maps import RunMap
from server.results.groups import Group

DEFAULT_MAX_POINTS = 10_000
MAX_POINTS = 100_000
"""Some 8 MB of answer; a client has to allow more than gRPC's 4 MB for that."""

DIMENSIONS = (2, 3)


def faults_of_map(request: artifact_pb2.GetVisualizationRequest) -> Iterator[Violation]:
    """Refuse numbers that no map can have."""
    if request.HasField("max_points") and not 1 <= request.max_points <= MAX_POINTS:
        yield Violation(
            "max_points",
            f"sent {request.max_points}; allowed: 1 to {MAX_POINTS}. For groups alone send "
            "centroids_only",
        )
    if request.HasField("dimensions") and request.dimensions not in DIMENSIONS:
        yield Violation("dimensions", f"sent {request.dimensions}; allowed: 2 or 3")


def max_points_of(request: artifact_pb2.GetVisualizationRequest) -> int | None:
    """Give the most points to send; None for none at all."""
    if request.centroids_only:
        return None
    return request.max_points if request.HasField("max_points") else DEFAULT_MAX_POINTS


def n_dims_of(request: artifact_pb2.GetVisualizationRequest) -> int:
    """Give the dimensions of the map: two unless three are asked for."""
    return request.dimensions if request.HasField("dimensions") else DIMENSIONS[0]


def map_to_pb(shown: RunMap) -> artifact_pb2.GetVisualizationResponse:
    """Give the map of a run."""
    return artifact_pb2.GetVisualizationResponse(
        cluster_id=shown.cluster.cluster_id,
        run_id=shown.run.run_id,
        points=[] if shown.points is None else list(_points(shown.points)),
        centroids=[_placed(group, shown) for group in shown.groups],
        total_points=shown.n_points,
        dimensions=shown.n_dims,
    )


def _points(table: pa.Table) -> Iterator[artifact_pb2.VisualizationPoint]:
    for row in table.to_pylist():
        yield artifact_pb2.VisualizationPoint(**row)


def _placed(group: Group, shown: RunMap) -> group_pb2.Group:
    """Give a group with its place; without one where no member is on the map."""
    return group_to_pb(replace(group, place=shown.centres.get(group.cluster_id)))
