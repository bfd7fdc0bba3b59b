"""Reading and exporting vectors: qdrant-client, qdrant-client + pandas and shoal in one run.

    python benchmarks/reading.py --points 50000 --repeats 3

All read the same pages from a loopback server that replays prebuilt ones, so the client is
what is measured; they take turns. Each ends with all ids and one float32 matrix (or, with
payloads, two fields as columns beside them), and the matrices are compared. "bytes only" takes
the pages off the socket and drops them: the floor. The export is measured against shoal's own
reading, on more points; its Parquet goes to a disk in memory, so that it is not the disk that
is measured. With `SHOAL_BENCH_QDRANT_URL` set to a Qdrant's gRPC address a collection is filled
there and read in the same way.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from peers import Row, add_options, contest, engines, filled, report
from qdrant_client import grpc as pb
from qdrant_client import models
from replay import COLLECTIONS, FIELDS, NAMES, SECTIONS, Size, replaying, vectors

from server.export.parquet import ExportRequest, ExportSource, export
from server.export.scroll import ScrollQuery, scroll_pages
from server.qdrant.client import QdrantAddress, channel, connect
from server.qdrant.payloads import to_payload

MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None
N_DIMS = 384
PEER = "qdrant-client.scroll + numpy"
READING = "shoal, reading alone"


@dataclass(frozen=True)
class Source:
    """A collection to read: where, which, how many points, and the name of its vector."""

    address: QdrantAddress
    collection: str
    n_points: int
    vector: str = ""


def peer_numpy(source: Source, fields: tuple[str, ...] = ()) -> np.ndarray:
    """Scroll with the official client: ids, a matrix, and a list for each payload field."""
    ids: list[Any] = []
    matrices = []
    columns: dict[str, list[Any]] = {name: [] for name in fields}
    for records in _scroll(source, fields):
        ids += [record.id for record in records]
        matrices.append(np.array([_vector(r, source.vector) for r in records], dtype=np.float32))
        for name in fields:
            columns[name] += [(record.payload or {}).get(name) for record in records]
    return np.concatenate(matrices)


def peer_pandas(source: Source, fields: tuple[str, ...] = ()) -> np.ndarray:
    """Scroll with the official client into a data frame, and take the matrix from it."""
    import pandas as pd

    frames = []
    for records in _scroll(source, fields):
        rows = [
            {"id": r.id, "vector": _vector(r, source.vector), **(r.payload or {})} for r in records
        ]
        frames.append(pd.DataFrame(rows))
    frame = pd.concat(frames, ignore_index=True)
    return np.array(frame["vector"].tolist(), dtype=np.float32)


def _scroll(source: Source, fields: tuple[str, ...]) -> Iterator[list[models.Record]]:
    client = connect(source.address)
    offset = None
    while True:
        records, offset = client.scroll(
            source.collection,
            limit=1000,
            offset=offset,
            with_vectors=[source.vector] if source.vector else True,
            with_payload=list(fields) if fields else False,
        )
        yield records
        if offset is None:
            client.close()
            return


def _vector(record: models.Record, name: str) -> Any:
    vector: Any = record.vector
    vector = vector[name] if name else vector
    return np.mean(vector, axis=0) if isinstance(vector[0], list) else vector


def ours(source: Source, fields: tuple[str, ...] = ()) -> np.ndarray:
    """Read with shoal: ids, a matrix, and an Arrow column for each payload field."""
    query = ScrollQuery(source.collection, (source.vector,), payload_keys=fields)
    ids = []
    columns: dict[str, list[pa.Array]] = {name: [] for name in fields}
    matrix = np.empty((source.n_points, N_DIMS), dtype=np.float32)
    n_read = 0
    with channel(source.address) as wire:
        for page in scroll_pages(wire, source.address, query):
            ids.append(page.ids)
            for name in fields:
                columns[name].append(page.payloads.column(name).values)
            matrix[n_read : n_read + len(page)] = page.vectors[source.vector]
            n_read += len(page)
    pa.chunked_array(ids)
    return matrix[:n_read]


def bytes_only(source: Source) -> None:
    """Take the pages off the socket and drop them."""
    with channel(source.address) as wire:
        call = wire.unary_unary(
            "/qdrant.Points/Scroll",
            request_serializer=pb.ScrollPoints.SerializeToString,
            response_deserializer=None,
        )
        query = ScrollQuery(source.collection, (source.vector,))
        for start in range(0, source.n_points, query.page_size):
            offset = pb.PointId(num=start).SerializeToString()
            call(query.request(offset), metadata=tuple(source.address.metadata()))


def exporting(source: Source, max_ranges: int, fields: tuple[str, ...] = ()) -> None:
    """Export with shoal into a fresh folder, in memory where there is such a disk."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-", dir=MEMORY_DISK) as folder:
        export(
            ExportRequest(
                source.address,
                (ExportSource("docs", source.collection, (source.vector,)),),
                None,
                fields,
                folder,
                max_ranges=max_ranges,
            )
        )


def contests(source: Source) -> dict[str, dict[str, Callable[[], object]]]:
    """Give what is read, and by whom, from one collection."""
    return {
        what: {
            PEER: partial(peer_numpy, source, fields),
            "qdrant-client.scroll + pandas": partial(peer_pandas, source, fields),
            "shoal": partial(ours, source, fields),
        }
        for what, fields in (("ids and vectors", ()), ("and two payload fields", FIELDS))
    }


def exports(source: Source) -> dict[str, dict[str, Callable[[], object]]]:
    """Give what is exported, beside reading the same and no more."""
    return {
        what: {
            READING: partial(ours, source, fields),
            "shoal, to Parquet": partial(exporting, source, 1, fields),
            "shoal, to Parquet, 4 ranges": partial(exporting, source, 4, fields),
        }
        for what, fields in (("export", ()), ("export, two payload fields", FIELDS))
    }


def reading(server: str, source: Source, repeats: int) -> Iterator[Row]:
    """Let all read one collection."""
    np.testing.assert_array_equal(ours(source), peer_numpy(source))
    for what, contestants in contests(source).items():
        if server == "replay" and what == "ids and vectors":
            contestants = {"bytes only": partial(bytes_only, source), **contestants}
        yield from contest(
            server, what, contestants, n_items=source.n_points, repeats=repeats, peer=PEER
        )


def measure_exports(server: str, source: Source, repeats: int) -> Iterator[Row]:
    """Let shoal export one collection, and read it."""
    for what, contestants in exports(source).items():
        yield from contest(
            server, what, contestants, n_items=source.n_points, repeats=repeats, peer=READING
        )


def shapes(address: QdrantAddress, n_points: int, repeats: int) -> Iterator[Row]:
    """Read what else Qdrant sends: the older spelling, named vectors, UUIDs, multi-vectors."""
    for collection in COLLECTIONS[1:]:
        source = Source(address, collection, n_points, NAMES.get(collection, ("",))[0])
        np.testing.assert_array_equal(ours(source), peer_numpy(source))
        yield from contest(
            f"replay, {collection}",
            "ids and vectors",
            {PEER: partial(peer_numpy, source), "shoal": partial(ours, source)},
            n_items=n_points,
            repeats=repeats,
            peer=PEER,
        )


def points(n_points: int) -> Iterator[pb.PointStruct]:
    """Make points as the replaying server sends them."""
    rows = vectors(n_points, N_DIMS)
    for row in range(n_points):
        payload = {"section": SECTIONS[row * 7 % len(SECTIONS)], "year": 1990 + row % 36}
        yield pb.PointStruct(
            id=pb.PointId(num=row),
            vectors=pb.Vectors(vector=pb.Vector(data=rows[row % len(rows)])),
            payload=to_payload(payload),
        )


def bench(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure against the replayed pages, the embedded Qdrant, and a real one where there is."""
    n_points, repeats = arguments.points, arguments.repeats
    with replaying(Size(n_points, N_DIMS)) as address:
        yield from reading("replay", Source(address, "plain", n_points), repeats)
        yield from shapes(address, n_points, repeats)
    with replaying(Size(arguments.export_points, N_DIMS)) as address:
        source = Source(address, "plain", arguments.export_points)
        yield from measure_exports("replay", source, repeats)
    n_stored = min(n_points, arguments.stored_points)
    params = models.VectorParams(size=N_DIMS, distance=models.Distance.COSINE)
    with engines() as found:
        for server, address in found:
            with filled(address, params, points(n_stored)) as (_, name):
                source = Source(address, name, n_stored)
                yield from reading(server, source, repeats)
                yield from measure_exports(server, source, repeats)


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=50_000, help="that all read, replayed")
    parser.add_argument("--export-points", type=int, default=200_000, help="that shoal exports")
    parser.add_argument("--stored-points", type=int, default=20_000, help="at most, in an engine")
    add_options(parser, "reading")
    arguments = parser.parse_args()
    report(
        bench(arguments),
        arguments.json,
        "reading",
        "Reading and exporting",
        f"Points of {N_DIMS} dimensions; medians of {arguments.repeats} rounds in which all take "
        "turns. The peer of an export is shoal's own reading of the same points.",
    )


if __name__ == "__main__":
    main()
