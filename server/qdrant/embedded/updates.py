"""Write requests to Edge's update operations.

The same fields come in two shapes, as a request of their own and inside an UpdateBatch;
both have the same field names, so one function per operation serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb
from qdrant_edge import UpdateOperation

from server.qdrant.embedded import checks
from server.qdrant.embedded.checks import VectorLayout
from server.qdrant.embedded.convert import from_payload
from server.qdrant.embedded.errors import BadRequestError, UnsupportedError
from server.qdrant.embedded.filters import edge_filter, edge_id

# Edge keeps the interpreter lock: some 40 ms per piece at 384 dimensions.
POINTS_PER_PIECE = 500

_MODES = {
    pb.UpdateMode.Upsert: edge.UpdateMode.Upsert,
    pb.UpdateMode.InsertOnly: edge.UpdateMode.InsertOnly,
    pb.UpdateMode.UpdateOnly: edge.UpdateMode.UpdateOnly,
}


def upsert(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """UpsertPoints, PointStructList."""
    condition = _update_filter(request)
    if request.update_mode not in _MODES:
        raise BadRequestError(f"Wrong input: update mode {request.update_mode} is not known")
    mode = _MODES[request.update_mode]
    checked = checks.points(request.points, layout)
    return [
        UpdateOperation.upsert_points(checked[i : i + POINTS_PER_PIECE], condition, mode)
        for i in range(0, len(checked), POINTS_PER_PIECE)
    ]


def delete(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """DeletePoints."""
    ids, chosen = _selected(request.points)
    if chosen is not None:
        return [UpdateOperation.delete_points_by_filter(chosen)]
    return [UpdateOperation.delete_points(ids)]


def update_vectors(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """UpdatePointVectors, UpdateVectors."""
    checked = checks.point_vectors(request.points, layout)
    return [UpdateOperation.update_vectors(checked, _update_filter(request))]


def delete_vectors(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """DeletePointVectors, DeleteVectors."""
    names = list(request.vectors.names)
    for name in names:
        layout.check_name(name)
    ids, chosen = _selected(request.points_selector)
    if chosen is not None:
        return [UpdateOperation.delete_vectors_by_filter(chosen, names)]
    return [UpdateOperation.delete_vectors(ids, names)]


def set_payload(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """SetPayloadPoints, SetPayload."""
    payload, key = from_payload(request.payload), _key(request)
    ids, chosen = _selected(request.points_selector)
    if chosen is not None:
        return [UpdateOperation.set_payload_by_filter(chosen, payload, key)]
    return [UpdateOperation.set_payload(ids, payload, key)]


def overwrite_payload(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """SetPayloadPoints of the OverwritePayload call, OverwritePayload."""
    payload, key = from_payload(request.payload), _key(request)
    ids, chosen = _selected(request.points_selector)
    if chosen is not None:
        return [UpdateOperation.overwrite_payload_by_filter(chosen, payload, key)]
    return [UpdateOperation.overwrite_payload(ids, payload, key)]


def delete_payload(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """DeletePayloadPoints, DeletePayload."""
    keys = list(request.keys)
    ids, chosen = _selected(request.points_selector)
    if chosen is not None:
        return [UpdateOperation.delete_payload_by_filter(chosen, keys)]
    return [UpdateOperation.delete_payload(ids, keys)]


def clear_payload(request: Any, layout: VectorLayout) -> list[UpdateOperation]:
    """ClearPayloadPoints, ClearPayload."""
    ids, chosen = _selected(request.points)
    if chosen is not None:
        return [UpdateOperation.clear_payload_by_filter(chosen)]
    return [UpdateOperation.clear_payload(ids)]


Planner = Callable[[Any, VectorLayout], list[UpdateOperation]]

_BATCH_PLANNERS: dict[str, Planner] = {
    "upsert": upsert,
    "delete_points": delete,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
    "update_vectors": update_vectors,
    "delete_vectors": delete_vectors,
}


def batch(operation: pb.PointsUpdateOperation, layout: VectorLayout) -> list[UpdateOperation]:
    """One operation of an UpdateBatch."""
    kind = operation.WhichOneof("operation")
    if kind is None:
        raise BadRequestError("Wrong input: an operation of the batch is empty")
    if kind not in _BATCH_PLANNERS:
        raise UnsupportedError(f"operation {kind!r} is not supported by the embedded Qdrant")
    request = getattr(operation, kind)
    checks.no_shard_key(request)
    return _BATCH_PLANNERS[kind](request, layout)


def _selected(selector: pb.PointsSelector) -> tuple[list[edge.PointId], edge.Filter | None]:
    kind = selector.WhichOneof("points_selector_one_of")
    if kind == "filter":
        return [], edge_filter(selector.filter)
    if kind == "points":
        return [edge_id(point_id) for point_id in selector.points.ids], None
    raise BadRequestError("Wrong input: No points selector: give ids or a filter")


def _key(request: Any) -> str | None:
    return request.key if request.HasField("key") else None


def _update_filter(request: Any) -> edge.Filter | None:
    return edge_filter(request.update_filter) if request.HasField("update_filter") else None
