"""`shoal rename`, `export` and `enrich`: a run's results under other names, and elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer
from clusters.v1 import artifact_pb2, group_pb2

from server.cli.arguments import enrich_request
from server.cli.connection import Connection, connect
from server.cli.console import as_json, print_json, printable, say, stdout, table
from server.cli.options import (
    ClusterArgument,
    JsonOption,
    KeyOption,
    NamespaceOption,
    RunOption,
    ServerOption,
)
from server.cli.results import list_groups


def rename(
    cluster: ClusterArgument,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Such as cl_0.")],
    label: Annotated[str | None, typer.Argument(metavar="[LABEL]", help="Its new name.")] = None,
    summary: Annotated[
        str | None, typer.Option("--summary", help="Its new summary; an empty one clears it.")
    ] = None,
    keywords: Annotated[
        list[str] | None, typer.Option("--keyword", metavar="WORD", help="Repeat for more.")
    ] = None,
    run_id: RunOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Rename a group, in its output collection too."""
    with connect(server, key, namespace) as connection:
        answer = connection.call(
            connection.clusters.PatchExecutionLabels,
            group_pb2.PatchExecutionLabelsRequest(
                cluster_id=cluster,
                run_id=run_id or _newest(connection, cluster),
                labels=[
                    group_pb2.GroupLabel(
                        cluster_id=group, label=label, summary=summary, keywords=keywords
                    )
                ],
            ),
        )
    if json_output:
        print_json(as_json(answer))
        return
    for renamed in answer.groups:
        say(f"{renamed.cluster_id} of {answer.run_id} is called {printable(renamed.label)}")


def export(
    cluster: ClusterArgument,
    file_format: Annotated[
        str | None, typer.Option("--format", help="parquet (default), csv or jsonl.")
    ] = None,
    run_id: RunOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Say where a run's files are, converted where another format is asked for."""
    with connect(server, key, namespace) as connection:
        answer = connection.call(
            connection.clusters.ExportExecution,
            artifact_pb2.ExportExecutionRequest(
                cluster_id=cluster,
                run_id=run_id or _newest(connection, cluster),
                format=file_format,
            ),
        )
    if json_output:
        print_json(as_json(answer))
        return
    rows = [
        [
            file.name,
            f"{file.rows:,}" if file.HasField("rows") else "",
            f"{file.size_bytes:,.0f}",
            file.sha256[:12],
        ]
        for file in answer.artifacts
    ]
    stdout().print(table(["file", "rows", "bytes", "SHA-256"], rows, right=(1, 2)))
    say(f"in {answer.artifacts_url}")


def enrich(
    cluster: ClusterArgument,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Is written into.")],
    mappings: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="SOURCE=TARGET", help="Such as cluster_label=topic."),
    ] = None,
    filter_text: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="Only documents that match; or @FILE."),
    ] = None,
    run_id: RunOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write a run's groups into the documents of a collection; repeating it is harmless."""
    request = enrich_request(
        cluster,
        collection,
        run_id=run_id,
        mapping_texts=mappings or [],
        filter_text=filter_text,
    )
    with connect(server, key, namespace) as connection:
        answer = connection.call(connection.clusters.EnrichCollection, request)
    if json_output:
        print_json(as_json(answer))
        return
    say(f"{answer.enriched:,} of {answer.processed:,} documents of {answer.collection_id} written")
    for warning in answer.warnings:
        say(printable(warning), "yellow")


def _newest(connection: Connection, cluster: str) -> str:
    """Ask for the newest run that has groups."""
    return list_groups(connection, cluster, None, limit=1).run_id
