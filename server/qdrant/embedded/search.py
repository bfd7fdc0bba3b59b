"""Nearest-neighbour calls: Search and Query, for what this service and its users need.

Supported: nearest to a vector or to a stored point, order by a payload field, random
samples, and listing by id. Everything else is refused by name.
"""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from server.qdrant.embedded.checks import VectorLayout
from server.qdrant.embedded.convert import payload_selector, vector_selector
from server.qdrant.embedded.errors import BadRequestError, MissingError, UnsupportedError
from server.qdrant.embedded.filters import edge_id, optional_filter, rfc3339

DEFAULT_LIMIT = 10


def search_request(request: pb.SearchPoints, layout: VectorLayout) -> edge.QueryRequest:
    """SearchPoints as an Edge query."""
    name = request.vector_name
    vector: Any = list(request.vector)
    if request.HasField("sparse_indices"):
        vector = edge.SparseVector(list(request.sparse_indices.data), vector)
    layout.check({name: vector})
    return edge.QueryRequest(
        limit=_limit(request.limit),
        offset=request.offset,
        query=edge.Query.Nearest(vector, using=name or None),
        filter=optional_filter(request),
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        params=_params(request),
        with_payload=payload_selector(request, default=False),
        with_vector=vector_selector(request),
    )


def query_request(
    request: pb.QueryPoints, layout: VectorLayout, shard: edge.EdgeShard
) -> edge.QueryRequest:
    """QueryPoints as an Edge query; a stored point's vector is read from the shard."""
    if request.prefetch:
        raise UnsupportedError("query prefetch is not supported by the embedded Qdrant")
    if request.HasField("lookup_from"):
        raise UnsupportedError("query lookup_from is not supported by the embedded Qdrant")
    query, excluded = _query(request, layout, shard)
    chosen = optional_filter(request)
    if excluded is not None:
        # Qdrant leaves the asked-for point itself out of its neighbours.
        chosen = edge.Filter(
            must=[chosen] if chosen is not None else None,
            must_not=[edge.HasIdCondition({excluded})],
        )
    return edge.QueryRequest(
        limit=_limit(request.limit if request.HasField("limit") else DEFAULT_LIMIT),
        offset=request.offset,
        query=query,
        filter=chosen,
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        params=_params(request),
        with_payload=payload_selector(request, default=False),
        with_vector=vector_selector(request),
    )


def _query(
    request: pb.QueryPoints, layout: VectorLayout, shard: edge.EdgeShard
) -> tuple[Any, edge.PointId | None]:
    if not request.HasField("query"):
        return None, None
    kind = request.query.WhichOneof("variant")
    if kind == "order_by":
        return order_by(request.query.order_by), None
    if kind == "sample":
        return edge.Sample.Random, None
    if kind == "nearest":
        return _nearest(request.query.nearest, request.using, layout, shard)
    raise UnsupportedError(f"query {kind!r} is not supported by the embedded Qdrant")


def _nearest(
    target: pb.VectorInput, using: str, layout: VectorLayout, shard: edge.EdgeShard
) -> tuple[Any, edge.PointId | None]:
    kind = target.WhichOneof("variant")
    point_id = None
    vector: Any
    if kind == "dense":
        vector = list(target.dense.data)
    elif kind == "sparse":
        vector = edge.SparseVector(list(target.sparse.indices), list(target.sparse.values))
    elif kind == "multi_dense":
        vector = [list(row.data) for row in target.multi_dense.vectors]
    elif kind == "id":
        point_id = edge_id(target.id)
        vector = _stored_vector(shard, point_id, using)
    else:
        raise UnsupportedError(f"query by {kind!r} is not supported by the embedded Qdrant")
    layout.check({using: vector})
    return edge.Query.Nearest(vector, using=using or None), point_id


def _stored_vector(shard: edge.EdgeShard, point_id: edge.PointId, using: str) -> Any:
    records = shard.retrieve([point_id], False, True)
    if not records:
        raise MissingError(f"Not found: No point with id {point_id} found")
    stored: Any = records[0].vector
    vector = stored.get(using) if isinstance(stored, dict) else stored
    if vector is None:
        raise BadRequestError(f"Wrong input: point {point_id} has no vector {using!r}")
    return vector


def order_by(message: pb.OrderBy) -> edge.OrderBy:
    """An order by a payload field, which must have an index that knows ranges."""
    is_descending = message.direction == pb.Direction.Desc
    start: Any = None
    if message.HasField("start_from"):
        kind = message.start_from.WhichOneof("value")
        if kind is not None:
            start = getattr(message.start_from, kind)
            start = rfc3339(start) if kind == "timestamp" else start
    return edge.OrderBy(
        message.key, edge.Direction.Desc if is_descending else edge.Direction.Asc, start
    )


def _limit(limit: int) -> int:
    if limit < 1:
        raise BadRequestError("Wrong input: limit must be 1 or more")
    return limit


def _params(request: Any) -> edge.SearchParams | None:
    if not request.HasField("params"):
        return None
    params = request.params
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef if params.HasField("hnsw_ef") else None, exact=params.exact
    )
