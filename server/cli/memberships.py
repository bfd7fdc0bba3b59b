"""Who is in which group of a run: from its file where that lies on this machine, else by calls.

A call sends each member as a message of its own, which for many thousands takes seconds; the
run's `members.parquet` has them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pyarrow.parquet as pq
from clusters.v1 import artifact_pb2, group_pb2

from server.cli.connection import Connection
from server.cli.console import stderr
from server.cli.results import NOISE_ID
from server.results.artifacts import MEMBERS

COLUMNS = ["cluster_id", "source_collection_id", "source_document_id"]

Membership = tuple[str, str, str]
"""A group, and the collection and id of a document in it."""


def memberships(
    connection: Connection, cluster_id: str, run_id: str, roots: Sequence[str]
) -> Iterator[Membership]:
    """Give every membership of a run, noise included; `roots` are its groups without a parent."""
    content = local_file(connection, cluster_id, run_id)
    if content is None:
        yield from ask_members(connection, cluster_id, run_id, roots)
        return
    table = pq.read_table(BytesIO(content), columns=COLUMNS)
    yield from zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)


def local_file(connection: Connection, cluster_id: str, run_id: str) -> bytes | None:
    """Read the run's members from a file of this machine; None where that is not the run's."""
    answer = connection.call(
        connection.clusters.ExportExecution,
        artifact_pb2.ExportExecutionRequest(cluster_id=cluster_id, run_id=run_id),
    )
    for artifact in answer.artifacts:
        place = urlsplit(artifact.url)
        if artifact.name == MEMBERS and place.scheme == "file":
            try:
                content = Path(url2pathname(place.path)).read_bytes()
            except OSError:  # The server is elsewhere, or keeps its files to itself.
                return None
            is_the_run_s = hashlib.sha256(content).hexdigest() == artifact.sha256
            return content if is_the_run_s else None
    return None


def ask_members(
    connection: Connection, cluster_id: str, run_id: str, roots: Sequence[str]
) -> Iterator[Membership]:
    """Ask for the members of each group; with several features each has noise of its own."""
    prefixes = {root.rpartition(".")[0] for root in roots} or {""}
    noise = [f"{prefix}.{NOISE_ID}" if prefix else NOISE_ID for prefix in sorted(prefixes)]
    with stderr().status(f"reading the members of {run_id}"):
        for group_id in [*roots, *noise]:
            wanted = group_pb2.ListMembersRequest(
                cluster_id=cluster_id, run_id=run_id, group_id=group_id
            )
            for member in connection.stream(connection.clusters.ListMembers, wanted):
                yield member.cluster_id, member.source_collection_id, member.source_document_id
