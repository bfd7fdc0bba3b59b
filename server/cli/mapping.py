"""`shoal map`: the documents of a run as points, in one page or one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from clusters.v1 import artifact_pb2

from server.cli.connection import Connection, connect
from server.cli.console import print_json, say, stderr
from server.cli.faults import CallFailedError
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

MAP_TIMEOUT_S = 600.0
"""For one try. A map that is not made by then goes on being made."""


def draw_map(
    cluster: ClusterArgument,
    output: OutputOption = None,
    png: Annotated[
        bool, typer.Option("--png", help="A static picture, not a page to look around in.")
    ] = False,
    max_points: Annotated[
        int | None,
        typer.Option("--max-points", min=1, help="More documents are thinned fairly (200000)."),
    ] = None,
    title_field: TitleFieldOption = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="FIELD", help="Shown beside the title; repeatable."),
    ] = None,
    run_id: RunOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write the map of the newest successful run as a page that works offline (map.html)."""
    path = output or Path("map.png" if png else "map.html")
    require_folder(path)
    request = artifact_pb2.GetVisualizationRequest(
        cluster_id=cluster,
        run_id=run_id,
        max_points=max_points,
        format="png" if png else "html",
        title_field=title_field,
        hover_fields=fields or [],
    )
    with connect(server, key, namespace) as connection:
        answer = wait_for_map(connection, request)
    write_file(path, answer.png if png else answer.html)
    if json_output:
        facts = {"file": str(path.absolute()), "bytes": path.stat().st_size}
        print_json({**facts, "run_id": answer.run_id, "documents": answer.total_points})
    else:
        say(f"{path}: {answer.total_points:,} documents, {len(answer.centroids):,} groups")


def wait_for_map(connection: Connection, request: artifact_pb2.GetVisualizationRequest) -> Any:
    """Ask for a map until it is made: the first call for a run computes it."""
    with stderr().status("the map is being made") as status:
        while True:
            try:
                return connection.call(connection.clusters.GetVisualization, request, MAP_TIMEOUT_S)
            except CallFailedError as error:
                if error.reason != "MAP_PENDING":
                    raise
                status.update("the map is still being made; a run may hold the workers")
