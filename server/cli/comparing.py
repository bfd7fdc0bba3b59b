"""`shoal compare`: two runs beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import typer
from clusters.v1 import cluster_requests_pb2, group_pb2, task_pb2
from numpy.typing import NDArray

from gpu.agreement import Agreement, agreement
from server.cli.connection import Connection, connect
from server.cli.console import print_json, printable, say, shortened, stdout, table
from server.cli.files import OutputOption, require_folder, write_file
from server.cli.memberships import memberships
from server.cli.options import JsonOption, KeyOption, NamespaceOption, ServerOption
from server.cli.results import NOISE_ID, list_groups
from server.errors import InvalidRequestError, NotFoundError, Violation
from server.views.compare import Key, Side, compare, comparison_page
from server.views.names import name_of

LABEL_LENGTH = 32
PAGE = 1000

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, or a cluster for its newest one.")
]


def compare_runs(
    run_a: RunArgument,
    run_b: RunArgument,
    output: OutputOption = None,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Tell how two runs agree, and which groups were split, merged, appeared or went.

    With --output the comparison is also written as a page, with a picture of where the
    documents went.
    """
    if output is not None:
        require_folder(output)
    with connect(server, key, namespace) as connection:
        before, after = _side(connection, run_a), _side(connection, run_b)
    comparison = compare(before, after, _agreements(before, after))
    if output is not None:
        write_file(output, comparison_page(comparison))
    if json_output:
        print_json(comparison)
        return
    _show(comparison)
    if output is not None:
        say(f"picture   {output}")


def _side(connection: Connection, run: str) -> Side:
    """Fetch a run's groups and the group of each of its documents."""
    cluster_id, run_id = _find_run(connection, run)
    run_id = run_id or list_groups(connection, cluster_id, None, limit=1).run_id
    request = cluster_requests_pb2.GetClusterRequest(cluster_id=cluster_id)
    found = connection.call(connection.clusters.GetCluster, request)
    groups = list(_all_groups(connection, cluster_id, run_id))
    roots = [group.cluster_id for group in groups if not group.parent_cluster_id]
    group_of: dict[Key, str | None] = {}
    n_repeated = 0
    for group_id, *names in memberships(connection, cluster_id, run_id, roots):
        feature, _, name = group_id.rpartition(".")
        document = (feature, *names)
        n_repeated += document in group_of
        group_of.setdefault(document, None if name == NOISE_ID else group_id)
    notes = [f"{n_repeated:,} memberships of documents in several groups of {run_id} are left out"]
    return Side(
        cluster_name=found.cluster_name,
        run_id=run_id,
        labels={each.cluster_id: name_of(each.label, each.keywords) for each in groups},
        group_of=group_of,
        notes=notes if n_repeated else [],
    )


def _all_groups(connection: Connection, cluster_id: str, run_id: str) -> Iterator[group_pb2.Group]:
    cursor = None
    while True:
        page = list_groups(connection, cluster_id, run_id, limit=PAGE, cursor=cursor)
        yield from page.groups
        if not page.pagination.has_next:
            return
        cursor = page.pagination.next_cursor


def _find_run(connection: Connection, run: str) -> tuple[str, str | None]:
    """Give a run's cluster and id; of a cluster no id, which means its newest.

    Raises
    ------
    NotFoundError
        If no task of the namespace has that run.
    """
    if not run.startswith("run_"):
        return run, None
    request = task_pb2.ListTasksRequest(limit=PAGE, include_total=False)
    while True:
        page = connection.call(connection.tasks.ListTasks, request)
        for task in page.results:
            if task.additional_data.fields["run_id"].string_value == run:
                return task.additional_data.fields["cluster_id"].string_value, run
        if not page.pagination.has_next:
            raise NotFoundError("run", run, "see `shoal list` for the clusters there are")
        request.cursor = page.pagination.next_cursor


def _agreements(before: Side, after: Side) -> dict[str, Agreement]:
    """Take the indices with noise as a group of its own, and over what both runs grouped.

    Raises
    ------
    InvalidRequestError
        If the runs share no document.
    """
    shared = [key for key in before.group_of if key in after.group_of]
    if not shared:
        fault = f"no document is in both {before.run_id} and {after.run_id}"
        raise InvalidRequestError([Violation("RUN", fault)])
    ours, theirs = (_numbers(side, shared) for side in (before, after))
    found = {"all shared documents, noise as one group": agreement(ours, theirs)}
    grouped = (ours >= 0) & (theirs >= 0)
    if grouped.any() and not grouped.all():
        name = f"the {int(grouped.sum()):,} documents that both runs grouped"
        found[name] = agreement(ours[grouped], theirs[grouped])
    return found


def _numbers(side: Side, keys: list[Key]) -> NDArray[np.int64]:
    """Number the groups; noise is -1."""
    number: dict[str | None, int] = {None: -1}
    for group in side.labels:
        number[group] = len(number) - 1
    return np.array([number[side.group_of[key]] for key in keys], dtype=np.int64)


def _show(comparison: dict[str, Any]) -> None:
    before, after = comparison["before"], comparison["after"]
    rows = [
        [
            row["change"],
            _named(row["from"]),
            _named(row["to"]),
            f"{row['n_documents']:,}",
            "" if row["share"] is None else f"{row['share']:.0%}",
        ]
        for row in comparison["changes"]
    ]
    stdout().print(table(["change", "from", "to", "size", "share"], rows, right=(3, 4)))
    for name, side in (("from", before), ("to", after)):
        only = f", {side['n_only_here']:,} of them only there" if side["n_only_here"] else ""
        said = f"{printable(side['cluster_name'])} ({side['run_id']}), {side['n_documents']:,}"
        say(f"{name:<9} {said} documents{only}")
    for over, values in comparison["agreement"].items():
        rand, info = values["adjusted_rand"], values["adjusted_mutual_info"]
        say(f"agreement ARI {rand:.3f}, AMI {info:.3f} over {over}")
    for note in comparison["notes"]:
        say(printable(note), "yellow")


def _named(groups: list[dict[str, str]]) -> str:
    return " + ".join(
        f"{group['cluster_id']} {shortened(group['label'], LABEL_LENGTH)}" for group in groups
    )
