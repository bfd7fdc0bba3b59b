"""Values between Qdrant's protobuf messages and Edge: settings, payloads, vectors, records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from server.qdrant.embedded.errors import BadRequestError, UnsupportedError
from server.qdrant.payloads import to_payload

# Searching pools of one shard; the default would be one thread per core and shard.
SEARCH_THREADS_PER_SHARD = 2

# Edge wants a vector in every shard, Qdrant does not. No request can name this one.
_PLACEHOLDER_VECTOR = "placeholder"

_DISTANCES = {
    pb.Distance.Cosine: edge.Distance.Cosine,
    pb.Distance.Euclid: edge.Distance.Euclid,
    pb.Distance.Dot: edge.Distance.Dot,
    pb.Distance.Manhattan: edge.Distance.Manhattan,
}
_DATATYPES = {
    pb.Datatype.Default: None,
    pb.Datatype.Float32: edge.VectorStorageDatatype.Float32,
    pb.Datatype.Float16: edge.VectorStorageDatatype.Float16,
    pb.Datatype.Uint8: edge.VectorStorageDatatype.Uint8,
}


def dense_params(config: pb.CreateCollection) -> dict[str, pb.VectorParams]:
    """Dense vectors of a collection by name; the unnamed one is ``""``."""
    kind = config.vectors_config.WhichOneof("config")
    if kind == "params":
        return {"": config.vectors_config.params}
    return dict(config.vectors_config.params_map.map)


def edge_config(config: pb.CreateCollection) -> edge.EdgeConfig:
    """Shard settings for a new collection. Index tuning has no effect: nothing is optimized."""
    dense = {name: _vector_params(p) for name, p in dense_params(config).items()}
    sparse = {
        name: edge.EdgeSparseVectorParams(
            modifier=edge.Modifier.Idf if p.modifier == pb.Modifier.Idf else None
        )
        for name, p in config.sparse_vectors_config.map.items()
    }
    if not dense and not sparse:
        sparse = {_PLACEHOLDER_VECTOR: edge.EdgeSparseVectorParams()}
    return edge.EdgeConfig(
        vectors=dense, sparse_vectors=sparse, max_search_threads=SEARCH_THREADS_PER_SHARD
    )


def _vector_params(params: pb.VectorParams) -> edge.EdgeVectorParams:
    if params.distance not in _DISTANCES:
        raise BadRequestError("Wrong input: a vector has no distance")
    if not 1 <= params.size <= 65536:
        raise BadRequestError(f"Wrong input: vector size {params.size} is not in 1..65536")
    if params.datatype not in _DATATYPES:
        raise UnsupportedError(
            f"vector datatype {pb.Datatype.Name(params.datatype)} is not supported "
            "by the embedded Qdrant"
        )
    multivector = None
    if params.HasField("multivector_config"):
        multivector = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    return edge.EdgeVectorParams(
        size=params.size,
        distance=_DISTANCES[params.distance],
        multivector_config=multivector,
        datatype=_DATATYPES[params.datatype],
    )


def from_value(value: pb.Value) -> Any:
    """A payload value as Python's; BadRequestError for a number that JSON lacks."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_payload(value.struct_value.fields)
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    if kind == "null_value" or kind is None:
        return None
    plain = getattr(value, kind)
    if kind == "double_value" and not math.isfinite(plain):
        raise BadRequestError(f"Wrong input: cannot convert {plain} to a json number")
    return plain


def from_payload(payload: Mapping[str, pb.Value]) -> dict[str, Any]:
    """A payload as a dict."""
    return {key: from_value(value) for key, value in payload.items()}


def from_vector(vector: pb.Vector) -> Any:
    """One vector: floats, rows of floats, or an `edge.SparseVector`."""
    kind = vector.WhichOneof("vector")
    if kind == "dense":
        return list(vector.dense.data)
    if kind == "sparse":
        return edge.SparseVector(list(vector.sparse.indices), list(vector.sparse.values))
    if kind == "multi_dense":
        return [list(row.data) for row in vector.multi_dense.vectors]
    if kind is not None:
        raise UnsupportedError(f"inference ({kind}) is not supported by the embedded Qdrant")
    return _from_deprecated_vector(vector)


def _from_deprecated_vector(vector: pb.Vector) -> Any:
    # Clients before 1.14 send the flat form.
    data = list(vector.data)
    if vector.HasField("indices"):
        return edge.SparseVector(list(vector.indices.data), data)
    if vector.HasField("vectors_count") and vector.vectors_count:
        size = len(data) // vector.vectors_count
        return [data[i : i + size] for i in range(0, len(data), size)] if size else []
    return data


def from_vectors(vectors: pb.Vectors) -> dict[str, Any]:
    """All vectors of a point by name; the unnamed one is ``""``."""
    kind = vectors.WhichOneof("vectors_options")
    if kind == "vector":
        return {"": from_vector(vectors.vector)}
    return {name: from_vector(vector) for name, vector in vectors.vectors.vectors.items()}


def _to_vector(vector: Any) -> pb.VectorOutput:
    if isinstance(vector, edge.SparseVector):
        return pb.VectorOutput(sparse=pb.SparseVector(values=vector.values, indices=vector.indices))
    if vector and isinstance(vector[0], list):
        rows = [pb.DenseVector(data=row) for row in vector]
        return pb.VectorOutput(multi_dense=pb.MultiDenseVector(vectors=rows))
    return pb.VectorOutput(dense=pb.DenseVector(data=vector))


def to_vectors(vector: Any) -> pb.VectorsOutput | None:
    """What Edge gives for a point's vectors; None where none were asked for."""
    if vector is None:
        return None
    if isinstance(vector, dict):
        named = {name: _to_vector(one) for name, one in vector.items()}
        return pb.VectorsOutput(vectors=pb.NamedVectorsOutput(vectors=named))
    return pb.VectorsOutput(vector=_to_vector(vector))


def to_id(point_id: Any) -> pb.PointId:
    """An id from Edge: an int, or a UUID."""
    if isinstance(point_id, int):
        return pb.PointId(num=point_id)
    return pb.PointId(uuid=str(point_id))


def _order_value(value: Any) -> pb.OrderValue | None:
    if value is None:
        return None
    return pb.OrderValue(int=value) if isinstance(value, int) else pb.OrderValue(float=value)


def to_retrieved(records: Iterable[edge.Record]) -> list[pb.RetrievedPoint]:
    """Records of a scroll or a retrieve."""
    return [
        pb.RetrievedPoint(
            id=to_id(record.id),
            payload=to_payload(record.payload or {}),
            vectors=to_vectors(record.vector),
            order_value=_order_value(record.order_value),
        )
        for record in records
    ]


def to_scored(points: Iterable[edge.ScoredPoint]) -> list[pb.ScoredPoint]:
    """Hits of a search."""
    return [
        pb.ScoredPoint(
            id=to_id(point.id),
            payload=to_payload(point.payload or {}),
            score=point.score,
            version=point.version,
            vectors=to_vectors(point.vector),
            order_value=_order_value(point.order_value),
        )
        for point in points
    ]


def payload_selector(request: Any, *, default: bool) -> Any:
    """The `with_payload` of a request as Edge takes it."""
    if not request.HasField("with_payload"):
        return default
    selector = request.with_payload
    kind = selector.WhichOneof("selector_options")
    if kind == "include":
        return edge.PayloadSelector.Include(list(selector.include.fields))
    if kind == "exclude":
        return edge.PayloadSelector.Exclude(list(selector.exclude.fields))
    return selector.enable


def vector_selector(request: Any) -> bool | list[str]:
    """The `with_vectors` of a request as Edge takes it; no vectors when it is not set."""
    if not request.HasField("with_vectors"):
        return False
    selector = request.with_vectors
    if selector.WhichOneof("selector_options") == "include":
        return list(selector.include.names)
    enable: bool = selector.enable
    return enable
