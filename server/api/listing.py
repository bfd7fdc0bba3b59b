"""What list calls ask for: filter and order, checked and put in the store's words."""

from __future__ import annotations

from typing import Any, cast, get_args

from clusters.v1 import cluster_requests_pb2, execution_pb2

from server.api.cluster_filters import (
    ALLOWED_VALUES,
    Passes,
    conditions,
    faults_of_fields,
    is_plain,
    names_archived,
    passes,
    values_of,
)
from server.api.convert.values import json_of
from server.api.limits import ListRequest, Window, window_of
from server.errors import InvalidRequestError, Violation
from server.export.conditions import Condition
from server.export.filters import Filter, parse_filter
from server.jobs.model import ClusterRecord, ClusterStatus, RunRecord, RunStatus
from server.stores.base import ClusterQuery, SortField
from server.tenancy import Caller

SORT_FIELDS: tuple[str, ...] = get_args(SortField)
DIRECTIONS = ("asc", "desc")


def cluster_query_of(
    caller: Caller, request: cluster_requests_pb2.ListClustersRequest
) -> tuple[ClusterQuery, Window, Passes | None]:
    """Check a ListClusters request.

    The query asks for one row more than the window holds, to see whether any follow. What the
    store cannot look for is given as a test of its own.

    Raises
    ------
    InvalidRequestError
        With every fault of its filter, order and paging fields.
    """
    violations: list[Violation] = []
    tree = _filter_of(request, violations)
    wanted = _wanted(request, tree, violations)
    sort_by, descending = _order(request, violations)
    order = {"sort": sort_by, "descending": descending}
    rest = None if is_plain(tree) else json_of(request)["filters"]
    window = checked_window(request, {**wanted, **order, "filters": rest}, violations)
    query = ClusterQuery(
        namespace_id=caller.namespace_id,
        search=request.search,
        statuses=cast("list[ClusterStatus]", wanted.get("status", [])),
        cluster_types=wanted.get("cluster_type", []),
        collection_ids=wanted.get("input_collections", []),
        sort_by=cast(SortField, sort_by),
        descending=descending,
        limit=window.limit + 1,
        offset=window.offset,
        after_cluster_id=window.after,
        include_archived=rest is not None and names_archived(tree),
    )
    return query, window, None if rest is None else passes(tree)


def execution_window_of(request: execution_pb2.ListExecutionsRequest) -> Window:
    """Check a ListExecutions request.

    Raises
    ------
    InvalidRequestError
        With every fault of its status and paging fields.
    """
    violations: list[Violation] = []
    if request.HasField("status"):
        checked_word("status", request.status, get_args(RunStatus), violations)
    query = {"cluster_id": request.cluster_id, "status": request.status}
    return checked_window(request, query, violations)


def checked_window(
    request: ListRequest, query: dict[str, Any], violations: list[Violation]
) -> Window:
    """Check the paging fields, and raise their faults together with those found before."""
    try:
        window = window_of(request, query=query)
    except InvalidRequestError as error:
        raise InvalidRequestError([*violations, *error.violations]) from error
    if violations:
        raise InvalidRequestError(violations)
    return window


def matching_runs(record: ClusterRecord, status: str, search: str) -> list[RunRecord]:
    """Give a cluster's runs, newest first, that have a status and hold a text in any case.

    A cluster keeps few runs (`moves.MAX_RUNS_KEPT`), all in its one record.
    """
    text = search.casefold()
    return [
        run
        for run in reversed(record.runs)
        if (not status or run.status == status) and any(text in part for part in _texts(run))
    ]


def _texts(run: RunRecord) -> list[str]:
    parts = [run.run_id, run.task_id, run.error.message if run.error else "", *run.warnings]
    return [part.casefold() for part in parts]


def checked_word(
    field: str, sent: str, allowed: tuple[str, ...], violations: list[Violation]
) -> None:
    """Note a violation unless `sent` is one of a closed vocabulary."""
    if sent not in allowed:
        violations.append(Violation(field, f"sent {sent!r}; allowed: {', '.join(allowed)}"))


def _order(
    request: cluster_requests_pb2.ListClustersRequest, violations: list[Violation]
) -> tuple[str, bool]:
    field = request.sort.field or "created_at"
    direction = request.sort.direction or "desc"
    checked_word("sort.field", field, SORT_FIELDS, violations)
    checked_word("sort.direction", direction, DIRECTIONS, violations)
    return field, direction == "desc"


def _filter_of(
    request: cluster_requests_pb2.ListClustersRequest, violations: list[Violation]
) -> Filter:
    try:
        tree = parse_filter(json_of(request).get("filters"))
    except InvalidRequestError as error:
        violations += error.violations
        return Filter()
    violations += faults_of_fields(tree)
    return tree


def _wanted(
    request: cluster_requests_pb2.ListClustersRequest, tree: Filter, violations: list[Violation]
) -> dict[str, list[str]]:
    """Give the values that each field may have, from the plain fields and a plain filter."""
    wanted: dict[str, list[str]] = {}
    for field, allowed in ALLOWED_VALUES.items():
        if request.HasField(cast(Any, field)):
            checked_word(field, getattr(request, field), allowed, violations)
            wanted[field] = [getattr(request, field)]
    for condition in conditions(tree) if is_plain(tree) else ():
        _narrow(wanted, condition, violations)
    return wanted


def _narrow(
    wanted: dict[str, list[str]], condition: Condition, violations: list[Violation]
) -> None:
    texts = values_of(condition)
    if condition.field not in wanted:
        wanted[condition.field] = texts
        return
    both = [text for text in wanted[condition.field] if text in texts]
    if not both or condition.field not in ALLOWED_VALUES:
        violations.append(
            Violation(
                f"filters.{condition.field}",
                "is asked for twice, with values that exclude each other",
            )
        )
    wanted[condition.field] = both
