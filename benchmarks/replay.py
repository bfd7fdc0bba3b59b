"""A loopback server that replays prebuilt Qdrant pages, so that the client is what is measured.

It speaks what an export asks, answers scrolls from bytes that lie ready, and takes writes
without storing them; of collections that are made meanwhile it counts the points. The pages are
Qdrant's own protocol, encoded here because the stubs would take minutes; readers on both sides
check that they decode alike.

Collections by name, each of `n_points` (ids from 0, or UUIDs):

    plain       the unnamed vector, in the `dense` message of Qdrant 1.16 and later
    packed      the same in the `data` field of older servers
    named       one named vector, `text`
    two         two named vectors, `text` and `image`
    uuids       plain, with UUIDs as ids
    multi       an unnamed multi-vector of four parts
"""

from __future__ import annotations

import bisect
import multiprocessing
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import grpc
import numpy as np
from qdrant_client import grpc as pb

from server.export.protobytes import fields
from server.qdrant.client import CHANNEL_OPTIONS, QdrantAddress

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

COLLECTIONS = ("plain", "packed", "named", "two", "uuids", "multi")
N_PARTS = 4
SECTIONS = (
    "admin",
    "database",
    "devel",
    "games",
    "net",
    "python",
    "science",
    "text",
    "utils",
    "web",
)
FIELDS = ("section", "year")
NAMES = {"named": ("text",), "two": ("text", "image")}
BYTES = 2
DISTINCT_VECTORS = 65_536


@dataclass(frozen=True)
class Size:
    """How much a replayed collection holds."""

    n_points: int
    n_dims: int
    n_pages_kept: int = 4096
    distance: str = "Cosine"
    n_groups: int = 0


NOISE_LENGTH = 0.8
"""Of what is added to a centre of length 1: members of a group then have a cosine of about 0.6, as
sentence embeddings of one subject have."""
NOISE_SHARE = 0.2
"""Rows of grouped ones that belong to no group."""


def grouped_vectors(n_rows: int, n_dims: int, n_groups: int) -> np.ndarray:
    """Make rows around centres, and some around none.

    Returns
    -------
    array of shape (n_rows, n_dims), float32
        Rows of length 1, all different.
    """
    rng = np.random.default_rng(43)
    centres = rng.standard_normal((n_groups, n_dims), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = rng.standard_normal((n_rows, n_dims), dtype=np.float32)
    rows *= np.float32(NOISE_LENGTH / n_dims**0.5)
    own = np.flatnonzero(rng.random(n_rows) >= NOISE_SHARE)
    rows[own] += centres[rng.integers(0, n_groups, len(own))]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def vectors(n_rows: int, n_dims: int) -> np.ndarray:
    """Make the replayed vectors; rows beyond the 65 536th repeat the first ones.

    Returns
    -------
    array of shape (min(n_rows, 65 536), n_dims), float32
        Rows of length 1, as Qdrant keeps them under Cosine.
    """
    rng = np.random.default_rng(42)
    rows = rng.standard_normal((min(n_rows, DISTINCT_VECTORS), n_dims), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def varint(value: int) -> bytes:
    """Encode a number as protobuf does."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """Encode a field of bytes."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


class Pages:
    """Pages of one collection, made when they are first asked for and kept."""

    def __init__(self, collection: str, size: Size, rows: np.ndarray) -> None:
        self._collection = collection
        self._size = size
        self._rows = rows
        self._has_uuids = collection == "uuids"
        rng = np.random.default_rng(7)
        self._uuids = (
            sorted(str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(size.n_points))
            if self._has_uuids
            else []
        )
        self.page = lru_cache(size.n_pages_kept)(self._page)

    def answer(self, request: pb.ScrollPoints) -> bytes:
        """Give the page that a request asks for."""
        start = 0
        if request.HasField("offset"):
            start = request.offset.num
            if self._has_uuids:
                start = bisect.bisect_left(self._uuids, request.offset.uuid)
        selector = request.with_payload
        keys = FIELDS if selector.enable else tuple(selector.include.fields)
        with_vectors = request.with_vectors.enable or bool(request.with_vectors.include.names)
        names = tuple(request.with_vectors.include.names)
        return self.page(start, request.limit, keys, with_vectors, names)

    def _page(
        self,
        start: int,
        limit: int,
        keys: tuple[str, ...],
        with_vectors: bool,
        names: tuple[str, ...],
    ) -> bytes:
        stop = min(start + limit, self._size.n_points)
        parts = [] if stop >= self._size.n_points else [field(1, self._id(stop))]
        for row in range(start, stop):
            record = field(1, self._id(row))
            record += self._payload(row, keys)
            if with_vectors:
                record += field(4, self._vectors(row, names))
            parts.append(field(2, record))
        parts.append(b"\x19" + struct.pack("<d", 0.001))
        return b"".join(parts)

    def point_id(self, row: int) -> pb.PointId:
        """Give the id of a row."""
        return pb.PointId.FromString(self._id(row))

    def _id(self, row: int) -> bytes:
        return field(2, self._uuids[row].encode()) if self._has_uuids else b"\x08" + varint(row)

    def _vectors(self, row: int, names: tuple[str, ...]) -> bytes:
        output = self._output(row)
        own = NAMES.get(self._collection)
        if own is None:
            return field(1, output)
        chosen = [name for name in own if not names or name in names]
        return field(2, b"".join(field(1, field(1, n.encode()) + field(2, output)) for n in chosen))

    def _output(self, row: int) -> bytes:
        floats = self._rows[row % len(self._rows)].tobytes()
        if self._collection == "packed":
            return field(1, floats)
        if self._collection != "multi":
            return field(101, field(1, floats))
        parts = [self._rows[(row + part) % len(self._rows)].tobytes() for part in range(N_PARTS)]
        return field(103, b"".join(field(1, field(1, part)) for part in parts))

    @staticmethod
    def _payload(row: int, keys: tuple[str, ...]) -> bytes:
        """Those of the two fields that are asked for, in any order, as Qdrant's maps give them."""
        values = {
            "section": field(4, SECTIONS[row * 7 % len(SECTIONS)].encode()),
            "year": b"\x18" + varint(1990 + row % 36),
        }
        entries = [
            field(2, field(1, key.encode()) + field(2, value))
            for key, value in values.items()
            if key in keys
        ]
        return b"".join(entries if row % 3 else reversed(entries))


def _serve(size: Size, ready: Connection) -> None:
    if size.n_groups:
        rows = grouped_vectors(size.n_points, size.n_dims, size.n_groups)
    else:
        rows = vectors(size.n_points, size.n_dims)
    if size.distance == "Dot":  # Which keeps the lengths that vectors come with.
        rows *= np.linspace(0.5, 2, len(rows), dtype=np.float32)[:, None]
    pages = {name: Pages(name, size, rows) for name in COLLECTIONS}
    made = Made()

    server = grpc.server(ThreadPoolExecutor(8), options=CHANNEL_OPTIONS)
    for service, handlers in (
        ("Points", _points(pages, size, made)),
        ("Collections", _collections(size) | _making(made)),
    ):
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(f"qdrant.{service}", handlers)]
        )
    ready.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    with suppress(EOFError):  # The other side is gone.
        ready.recv()
    server.stop(None)


class Made:
    """Collections that are made meanwhile: how many points each was sent, and their aliases."""

    def __init__(self) -> None:
        self.n_points: dict[str, int] = {}
        self.aliases: dict[str, str] = {}
        self._lock = threading.Lock()

    def upsert(self, request: bytes) -> None:
        """Count the points of an `UpsertPoints`, where its collection is one of these."""
        if self.n_points:
            found = list(fields(request, 0, len(request)))
            name = next(request[f.start : f.stop].decode() for f in found if f.number == 1)
            if name in self.n_points:
                with self._lock:
                    self.n_points[name] += sum(f.number == 3 for f in found)

    def switch(self, request: pb.ChangeAliases) -> None:
        """Change aliases."""
        for action in request.actions:
            if action.HasField("delete_alias"):
                self.aliases.pop(action.delete_alias.alias_name)
            else:
                self.aliases[action.create_alias.alias_name] = action.create_alias.collection_name


def _points(pages: dict[str, Pages], size: Size, made: Made) -> dict[str, Handler]:
    """Answer what is asked of points."""
    update = pb.UpdateResult(operation_id=0, status=pb.UpdateStatus.Completed)
    done = pb.PointsOperationResponse(result=update)

    def scroll(request: pb.ScrollPoints, context: grpc.ServicerContext) -> bytes:
        return pages[request.collection_name].answer(request)

    @lru_cache
    def updated(n_operations: int) -> bytes:
        return pb.UpdateBatchResponse(result=[update] * n_operations).SerializeToString()

    def batch(request: pb.UpdateBatchPoints, context: grpc.ServicerContext) -> bytes:
        return updated(len(request.operations))

    def get(request: pb.GetPoints) -> pb.GetResponse:
        return pb.GetResponse(result=[pb.RetrievedPoint(id=point) for point in request.ids])

    def upsert(request: bytes, context: grpc.ServicerContext) -> bytes:
        made.upsert(request)
        return done.SerializeToString()

    def count(request: pb.CountPoints) -> pb.CountResponse:
        n_points = made.n_points.get(request.collection_name, size.n_points)
        return pb.CountResponse(result=pb.CountResult(count=n_points))

    def sample(request: pb.QueryPoints) -> pb.QueryResponse:
        chosen = np.random.default_rng(1).integers(0, size.n_points, request.limit).tolist()
        ids = [pages[request.collection_name].point_id(row) for row in chosen]
        return pb.QueryResponse(result=[pb.ScoredPoint(id=point) for point in ids])

    return {
        "Scroll": grpc.unary_unary_rpc_method_handler(scroll, pb.ScrollPoints.FromString),
        "Upsert": grpc.unary_unary_rpc_method_handler(upsert),
        "CreateFieldIndex": grpc.unary_unary_rpc_method_handler(
            lambda request, context: done.SerializeToString()
        ),
        "SetPayload": grpc.unary_unary_rpc_method_handler(
            lambda request, context: done.SerializeToString()
        ),
        "UpdateBatch": grpc.unary_unary_rpc_method_handler(batch, pb.UpdateBatchPoints.FromString),
        "Get": _handler(get, pb.GetPoints),
        "Count": _handler(count, pb.CountPoints),
        "Query": _handler(sample, pb.QueryPoints),
    }


def _collections(size: Size) -> dict[str, Handler]:
    """Describe the collections."""
    params = pb.VectorParams(size=size.n_dims, distance=pb.Distance.Value(size.distance))

    def get(request: pb.GetCollectionInfoRequest) -> pb.GetCollectionInfoResponse:
        config = pb.VectorsConfig(params=params)
        if request.collection_name in NAMES:
            named = dict.fromkeys(NAMES[request.collection_name], params)
            config = pb.VectorsConfig(params_map=pb.VectorParamsMap(map=named))
        info = pb.CollectionInfo(
            status=pb.CollectionStatus.Green,
            optimizer_status=pb.OptimizerStatus(ok=True),
            points_count=size.n_points,
            config=pb.CollectionConfig(
                params=pb.CollectionParams(vectors_config=config),
                hnsw_config=pb.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=pb.OptimizersConfigDiff(
                    deleted_threshold=0.2,
                    vacuum_min_vector_number=1000,
                    default_segment_number=0,
                    flush_interval_sec=5,
                ),
                wal_config=pb.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            ),
        )
        return pb.GetCollectionInfoResponse(result=info)

    return {"Get": _handler(get, pb.GetCollectionInfoRequest)}


def _making(made: Made) -> dict[str, Handler]:
    """Make and show collections, as outputs are staged and switched."""
    done = pb.CollectionOperationResponse(result=True)

    def create(request: pb.CreateCollection) -> pb.CollectionOperationResponse:
        made.n_points[request.collection_name] = 0
        return done

    def delete(request: pb.DeleteCollection) -> pb.CollectionOperationResponse:
        made.n_points.pop(request.collection_name, None)
        return done

    def switch(request: pb.ChangeAliases) -> pb.CollectionOperationResponse:
        made.switch(request)
        return done

    def names(request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        found = [pb.CollectionDescription(name=name) for name in (*COLLECTIONS, *made.n_points)]
        return pb.ListCollectionsResponse(collections=found)

    def aliases(request: pb.ListAliasesRequest) -> pb.ListAliasesResponse:
        found = [
            pb.AliasDescription(alias_name=alias, collection_name=name)
            for alias, name in made.aliases.items()
        ]
        return pb.ListAliasesResponse(aliases=found)

    return {
        "Create": _handler(create, pb.CreateCollection),
        "Delete": _handler(delete, pb.DeleteCollection),
        "UpdateAliases": _handler(switch, pb.ChangeAliases),
        "List": _handler(names, pb.ListCollectionsRequest),
        "ListAliases": _handler(aliases, pb.ListAliasesRequest),
    }


def _handler(answer: Callable[[Any], Any], request: Any) -> Handler:
    return grpc.unary_unary_rpc_method_handler(
        lambda asked, context: answer(asked).SerializeToString(), request.FromString
    )


@contextmanager
def replaying(size: Size) -> Iterator[QdrantAddress]:
    """Run the server in a process of its own for the length of the block."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(size, theirs), daemon=True)
    process.start()
    try:
        yield QdrantAddress("127.0.0.1", ours.recv())
    finally:
        ours.send("stop")
        process.join(10)
        process.kill()
