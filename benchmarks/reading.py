"""Reading and exporting vectors: qdrant-client, qdrant-client + pandas and shoal in one run.

    python benchmarks/reading.py --points 100000 --repeats 5

All read the same pages from a loopback server that replays prebuilt ones, so the client is
what is measured; they take turns. Each ends with all ids and one float32 matrix (or, with
payloads, two fields as columns beside them), and the matrices are compared. "bytes only" takes
the pages off the socket and drops them: the floor. Parquet goes to a disk in memory, so that
it is not the disk that is measured. With `SHOAL_BENCH_QDRANT_URL` set to a
Qdrant's gRPC address a collection is filled there and read in the same way.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from machine import RESULTS, About, machine_facts, taking_turns, write_result
from qdrant_client import grpc as pb
from qdrant_client import models
from replay import FIELDS, SECTIONS, Size, replaying, vectors
from rich.console import Console
from rich.table import Table

from server.export.parquet import ExportRequest, ExportSource, export
from server.export.scroll import ScrollQuery, scroll_pages
from server.qdrant.client import QdrantAddress, channel, connect
from server.qdrant.embedded import start_embedded

PACKAGES = ("grpcio", "numpy", "pandas", "protobuf", "pyarrow", "qdrant-client", "qdrant-edge-py")
MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None
N_DIMS = 384
PEER = "qdrant-client.scroll + numpy"


@dataclass(frozen=True)
class Row:
    """One line of the table: points per second, and that as a multiple of the peer's.

    A CPU second is one that the client's process computes, whatever else the machine does.
    """

    server: str
    what: str
    who: str
    points_per_s: float
    points_per_cpu_s: float
    median_s: float
    best_s: float
    repeats: int
    times_peer: float | None


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
    return vector[name] if name else vector


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
    """Give what is done, and by whom, with one collection."""
    return {
        "ids and vectors": {
            PEER: lambda: peer_numpy(source),
            "qdrant-client.scroll + pandas": lambda: peer_pandas(source),
            "shoal": lambda: ours(source),
            "shoal, to Parquet": lambda: exporting(source, 1),
            "shoal, to Parquet, 4 ranges": lambda: exporting(source, 4),
        },
        "and two payload fields": {
            PEER: lambda: peer_numpy(source, FIELDS),
            "qdrant-client.scroll + pandas": lambda: peer_pandas(source, FIELDS),
            "shoal": lambda: ours(source, FIELDS),
            "shoal, to Parquet": lambda: exporting(source, 1, FIELDS),
            "shoal, to Parquet, 4 ranges": lambda: exporting(source, 4, FIELDS),
        },
    }


def measure(server: str, source: Source, repeats: int) -> Iterator[Row]:
    """Let all take turns with one collection."""
    np.testing.assert_array_equal(ours(source), peer_numpy(source))
    for what, contestants in contests(source).items():
        if server.startswith("replay") and what == "ids and vectors":
            contestants = {"bytes only": lambda: bytes_only(source), **contestants}
        yield from _rows(server, what, source, contestants, repeats)


def shapes(address: QdrantAddress, n_points: int, repeats: int) -> Iterator[Row]:
    """Read what else Qdrant sends: the older spelling, named vectors, UUIDs."""
    for collection, vector in (("packed", ""), ("named", "text"), ("two", "text"), ("uuids", "")):
        source = Source(address, collection, n_points, vector)
        np.testing.assert_array_equal(ours(source), peer_numpy(source))
        contestants: dict[str, Callable[[], object]] = {
            PEER: lambda s=source: peer_numpy(s),  # type: ignore[misc]
            "shoal": lambda s=source: ours(s),  # type: ignore[misc]
        }
        yield from _rows(f"replay, {collection}", "ids and vectors", source, contestants, repeats)


def _rows(
    server: str,
    what: str,
    source: Source,
    contestants: dict[str, Callable[[], object]],
    repeats: int,
) -> Iterator[Row]:
    timings = taking_turns(contestants, repeats=repeats)
    for who, timing in timings.items():
        yield Row(
            server,
            what,
            who,
            source.n_points / timing.median_s,
            source.n_points / timing.cpu_s,
            timing.median_s,
            timing.best_s,
            repeats,
            timings[PEER].median_s / timing.median_s,
        )


@contextmanager
def stored(address: QdrantAddress, n_points: int) -> Iterator[Source]:
    """Fill a collection of a Qdrant for the length of the block."""
    client = connect(address)
    name = f"shoal_bench_{uuid.uuid4().hex[:8]}"
    params = models.VectorParams(size=N_DIMS, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=params)
    rows = vectors(n_points, N_DIMS)
    try:
        for start in range(0, n_points, 500):
            points = [
                models.PointStruct(
                    id=row,
                    vector=rows[row % len(rows)].tolist(),
                    payload={"section": SECTIONS[row * 7 % len(SECTIONS)], "year": 1990 + row % 36},
                )
                for row in range(start, min(start + 500, n_points))
            ]
            client.upsert(name, points, wait=True)
        yield Source(address, name, n_points)
    finally:
        client.delete_collection(name)
        client.close()


def bench(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure against the replayed pages, the embedded Qdrant, and a real one where there is."""
    n_points, repeats = arguments.points, arguments.repeats
    with replaying(Size(n_points, N_DIMS)) as address:
        yield from measure("replay", Source(address, "plain", n_points), repeats)
        yield from shapes(address, n_points, repeats)
    n_stored = min(n_points, arguments.stored_points)
    with (
        tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder,
        start_embedded(Path(folder)) as embedded,
        stored(embedded.address, n_stored) as source,
    ):
        yield from measure("embedded Qdrant", source, repeats)
    url = os.environ.get("SHOAL_BENCH_QDRANT_URL")
    if url:
        key = os.environ.get("SHOAL_BENCH_QDRANT_API_KEY")
        with stored(QdrantAddress.from_url(url, api_key=key), n_stored) as source:
            yield from measure("Qdrant", source, repeats)


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000, help="points that are replayed")
    parser.add_argument("--stored-points", type=int, default=30_000, help="at most, in an engine")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "reading.json", help="where the figures go"
    )
    arguments = parser.parse_args()

    machine = machine_facts(PACKAGES)
    table = Table(
        title=f"Reading {arguments.points:,} x {N_DIMS}",
        caption=f"{machine['processor']}, {machine['cores']} cores, medians",
    )
    for name in ("server", "what", "who"):
        table.add_column(name)
    for name in ("points/s", "x peer", "points/CPU s"):
        table.add_column(name, justify="right")
    rows = list(bench(arguments))
    for row in rows:
        table.add_row(
            row.server, row.what, row.who, f"{row.points_per_s:,.0f}", f"{row.times_peer:.1f}",
            f"{row.points_per_cpu_s:,.0f}",
        )  # fmt: skip
    Console(width=120).print(table)
    write_result(
        arguments.json,
        name="reading",
        machine=machine,
        results=rows,
        about=About(
            "Reading and exporting",
            f"{N_DIMS} dimensions; medians of {arguments.repeats} rounds in which all take turns.",
            value="points_per_s",
            labels=("server", "what", "who"),
        ),
    )


if __name__ == "__main__":
    main()
