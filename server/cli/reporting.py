"""`shoal report`: a run to pass on, as a page or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from clusters.v1 import cluster_pb2, cluster_requests_pb2, execution_pb2

from server.cli.connection import Connection, connect
from server.cli.console import as_json, print_json, say
from server.cli.files import OutputOption, require_folder, write_file
from server.cli.options import (
    ClusterArgument,
    JsonOption,
    KeyOption,
    NamespaceOption,
    RunOption,
    ServerOption,
    TitleFieldOption,
)
from server.cli.results import list_groups, list_members, title_of
from server.views.report import build_report, report_page

N_EXAMPLES = 3


def report(
    cluster: ClusterArgument,
    output: OutputOption = None,
    run_id: RunOption = None,
    top: Annotated[
        int, typer.Option("--top", min=0, help="Groups that example documents are shown of.")
    ] = 100,
    title_field: TitleFieldOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write the report of the newest successful run as a page (report.html), or print it as JSON.

    With --json and --output the JSON goes into the file.
    """
    path = output or (None if json_output else Path("report.html"))
    if path is not None:
        require_folder(path)
    with connect(server, key, namespace) as connection:
        body = fetch_report(connection, cluster, run_id, top, title_field)
    if path is None:
        print_json(body)
        return
    write_file(path, _json_text(body) if json_output else report_page(body))
    if not json_output:
        say(f"{path}: {body['n_documents']:,} documents, {body['n_groups']:,} groups")


def fetch_report(
    connection: Connection, cluster: str, run_id: str | None, top: int, title_field: str | None
) -> dict[str, Any]:
    """Ask for all that a report shows."""
    found: cluster_pb2.Cluster = connection.call(
        connection.clusters.GetCluster, cluster_requests_pb2.GetClusterRequest(cluster_id=cluster)
    )
    wanted = run_id or list_groups(connection, cluster, None, limit=1).run_id
    execution: execution_pb2.Execution = connection.call(
        connection.clusters.GetExecution,
        execution_pb2.GetExecutionRequest(cluster_id=found.cluster_id, run_id=wanted),
    )
    examples = {
        group.cluster_id: [
            title_of(member, title_field)
            for member in list_members(
                connection, found.cluster_id, group.cluster_id, wanted, N_EXAMPLES
            )
        ]
        for group in execution.centroids[:top]
    }
    return build_report(as_json(found), as_json(execution), examples)


def _json_text(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
