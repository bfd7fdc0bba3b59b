"""What a run found, for people: its groups with examples, its timings, its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from clusters.v1 import cluster_pb2, execution_pb2, group_pb2
from google.protobuf import struct_pb2

from server.cli.connection import Connection
from server.cli.console import as_json, printable, say, shortened, stdout, table
from server.cli.tree import as_tree, indented, keywords_line
from server.jobs.model import PUBLISH, STAGES
from server.views.documents import TITLE_FIELDS

N_EXAMPLES = 3
TITLE_LENGTH = 40
NOISE_ID = "cl_noise"


@dataclass(frozen=True)
class GroupRow:
    """One group with the titles of its most typical documents."""

    cluster_id: str
    label: str
    parent_cluster_id: str | None
    member_count: int
    share: float
    keywords: list[str]
    examples: list[str]


@dataclass(frozen=True)
class RunReport:
    """A finished run with its largest groups."""

    cluster: cluster_pb2.Cluster
    execution: execution_pb2.Execution
    groups: list[GroupRow]
    n_groups: int

    def as_json(self) -> dict[str, Any]:
        """Give it for scripts."""
        return {
            "cluster": as_json(self.cluster),
            "execution": as_json(self.execution),
            "groups": [asdict(row) for row in self.groups],
        }

    def show(self) -> None:
        """Print it for people."""
        execution = self.execution
        _show_groups(self.groups, self.n_groups, execution)
        say(f"cluster   {self.cluster.cluster_name} ({self.cluster.cluster_id})")
        if execution.HasField("algorithm"):
            say(f"method    {_method_line(execution)}")
            say(f"device    {execution.device} ({execution.device_reason})")
        if execution.HasField("learned_weights"):
            say(f"weights   {_learned_line(execution)}")
        if execution.output_collection_names:
            say(f"outputs   {', '.join(execution.output_collection_names)}")
        if execution.artifacts_url:
            say(f"artifacts {execution.artifacts_url}")
        say(f"time      {timing_line(execution)}")
        for error in execution.llm_labeling_errors:
            say(f"labeling: {printable(error)}", "yellow")


def report_run(
    connection: Connection,
    cluster: cluster_pb2.Cluster,
    run_id: str,
    *,
    top: int,
    title_field: str | None,
) -> RunReport:
    """Fetch what a completed run found."""
    execution = connection.call(
        connection.clusters.GetExecution,
        execution_pb2.GetExecutionRequest(cluster_id=cluster.cluster_id, run_id=run_id),
    )
    if not execution.num_clusters and not execution.n_noise:
        return RunReport(cluster, execution, [], 0)
    listed = list_groups(connection, cluster.cluster_id, run_id, limit=top)
    rows = [
        group_row(connection, cluster.cluster_id, group, execution, title_field)
        for group in listed.groups
    ]
    return RunReport(cluster, execution, rows, listed.total_count)


def list_groups(
    connection: Connection,
    cluster_id: str,
    run_id: str | None,
    *,
    limit: int | None = None,
    search: str | None = None,
    cursor: str | None = None,
) -> group_pb2.ListGroupsResponse:
    """Fetch a page of groups, the largest first."""
    request = group_pb2.ListGroupsRequest(
        cluster_id=cluster_id, run_id=run_id, limit=limit, search=search, cursor=cursor
    )
    answer: group_pb2.ListGroupsResponse = connection.call(connection.clusters.ListGroups, request)
    return answer


def list_members(
    connection: Connection, cluster_id: str, group_id: str, run_id: str | None, limit: int | None
) -> Iterator[group_pb2.Member]:
    """Fetch members with their payloads, nearest to the centroid first."""
    return connection.stream(
        connection.clusters.ListMembers,
        group_pb2.ListMembersRequest(
            cluster_id=cluster_id,
            group_id=group_id,
            run_id=run_id,
            limit=limit,
            include_payload=True,
        ),
    )


def group_row(
    connection: Connection,
    cluster_id: str,
    group: group_pb2.Group,
    execution: execution_pb2.Execution,
    title_field: str | None,
) -> GroupRow:
    """Describe a group by its members nearest to the centroid."""
    members = list_members(connection, cluster_id, group.cluster_id, execution.run_id, N_EXAMPLES)
    return GroupRow(
        cluster_id=group.cluster_id,
        label=group.label,
        parent_cluster_id=group.parent_cluster_id or None,
        member_count=group.member_count,
        share=group.member_count / max(1, execution.num_documents),
        keywords=list(group.keywords),
        examples=[title_of(member, title_field) for member in members],
    )


def title_of(member: group_pb2.Member, title_field: str | None) -> str:
    """Choose the words that stand for a document: a payload field, else its id."""
    fields = member.payload.fields
    names = (title_field,) if title_field else (*TITLE_FIELDS, *sorted(fields))
    for name in names:
        if name in fields and _is_text(fields[name]):
            return shortened(fields[name].string_value, TITLE_LENGTH)
    return member.source_document_id


def _is_text(value: struct_pb2.Value) -> bool:
    return value.WhichOneof("kind") == "string_value" and bool(value.string_value.strip())


def timing_line(execution: execution_pb2.Execution) -> str:
    """Say how long each stage took, in the order of the stages."""
    seconds = {name: value.number_value for name, value in execution.timings.fields.items()}
    parts = [name for name in (*STAGES, PUBLISH) if name in seconds]
    stages = " · ".join(f"{name} {seconds[name]:.2f} s" for name in parts)
    whole = f"{execution.execution_time_seconds:.2f} s"
    return f"{whole} ({stages})" if stages else whole


def _method_line(execution: execution_pb2.Execution) -> str:
    params = as_json(execution.effective_params)
    chosen = ", ".join(f"{name}={value}" for name, value in params.items() if value is not None)
    return f"{execution.algorithm}: {chosen}" if chosen else execution.algorithm


def _learned_line(execution: execution_pb2.Execution) -> str:
    weights = as_json(execution.learned_weights)
    shares = ", ".join(f"{name}={weight:.3g}" for name, weight in weights.items())
    return f"{shares} (learned; score {execution.learning_quality_score:.3f})"


def _show_groups(rows: list[GroupRow], n_groups: int, execution: execution_pb2.Execution) -> None:
    if not rows:
        say("no groups were found" if execution.n_noise else "the run was skipped", "yellow")
        return
    lines = [
        [
            indented(row.cluster_id, depth),
            shortened(row.label, TITLE_LENGTH),
            f"{row.member_count:,}",
            f"{row.share:.1%}",
            keywords_line(row.keywords),
            " · ".join(printable(example) for example in row.examples),
        ]
        for depth, row in as_tree(rows)
    ]
    if execution.n_noise:
        share = execution.n_noise / max(1, execution.num_documents)
        lines.append([NOISE_ID, "Noise", f"{execution.n_noise:,}", f"{share:.1%}", "", ""])
    headings = ["group", "label", "size", "share", "keywords", "most typical documents"]
    if not any(row.keywords for row in rows):
        for line in (headings, *lines):
            del line[4]
    stdout().print(table(headings, lines, right=(2, 3), is_cut=True))
    if n_groups > len(rows):
        say(f"the {len(rows)} largest of {n_groups} groups; `shoal groups` lists them all")
