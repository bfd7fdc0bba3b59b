"""Writing memberships and output documents: the straightforward loop, upload_points and shoal.

    python benchmarks/writing.py --documents 10000 --repeats 5

A loopback server takes the writes and drops them, so the client is what is measured; then the
embedded Qdrant (and a real one when `SHOAL_BENCH_QDRANT_URL` is set) stores them. "enrich"
gives every document its cluster, label and distance; "output documents" adds one document for
each. Contestants take turns.
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
from replay import Size, replaying
from rich.console import Console
from rich.table import Table

from server.jobs.definition import FieldMapping
from server.qdrant.client import QdrantAddress, connect
from server.qdrant.embedded import start_embedded
from server.qdrant.shared import SharingClient
from server.results.documents import document_id, member_points
from server.results.enrich import enrich_sources
from server.results.groups import Group, members_table
from server.results.outputs import upsert_all

PACKAGES = ("grpcio", "numpy", "protobuf", "pyarrow", "qdrant-client", "qdrant-edge-py")
FIELDS = ("cluster_id", "cluster_label", "distance_to_centroid")
N_GROUPS = 50
LOOP = "set_payload loop"
UPSERT_LOOP = "upsert loop"


@dataclass(frozen=True)
class Row:
    """One line of the table: documents per second, and that as a multiple of the loop's."""

    server: str
    what: str
    who: str
    documents_per_s: float
    documents_per_cpu_s: float
    median_s: float
    best_s: float
    repeats: int
    times_peer: float


@dataclass(frozen=True)
class Job:
    """A finished run's membership, and where it is to be written."""

    client: SharingClient
    collection: str
    groups: list[Group]
    members: pa.Table
    rows: list[dict[str, Any]]


def membership(n_documents: int) -> tuple[list[Group], pa.Table]:
    """Make groups and members as a run finds them."""
    rng = np.random.default_rng(42)
    groups = [Group(f"cl_{n}", f"Group number {n}", 0) for n in range(N_GROUPS)]
    members = members_table(
        pa.array(["docs"] * n_documents),
        pa.array([str(n) for n in range(n_documents)]),
        rng.integers(-1, N_GROUPS, n_documents),
        groups,
        distances=rng.random(n_documents).astype(np.float32),
    )
    return groups, members


def set_payload_loop(job: Job) -> None:
    """Call once for each document, as the client's documentation shows."""
    for row in job.rows:
        payload = {name: row[name] for name in FIELDS}
        job.client.set_payload(job.collection, payload, points=[int(row["source_document_id"])])


def enriching(job: Job) -> None:
    """Enrich with shoal."""
    mappings = [
        FieldMapping.model_validate({"source_field": name, "target_field": name}) for name in FIELDS
    ]
    enrich_sources(
        job.client, [("docs", job.collection)], job.members, job.groups, mappings, "run_bench"
    )


def documents(job: Job) -> Iterator[models.PointStruct]:
    """Make the output documents as the official client takes them."""
    for row in job.rows:
        yield models.PointStruct(
            id=document_id("out", "member", "docs", row["source_document_id"], row["cluster_id"]),
            vector={},
            payload={"is_centroid": False, "source_collection_id": "docs"}
            | {name: row[name] for name in (*FIELDS, "source_document_id")},
        )


def upsert_loop(job: Job) -> None:
    """Upsert one document after the other."""
    for point in documents(job):
        job.client.upsert(job.collection, [point])


def upload_points(job: Job) -> None:
    """Upload in the official client's batches."""
    job.client.upload_points(job.collection, documents(job), wait=True)


def upserting(job: Job) -> None:
    """Write output documents with shoal."""
    batches = (
        member_points(job.members, slice(start, start + 2000), "out", None, None)
        for start in range(0, len(job.members), 2000)
    )
    for _ in upsert_all(job.client, job.collection, batches):
        pass


CONTESTS: dict[str, dict[str, Callable[[Job], None]]] = {
    "enrich": {LOOP: set_payload_loop, "shoal": enriching},
    "output documents": {
        UPSERT_LOOP: upsert_loop,
        "qdrant-client.upload_points": upload_points,
        "shoal": upserting,
    },
}


def measure(server: str, job: Job, repeats: int) -> Iterator[Row]:
    """Let all take turns with one server."""
    n_documents = len(job.members)
    for what, contestants in CONTESTS.items():
        bound = {who: lambda run=run: run(job) for who, run in contestants.items()}
        timings = taking_turns(bound, repeats=repeats)
        peer = next(iter(timings.values()))
        for who, timing in timings.items():
            yield Row(
                server,
                what,
                who,
                n_documents / timing.median_s,
                n_documents / timing.cpu_s,
                timing.median_s,
                timing.best_s,
                repeats,
                peer.median_s / timing.median_s,
            )


@contextmanager
def stored(address: QdrantAddress, n_documents: int) -> Iterator[tuple[SharingClient, str]]:
    """Give a collection with that many documents, without vectors, for the block."""
    client = connect(address)
    name = f"shoal_bench_{uuid.uuid4().hex[:8]}"
    client.create_collection(name, vectors_config={})
    try:
        for start in range(0, n_documents, 1000):
            points = [
                pb.PointStruct(id=pb.PointId(num=n), vectors=pb.Vectors(vectors=pb.NamedVectors()))
                for n in range(start, min(start + 1000, n_documents))
            ]
            client.grpc_points.Upsert(
                pb.UpsertPoints(collection_name=name, points=points, wait=True)
            )
        yield client, name
    finally:
        client.delete_collection(name)
        client.close()


def bench(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure against the server that drops writes, the embedded Qdrant, and a real one."""
    groups, members = membership(arguments.documents)
    rows = members.to_pylist()
    with replaying(Size(arguments.documents, 8)) as address:
        job = Job(connect(address), "plain", groups, members, rows)
        yield from measure("replay", job, arguments.repeats)
        job.client.close()
    with (
        tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder,
        start_embedded(Path(folder)) as embedded,
        stored(embedded.address, arguments.documents) as (client, name),
    ):
        job = Job(client, name, groups, members, rows)
        yield from measure("embedded Qdrant", job, arguments.repeats)
    url = os.environ.get("SHOAL_BENCH_QDRANT_URL")
    if url:
        key = os.environ.get("SHOAL_BENCH_QDRANT_API_KEY")
        address = QdrantAddress.from_url(url, api_key=key)
        with stored(address, arguments.documents) as (client, name):
            job = Job(client, name, groups, members, rows)
            yield from measure("Qdrant", job, arguments.repeats)


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=10_000, help="documents of the run")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "writing.json", help="where the figures go"
    )
    arguments = parser.parse_args()

    machine = machine_facts(PACKAGES)
    rows = list(bench(arguments))
    table = Table(
        title=f"Writing {arguments.documents:,} documents",
        caption=f"{machine['processor']}, {machine['cores']} cores, medians",
    )
    for name in ("server", "what", "who"):
        table.add_column(name)
    for name in ("documents/s", "x loop", "documents/CPU s"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.server, row.what, row.who, f"{row.documents_per_s:,.0f}",
            f"{row.times_peer:.1f}", f"{row.documents_per_cpu_s:,.0f}",
        )  # fmt: skip
    Console(width=110).print(table)
    write_result(
        arguments.json,
        name="writing",
        machine=machine,
        results=rows,
        about=About(
            "Writing",
            f"{arguments.documents:,} documents; medians of {arguments.repeats} rounds in which "
            "all take turns. The replay server takes writes and drops them.",
            value="documents_per_s",
            labels=("server", "what", "who"),
        ),
    )


if __name__ == "__main__":
    main()
