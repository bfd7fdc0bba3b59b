"""Writing memberships and output documents: the straightforward loop, upload_points and shoal.

    python benchmarks/writing.py --documents 5000 --repeats 3

A loopback server takes the writes and drops them, so the client is what is measured; then the
embedded Qdrant (and a real one when `SHOAL_BENCH_QDRANT_URL` is set) stores them. "enrich"
gives every document its cluster, label and distance; "output documents" adds one document for
each. Contestants take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from peers import Row, add_options, contest, engines, filled, report
from qdrant_client import grpc as pb
from qdrant_client import models
from replay import Size, replaying

from server.jobs.definition import FieldMapping
from server.qdrant.client import connect
from server.qdrant.shared import SharingClient
from server.results.documents import document_id, member_points
from server.results.enrich import enrich_sources
from server.results.groups import Group, members_table
from server.results.outputs import upsert_all

FIELDS = ("cluster_id", "cluster_label", "distance_to_centroid")
N_GROUPS = 50
LOOP = "set_payload loop"
UPSERT_LOOP = "upsert loop"


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
    for what, contestants in CONTESTS.items():
        yield from contest(
            server,
            what,
            {who: partial(run, job) for who, run in contestants.items()},
            n_items=len(job.members),
            repeats=repeats,
            peer=next(iter(contestants)),
        )


def points(n_documents: int) -> Iterator[pb.PointStruct]:
    """Make documents without vectors."""
    for number in range(n_documents):
        none = pb.Vectors(vectors=pb.NamedVectors())
        yield pb.PointStruct(id=pb.PointId(num=number), vectors=none)


def bench(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure against the server that drops writes, the embedded Qdrant, and a real one."""
    n_documents = arguments.documents
    groups, members = membership(n_documents)
    rows = members.to_pylist()
    with replaying(Size(n_documents, 8)) as address:
        job = Job(connect(address), "plain", groups, members, rows)
        yield from measure("replay", job, arguments.repeats)
        job.client.close()
    with engines() as found:
        for server, address in found:
            with filled(address, {}, points(n_documents)) as (client, name):
                job = Job(client, name, groups, members, rows)
                yield from measure(server, job, arguments.repeats)


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=5_000, help="documents of the run")
    add_options(parser, "writing")
    arguments = parser.parse_args()
    report(
        bench(arguments),
        arguments.json,
        "writing",
        "Writing",
        f"{arguments.documents:,} documents; medians of {arguments.repeats} rounds in which "
        "all take turns. The replay server takes writes and drops them.",
    )


if __name__ == "__main__":
    main()
