"""`shoal list`, `get`, `delete` and `cancel`."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import Annotated, Any

import typer
from clusters.v1 import cluster_pb2, cluster_requests_pb2, execution_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from server.cli.connection import connect
from server.cli.console import as_json, print_json, printable, say, stdout, table
from server.cli.follow import Watch, follow
from server.cli.options import (
    ClusterArgument,
    JsonOption,
    KeyOption,
    NamespaceOption,
    ServerOption,
)
from server.cli.timeline import timings_table
from server.errors import InvalidRequestError, Violation


def list_clusters(
    status: Annotated[
        str | None, typer.Option("--status", help="Only these, such as FAILED; ARCHIVED too.")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", help="Only with this in name or description.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Where the page before ended.")
    ] = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """List the clusters of the namespace, newest first."""
    with connect(server, key, namespace) as connection:
        answer = connection.call(
            connection.clusters.ListClusters,
            cluster_requests_pb2.ListClustersRequest(
                limit=limit, status=status, search=search, cursor=cursor
            ),
        )
    if json_output:
        print_json(as_json(answer))
        return
    if not answer.results:
        say("no clusters; make one with `shoal run --collection NAME --method hdbscan`")
        return
    rows = [
        [
            cluster.cluster_id,
            cluster.status,
            cluster.algorithm,
            _count(cluster, "num_clusters"),
            _count(cluster, "num_documents_clustered"),
            _when(cluster.updated_at),
            cluster.cluster_name,
        ]
        for cluster in answer.results
    ]
    headings = ["cluster", "status", "method", "groups", "documents", "changed (UTC)", "name"]
    stdout().print(table(headings, rows, right=(3, 4)))
    if answer.pagination.has_next:
        say(f"more with: --cursor {answer.pagination.next_cursor}")


def get(
    cluster: ClusterArgument,
    timings: Annotated[
        bool, typer.Option("--timings", help="Also when the newest run did what, by stage.")
    ] = False,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show one cluster."""
    with connect(server, key, namespace) as connection:
        found = connection.call(
            connection.clusters.GetCluster,
            cluster_requests_pb2.GetClusterRequest(cluster_id=cluster),
        )
        execution = None
        if timings and found.last_run_id:
            execution = connection.call(
                connection.clusters.GetLatestExecution,
                execution_pb2.GetLatestExecutionRequest(cluster_id=found.cluster_id),
            )
    body = as_json(found)
    if json_output:
        print_json(body if execution is None else {**body, **_times(execution)})
        return
    rows = [[name, _text(value)] for name, value in body.items() if value not in (None, [], "")]
    stdout().print(table(["field", "value"], rows))
    if execution is not None:
        say(f"newest run {execution.run_id}: {execution.execution_time_seconds:.2f} s")
        if execution.timings.fields:
            stdout().print(timings_table(execution))


def _times(execution: execution_pb2.Execution) -> dict[str, Any]:
    return {name: as_json(getattr(execution, name)) for name in ("timings", "timeline")}


def delete(
    cluster: ClusterArgument,
    keep_outputs: Annotated[
        bool, typer.Option("--keep-outputs", help="Leave output collections and artifacts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Remove a cluster; a running run is canceled first."""
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequestError([Violation("--yes", "needed where nobody can be asked")])
        what = "it" if keep_outputs else "it, its output collections and its artifacts"
        typer.confirm(f"Delete {cluster}: {what}?", abort=True, err=True)
    with connect(server, key, namespace) as connection:
        answer = connection.call(
            connection.clusters.DeleteCluster,
            cluster_requests_pb2.DeleteClusterRequest(
                cluster_id=cluster, cascade_output_collections=not keep_outputs
            ),
        )
    if json_output:
        print_json(as_json(answer))
        return
    say(f"deleted {answer.cluster_id} with {len(answer.deleted_run_ids)} run(s)")
    for collection in answer.deleted_output_collection_ids:
        say(f"deleted output collection {printable(collection)}")


def cancel(
    cluster: ClusterArgument,
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run other than the newest.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Ask a run to stop; one that has ended is shown as it is."""
    with connect(server, key, namespace) as connection:
        if run_id is None:
            run_id = connection.call(
                connection.clusters.GetLatestExecution,
                execution_pb2.GetLatestExecutionRequest(cluster_id=cluster),
            ).run_id
        execution = connection.call(
            connection.clusters.CancelExecution,
            execution_pb2.CancelExecutionRequest(cluster_id=cluster, run_id=run_id),
        )
        if wait:
            for _ in follow(connection, Watch(cluster, run_id)):
                pass
            execution = connection.call(
                connection.clusters.GetExecution,
                execution_pb2.GetExecutionRequest(cluster_id=cluster, run_id=run_id),
            )
    if json_output:
        print_json(as_json(execution))
    else:
        say(f"run {execution.run_id}: {execution.status}")


def _count(cluster: cluster_pb2.Cluster, name: str) -> str:
    return f"{getattr(cluster, name):,}" if cluster.HasField(name) else ""  # type: ignore[arg-type]


def _when(stamp: Timestamp) -> str:
    return stamp.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}={_text(part)}" for name, part in value.items())
    return str(value)
