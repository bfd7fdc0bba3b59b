"""Loading Parquet files into a Qdrant collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qdrant_client import QdrantClient, models
from qdrant_client import grpc as pb

from server.qdrant.client import qdrant_errors
from server.qdrant.errors import ImportFileError, VectorNotFoundError, VectorSizeMismatchError
from server.qdrant.names import COLLECTION_FIELD
from server.qdrant.parquet_columns import ColumnPlan, plan_columns
from server.qdrant.parquet_points import FloatRows, PointBatch, read_points
from server.qdrant.payloads import to_payload
from server.qdrant.schema import UNNAMED_VECTOR, CollectionSchema, describe
from server.qdrant.shared import place_of

DEFAULT_BATCH_BYTES = 4 * 2**20
MAX_ROWS_PER_BATCH = 2_000
# What a row is taken to need besides its vectors, to size the batches.
_PAYLOAD_BYTES_PER_ROW = 512
_MAX_NAMED_ROWS = 10
_WRITE_TIMEOUT_S = 300


@dataclass(frozen=True)
class SkippedRow:
    """A row that did not become a point: its number over all files, from 0, and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    points : int
        Points written.
    vectors : dict of str to int
        Qdrant vector names and their sizes.
    payload_fields : tuple of str
        Columns that became payload.
    seconds : float
        Wall time.
    skipped : int
        Rows left out because a vector is missing, of the wrong length or not finite.
    skipped_rows : tuple of SkippedRow
        The first ten of them.
    id_column : str or None
        Column of the ids; None where rows were numbered.
    """

    points: int
    vectors: dict[str, int]
    payload_fields: tuple[str, ...]
    seconds: float
    skipped: int
    skipped_rows: tuple[SkippedRow, ...]
    id_column: str | None


def import_parquet(
    client: QdrantClient,
    qdrant_collection: str,
    paths: Sequence[Path | str],
    *,
    vectors: Sequence[str] | None = None,
    id_column: str | None = None,
    distance: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    batch_bytes: int = DEFAULT_BATCH_BYTES,
) -> ImportReport:
    """Write the rows of Parquet files as points of a collection, made if it is missing.

    List columns of floats become named vectors, the ids come from `id_column`, all other
    columns become payload; missing values are left out. The same file may be imported
    again: points of the same id are replaced. Blocking.

    Parameters
    ----------
    client : QdrantClient
        Connected by gRPC.
    qdrant_collection : str
        Final name in Qdrant.
    paths : sequence of path
        Files with the same columns. Row numbers go on from file to file.
    vectors : sequence of str or None
        Columns that become vectors; None takes every column that is a list of floats.
    id_column : str or None
        Column of integers or UUIDs. None takes ``id`` if it is one, else row numbers.
    distance : str or None
        ``Cosine``, ``Euclid``, ``Dot`` or ``Manhattan`` for a new collection; None is
        Cosine, or whatever the collection has.
    progress : callable or None
        Called with rows done and rows in all, after each batch.
    batch_bytes : int
        Rough size of one write, in bytes.

    Raises
    ------
    ImportFileError
        If a file, its columns or its ids cannot be used. Nothing has been written.
    VectorSizeMismatchError, VectorNotFoundError
        If the collection exists with other vectors. Nothing has been written.
    """
    started = time.monotonic()
    files = [Path(path) for path in paths]
    plan = plan_columns(files, vectors, id_column)
    names = _prepare_collection(client, qdrant_collection, plan, distance)
    writer = _Writer(client, qdrant_collection, names)
    rows_per_batch = _rows_per_batch(plan, batch_bytes)
    done = 0
    with ThreadPoolExecutor(1, thread_name_prefix="import") as pool:
        pending: Future[None] | None = None
        for batch in _all_batches(files, plan, rows_per_batch):
            request = writer.request(batch)
            # One write is under way while the next is being built.
            if pending is not None:
                pending.result()
            pending = pool.submit(writer.send, request)
            done += len(batch.ids) + len(batch.bad_rows)
            if progress is not None:
                progress(done, plan.n_rows)
        if pending is not None:
            pending.result()
    return ImportReport(
        points=writer.points,
        vectors={names[column]: size for column, size in plan.vector_sizes.items()},
        payload_fields=plan.payload,
        seconds=time.monotonic() - started,
        skipped=writer.skipped,
        skipped_rows=tuple(writer.skipped_rows),
        id_column=plan.id_column,
    )


def _all_batches(
    files: Sequence[Path], plan: ColumnPlan, rows_per_batch: int
) -> Iterator[PointBatch]:
    first_row = 0
    for path in files:
        for batch in read_points(path, plan, first_row=first_row, rows_per_batch=rows_per_batch):
            first_row += len(batch.ids) + len(batch.bad_rows)
            yield batch


def _rows_per_batch(plan: ColumnPlan, batch_bytes: int) -> int:
    bytes_per_row = 4 * sum(plan.vector_sizes.values()) + _PAYLOAD_BYTES_PER_ROW
    return max(1, min(MAX_ROWS_PER_BATCH, batch_bytes // bytes_per_row))


def _prepare_collection(
    client: QdrantClient, name: str, plan: ColumnPlan, distance: str | None
) -> dict[str, str]:
    """Make or check the collection; returns the vector name of each vector column."""
    place = place_of(name)
    with qdrant_errors(name):
        if client.collection_exists(place.collection):
            return _matching_vectors(describe(client, place.collection), plan, distance)
        chosen = models.Distance(distance or "Cosine")
        client.create_collection(
            place.collection,
            vectors_config={
                column: models.VectorParams(size=size, distance=chosen)
                for column, size in plan.vector_sizes.items()
            },
        )
        if place.shared_as is not None:
            client.create_payload_index(
                place.collection, COLLECTION_FIELD, models.PayloadSchemaType.KEYWORD, wait=True
            )
    return {column: column for column in plan.vector_sizes}


def _matching_vectors(
    schema: CollectionSchema, plan: ColumnPlan, distance: str | None
) -> dict[str, str]:
    names = {column: column for column in plan.vector_sizes}
    if set(schema.vectors) == {UNNAMED_VECTOR} and len(names) == 1:
        names = dict.fromkeys(names, UNNAMED_VECTOR)
    for column, size in plan.vector_sizes.items():
        spec = schema.vectors.get(names[column])
        if spec is None:
            raise VectorNotFoundError(schema.name, column, schema.sizes())
        if spec.size != size:
            raise VectorSizeMismatchError(
                f"column {column!r} has {size} dimensions, vector {names[column]!r} of the "
                f"collection {schema.name!r} has {spec.size}",
                collection=schema.name,
                vector=names[column],
            )
        if distance is not None and spec.distance != distance:
            raise VectorSizeMismatchError(
                f"vector {names[column]!r} of the collection {schema.name!r} exists with "
                f"distance {spec.distance}, asked for was {distance}",
                collection=schema.name,
                vector=names[column],
            )
    return names


class _Writer:
    """Turns batches into upserts, and keeps count."""

    def __init__(self, client: QdrantClient, collection: str, names: dict[str, str]) -> None:
        self._client = client
        self._collection = collection
        self._place = place_of(collection)
        self._own = (
            {} if self._place.shared_as is None else {COLLECTION_FIELD: self._place.shared_as}
        )
        self._names = names
        self.points = 0
        self.skipped = 0
        self.skipped_rows: list[SkippedRow] = []

    def request(self, batch: PointBatch) -> pb.UpsertPoints:
        """An upsert of a batch; also counts its rows."""
        self.points += len(batch.ids)
        self.skipped += len(batch.bad_rows)
        room = _MAX_NAMED_ROWS - len(self.skipped_rows)
        self.skipped_rows += [SkippedRow(row, reason) for row, reason in batch.bad_rows[:room]]
        vectors = self._vectors(batch)
        return pb.UpsertPoints(
            collection_name=self._place.collection,
            wait=True,
            points=[
                pb.PointStruct(
                    id=pb.PointId(num=i) if isinstance(i, int) else pb.PointId(uuid=i),
                    payload=to_payload({**payload, **self._own}),
                    vectors=vector,
                )
                for i, payload, vector in zip(batch.ids, batch.payloads, vectors, strict=True)
            ],
        )

    def _vectors(self, batch: PointBatch) -> list[pb.Vectors]:
        columns = {self._names[c]: _dense_vectors(rows) for c, rows in batch.vectors.items()}
        if UNNAMED_VECTOR in columns:
            return [pb.Vectors(vector=vector) for vector in columns[UNNAMED_VECTOR]]
        return [
            pb.Vectors(
                vectors=pb.NamedVectors(vectors={n: vectors[i] for n, vectors in columns.items()})
            )
            for i in range(len(batch.ids))
        ]

    def send(self, request: pb.UpsertPoints) -> None:
        """Write one batch and wait for it."""
        if not request.points:
            return
        with qdrant_errors(self._collection):
            self._check_owners(request)
            self._client.grpc_points.Upsert(request, timeout=_WRITE_TIMEOUT_S)

    def _check_owners(self, request: pb.UpsertPoints) -> None:
        """Refuse ids under which the shared collection has documents of another one."""
        if self._place.shared_as is None:
            return
        ids = [p.id.num if p.id.HasField("num") else p.id.uuid for p in request.points]
        others, _ = self._client.scroll(
            self._place.collection,
            models.Filter(must=[models.HasIdCondition(has_id=ids)], must_not=[self._place.only()]),
            limit=1,
            with_payload=[COLLECTION_FIELD],
        )
        if others:
            owner = (others[0].payload or {}).get(COLLECTION_FIELD, "another collection")
            raise ImportFileError(
                "id",
                f"{others[0].id} is a document of {owner}, and collections of a namespace share "
                "one Qdrant collection here; give each document an id of its own",
            )


def _dense_vectors(rows: FloatRows) -> list[pb.Vector]:
    """Rows of float32 as messages, by their wire form: a packed field is the raw floats.

    Setting `data` from Python converts every number on its own, six times slower.
    """
    raw = rows.astype("<f4", copy=False)
    n_bytes = raw.shape[1] * 4
    prefix = _DENSE_DATA_TAG + _varint(n_bytes)
    return [pb.Vector(dense=pb.DenseVector.FromString(prefix + row.tobytes())) for row in raw]


_DENSE_DATA_TAG = bytes([(1 << 3) | 2])


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append((number & 127) | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
