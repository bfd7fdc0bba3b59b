"""`shoal groups` and `shoal members`: what a run found."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.connection import connect
from server.cli.console import as_json, print_json, say, stdout, table
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
from server.cli.tree import as_tree, indented


def groups(
    cluster: ClusterArgument,
    run_id: RunOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 1000,
    search: Annotated[
        str | None, typer.Option("--search", help="Only with this in id, label or keywords.")
    ] = None,
    cursor: Annotated[
        str | None, typer.Option("--cursor", help="Where the page before ended.")
    ] = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """List the groups of the newest successful run, the largest first, children below parents."""
    with connect(server, key, namespace) as connection:
        answer = list_groups(connection, cluster, run_id, limit=limit, search=search, cursor=cursor)
    if json_output:
        print_json(as_json(answer))
        return
    rows = [
        [
            indented(group.cluster_id, depth),
            f"{group.member_count:,}",
            group.label,
            ", ".join(group.keywords),
        ]
        for depth, group in as_tree(answer.groups)
    ]
    stdout().print(table(["group", "size", "label", "keywords"], rows, right=(1,)))
    if answer.pagination.has_next:
        say(f"more with: --cursor {answer.pagination.next_cursor}")


def members(
    cluster: ClusterArgument,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Such as cl_0, or cl_noise.")],
    run_id: RunOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most members to show.")] = 20,
    title_field: TitleFieldOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """List members of a group, nearest to its centroid first."""
    with connect(server, key, namespace) as connection:
        found = list(list_members(connection, cluster, group, run_id, limit))
    if json_output:
        print_json([as_json(member) for member in found])
        return
    rows = [
        [
            str(member.rank),
            member.source_collection_id,
            member.source_document_id,
            f"{member.distance_to_centroid:.4f}" if member.HasField("distance_to_centroid") else "",
            f"{member.confidence:.2f}" if member.HasField("confidence") else "",
            title_of(member, title_field),
        ]
        for member in found
    ]
    headings = ["rank", "collection", "document", "distance", "confidence", "title"]
    stdout().print(table(headings, rows, right=(0, 3, 4)))
