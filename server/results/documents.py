"""What an output collection holds: one document for each group, one for each member."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from qdrant_client import grpc as pb

from server.qdrant.payloads import to_payload
from server.results.groups import Group

# Named, because a point may lack a named vector; the unnamed one is asked for by some servers.
VECTOR_NAME = "vector"

_ID_SPACE = uuid.UUID("6b0f4a2e-5d0c-4f0e-9a7d-2f6c1e8b9d30")
_BYTES_OF_A_MEMBER = 320
_FLOATS_TAG = b"\x0a"  # Field 1 of a `DenseVector`, packed.
_MEMBER_COLUMNS = (
    "source_collection_id",
    "source_document_id",
    "cluster_id",
    "cluster_label",
    "distance_to_centroid",
)


def document_id(output_name: str, *parts: str) -> str:
    """Derive a document's UUID (version 5) from what it stands for.

    A repeated write then meets the same document instead of adding a second one.
    """
    key = "\x1f".join((output_name, *parts)).encode()
    digest = hashlib.sha1(_ID_SPACE.bytes + key, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def centroid_points(groups: Sequence[Group], output_name: str) -> list[pb.PointStruct]:
    """Make the documents of some groups, each with its centroid as the vector."""
    return [
        pb.PointStruct(
            id=pb.PointId(uuid=document_id(output_name, "centroid", group.cluster_id)),
            vectors=_vectors(group.centroid),
            payload=to_payload(_centroid_payload(group)),
        )
        for group in groups
    ]


def _centroid_payload(group: Group) -> dict[str, Any]:
    payload: dict[str, Any] = {
        **group.fields,
        "is_centroid": True,
        "cluster_id": group.cluster_id,
        "label": group.label,
        "keywords": list(group.keywords),
        "member_count": group.member_count,
    }
    if group.summary is not None:
        payload["summary"] = group.summary
    if group.parent_cluster_id is not None:
        payload["parent_cluster_id"] = group.parent_cluster_id
    return payload


def member_points(
    members: pa.Table,
    rows: slice,
    output_name: str,
    vectors: NDArray[np.float32] | None,
    vector_rows: NDArray[np.int64] | None,
) -> list[pb.PointStruct]:
    """Make the documents of some rows of the members table.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32, or None
        None: members carry no vector.
    vector_rows : array of shape (n_members,), int64, or None
        Row of `vectors` for each row of `members`; None: the same order.
    """
    part = members.slice(rows.start, rows.stop - rows.start)
    columns = [part[name].to_pylist() for name in _MEMBER_COLUMNS]
    none = _vectors(None)
    found: Iterable[pb.Vectors] = repeat(none, len(part))
    if vectors is not None:
        found = map(_vectors, vectors[rows if vector_rows is None else vector_rows[rows]])
    shared = lru_cache(_member_of)  # What the members of a group have in common.
    points = []
    for collection, document, cluster, label, distance, vector in zip(*columns, found, strict=True):
        own = {"source_document_id": pb.Value(string_value=document)}
        if distance is not None:
            own["distance_to_centroid"] = pb.Value(double_value=distance)
        key = document_id(output_name, "member", collection, document, cluster)
        points.append(
            pb.PointStruct(
                id=pb.PointId(uuid=key),
                vectors=vector,
                payload=shared(collection, cluster, label) | own,
            )
        )
    return points


def _member_of(collection_id: str, cluster_id: str, cluster_label: str) -> dict[str, pb.Value]:
    return to_payload(
        {
            "is_centroid": False,
            "source_collection_id": collection_id,
            "cluster_id": cluster_id,
            "cluster_label": cluster_label,
        }
    )


def _vectors(vector: NDArray[np.float32] | None) -> pb.Vectors:
    if vector is None:
        return pb.Vectors(vectors=pb.NamedVectors())
    # A list of floats lies in the message as in the array, behind its size: no object each.
    floats = vector.astype("<f4").tobytes()
    dense = pb.DenseVector.FromString(_FLOATS_TAG + _varint(len(floats)) + floats)
    return pb.Vectors(vectors=pb.NamedVectors(vectors={VECTOR_NAME: pb.Vector(dense=dense)}))


def _varint(number: int) -> bytes:
    """Write a number as protobuf does: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def member_sizes(members: pa.Table, n_dims: int | None) -> NDArray[np.int64]:
    """Estimate the bytes that each member takes in a request, its vector included."""
    texts = [pc.binary_length(members[name]) for name in _MEMBER_COLUMNS[:4]]
    sizes = np.full(len(members), _BYTES_OF_A_MEMBER + 4 * (n_dims or 0), dtype=np.int64)
    for lengths in texts:
        sizes += lengths.to_numpy()
    return sizes
