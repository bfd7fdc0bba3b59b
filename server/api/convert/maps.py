"""The map of a run out, and what is asked of it in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
from clusters.v1 import artifact_pb2, group_pb2

from server.api.convert.groups import group_to_pb
from server.errors import Violation
from server.export.paths import path_fault
from server.jobs.maps import RunMap
from server.jobs.pictures import PictureOrder
from server.results.groups import Group

DEFAULT_MAX_POINTS = 10_000
MAX_POINTS = 200_000
"""Some 16 MB of answer; a client has to allow more than gRPC's 4 MB for that."""

DIMENSIONS = (2, 3)
POINTS, HTML, PNG = "points", "html", "png"
FORMATS = (POINTS, HTML, PNG)
MAX_HOVER_FIELDS = 20


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
    if request.HasField("format") and request.format not in FORMATS:
        yield Violation("format", f"sent {request.format!r}; allowed: {', '.join(FORMATS)}")
    yield from _faults_of_picture(request)


def _faults_of_picture(request: artifact_pb2.GetVisualizationRequest) -> Iterator[Violation]:
    if is_picture(request):
        if request.centroids_only:
            yield Violation("centroids_only", "goes with format points only")
        if n_dims_of(request) == DIMENSIONS[1]:
            yield Violation("dimensions", "sent 3; a picture has 2")
    if request.format != HTML:
        told = {"title_field": request.title_field, "hover_fields": request.hover_fields}
        yield from (Violation(name, "goes with format html only") for name, v in told.items() if v)
    if len(request.hover_fields) > MAX_HOVER_FIELDS:
        n_sent = len(request.hover_fields)
        yield Violation("hover_fields", f"sent {n_sent}; allowed: {MAX_HOVER_FIELDS} at most")
    paths = {f"hover_fields[{i}]": path for i, path in enumerate(request.hover_fields)}
    if request.HasField("title_field"):
        paths["title_field"] = request.title_field
    for place, path in paths.items():
        if (fault := path_fault(path)) is not None:
            yield Violation(place, fault)


def is_picture(request: artifact_pb2.GetVisualizationRequest) -> bool:
    """Say whether a page or a picture is asked for."""
    return request.format in (HTML, PNG)


def picture_order_of(request: artifact_pb2.GetVisualizationRequest) -> PictureOrder:
    """Give what a picture is to show."""
    return PictureOrder(
        max_points=request.max_points if request.HasField("max_points") else MAX_POINTS,
        title_field=request.title_field or None,
        hover_fields=tuple(request.hover_fields),
        with_documents=request.format == HTML,
    )


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


def picture_to_pb(
    shown: RunMap, *, html: str | None = None, png: bytes | None = None
) -> artifact_pb2.GetVisualizationResponse:
    """Give the map of a run as a picture, its groups beside it."""
    answer = map_to_pb(replace(shown, points=None))
    if html is not None:
        answer.html = html
    if png is not None:
        answer.png = png
    return answer


def _points(table: pa.Table) -> Iterator[artifact_pb2.VisualizationPoint]:
    for row in table.to_pylist():
        yield artifact_pb2.VisualizationPoint(**row)


def _placed(group: Group, shown: RunMap) -> group_pb2.Group:
    """Give a group with its place; without one where no member is on the map."""
    return group_to_pb(replace(group, place=shown.centres.get(group.cluster_id)))
