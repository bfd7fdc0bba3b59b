"""What is refused before Edge sees it.

Edge applies a batch with one bad point in part and keeps it in its log, so sizes, names
and ids of a whole request are checked first, and only a good request is handed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from server.qdrant.embedded.convert import dense_params, from_payload, from_vectors
from server.qdrant.embedded.errors import BadRequestError, UnsupportedError
from server.qdrant.embedded.filters import edge_id

DENSE, MULTI, SPARSE = "dense", "multi", "sparse"


class VectorLayout:
    """Names, kinds and sizes of a collection's vectors."""

    def __init__(self, config: pb.CreateCollection) -> None:
        self._known: dict[str, tuple[str, int]] = {
            name: (MULTI if params.HasField("multivector_config") else DENSE, params.size)
            for name, params in dense_params(config).items()
        }
        self._known |= dict.fromkeys(config.sparse_vectors_config.map, (SPARSE, 0))

    def check_name(self, name: str) -> None:
        """BadRequestError, in Qdrant's words, for a vector that the collection lacks."""
        if name not in self._known:
            raise BadRequestError(f"Wrong input: Not existing vector name error: {name}")

    def check(self, vectors: Mapping[str, Any]) -> None:
        """BadRequestError unless every vector is known and of its kind and size."""
        for name, vector in vectors.items():
            self.check_name(name)
            kind, size = self._known[name]
            if kind == SPARSE:
                _check_sparse(name, vector)
            elif kind == MULTI:
                _check_rows(name, vector, size)
            elif isinstance(vector, edge.SparseVector) or (vector and isinstance(vector[0], list)):
                raise BadRequestError(
                    f"Wrong input: Conversion between sparse, multi and regular vectors failed: "
                    f"{name!r} is dense"
                )
            elif len(vector) != size:
                raise BadRequestError(
                    f"Wrong input: Vector dimension error: expected dim: {size}, got {len(vector)}"
                )


def _check_sparse(name: str, vector: Any) -> None:
    if not isinstance(vector, edge.SparseVector):
        raise BadRequestError(f"Wrong input: vector {name!r} is sparse, a dense one was sent")
    if len(vector.indices) != len(vector.values):
        raise BadRequestError(
            f"Wrong input: sparse vector {name!r} has {len(vector.indices)} indices "
            f"and {len(vector.values)} values"
        )
    if len(set(vector.indices)) != len(vector.indices):
        raise BadRequestError(f"Wrong input: sparse vector {name!r} repeats an index")


def _check_rows(name: str, vector: Any, size: int) -> None:
    if not isinstance(vector, list) or not vector:
        raise BadRequestError(f"Wrong input: vector {name!r} is a multivector with at least 1 row")
    # Qdrant takes a plain vector for a multivector of one row.
    rows = vector if isinstance(vector[0], list) else [vector]
    for row in rows:
        if len(row) != size:
            raise BadRequestError(
                f"Wrong input: Vector dimension error: expected dim: {size}, got {len(row)}"
            )


def points(messages: Iterable[pb.PointStruct], layout: VectorLayout) -> list[edge.Point]:
    """All points of an upsert, checked."""
    checked = []
    for message in messages:
        if not message.HasField("id"):
            raise BadRequestError("Wrong input: Empty ID is not allowed")
        if not message.HasField("vectors"):
            raise BadRequestError("Wrong input: Expected some vectors")
        vectors = from_vectors(message.vectors)
        layout.check(vectors)
        checked.append(edge.Point(edge_id(message.id), vectors, from_payload(message.payload)))
    return checked


def point_vectors(
    messages: Iterable[pb.PointVectors], layout: VectorLayout
) -> list[edge.PointVectors]:
    """All entries of a vector update, checked."""
    checked = []
    for message in messages:
        if not message.HasField("id"):
            raise BadRequestError("Wrong input: Empty ID is not allowed")
        vectors = from_vectors(message.vectors)
        layout.check(vectors)
        checked.append(edge.PointVectors(edge_id(message.id), vectors))
    return checked


def collection_settings(request: pb.CreateCollection) -> None:
    """Refuse settings that the embedded server could not honour."""
    if request.HasField("quantization_config"):
        raise UnsupportedError("quantization_config is not supported by the embedded Qdrant")
    if request.HasField("strict_mode_config"):
        raise UnsupportedError("strict_mode_config is not supported by the embedded Qdrant")
    for vector_name, params in dense_params(request).items():
        if params.HasField("quantization_config"):
            raise UnsupportedError(
                f"quantization_config (vector {vector_name!r}) is not supported "
                "by the embedded Qdrant"
            )
    if request.sharding_method == pb.ShardingMethod.Custom:
        raise UnsupportedError("custom sharding is not supported by the embedded Qdrant")


def no_shard_key(request: Any) -> None:
    """Refuse a request for certain shards: there is one, without a key."""
    if request.HasField("shard_key_selector"):
        raise UnsupportedError("shard_key_selector is not supported by the embedded Qdrant")
