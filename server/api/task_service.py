"""TaskService over gRPC: runs of a namespace, by their task ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, get_args

import grpc
from clusters.v1 import task_pb2, task_service_pb2_grpc

from server.api.auth import current_caller
from server.api.convert.pages import pagination_to_pb, slice_of
from server.api.convert.tasks import TASK_TYPE, task_to_pb, worker_to_pb
from server.api.convert.values import required
from server.api.limits import Window, wants_total
from server.api.listing import checked_window, checked_word
from server.engine.model import WorkerState
from server.errors import Violation
from server.jobs.clusters import Clusters
from server.jobs.model import ClusterRecord, ClusterStatus, RunRecord, RunStatus, run_status_word
from server.stores.base import RunQuery

Context = grpc.aio.ServicerContext[Any, Any]
Row = tuple[ClusterRecord, RunRecord]
TellWorkers = Callable[[], Awaitable[Sequence[WorkerState]]]

BATCH = 200
"""Runs read at once where the store cannot tell which of them match."""

_RUN_STATUSES: dict[str, RunStatus] = {
    "PENDING": "pending",
    "IN_PROGRESS": "processing",
    "PROCESSING": "processing",
    "COMPLETED": "completed",
    "COMPLETED_WITH_ERRORS": "completed",
    "SKIPPED": "completed",
    "FAILED": "failed",
    "CANCELED": "canceled",
}
"""Under which state the store keeps the runs of a word. Several words share one."""

_EXACT = frozenset({"PENDING", "FAILED", "CANCELED"})


class TaskService(task_service_pb2_grpc.TaskServiceServicer):
    """Background work of the caller's namespace."""

    def __init__(self, clusters: Clusters, workers: TellWorkers | None = None) -> None:
        self._clusters = clusters
        self._tell_workers = workers

    async def GetTask(self, request: task_pb2.GetTaskRequest, context: Context) -> task_pb2.Task:
        """Give one task."""
        required(request, "task_id")
        return task_to_pb(*await self._clusters.find_task(current_caller(), request.task_id))

    async def KillTask(self, request: task_pb2.KillTaskRequest, context: Context) -> task_pb2.Task:
        """Stop a task and the run behind it."""
        required(request, "task_id")
        caller = current_caller()
        record, run = await self._clusters.find_task(caller, request.task_id)
        return task_to_pb(*await self._clusters.cancel(caller, record.cluster_id, run.run_id))

    async def ListTasks(
        self, request: task_pb2.ListTasksRequest, context: Context
    ) -> task_pb2.ListTasksResponse:
        """Give a page of the namespace's tasks, newest first."""
        window = _window(request)
        rows, has_next, total = await self._rows(request, window)
        shown = total if wants_total(request) else None
        return task_pb2.ListTasksResponse(
            results=[task_to_pb(record, run) for record, run in rows],
            pagination=pagination_to_pb(
                window,
                n_rows=len(rows),
                last_id=rows[-1][1].task_id if rows else "",
                has_next=has_next,
                total=shown,
            ),
            total_count=shown or 0,
            workers=await self._workers() if request.include_workers else [],
        )

    async def _workers(self) -> list[task_pb2.Worker]:
        """Tell of the workers; a run of another namespace is not named."""
        if self._tell_workers is None:
            return []
        query = RunQuery(current_caller().namespace_id, None, ["processing"], BATCH, 0)
        own = {run.run_id async for _, run in self._all(query)}
        return [worker_to_pb(worker, own) for worker in await self._tell_workers()]

    async def _rows(
        self, request: task_pb2.ListTasksRequest, window: Window
    ) -> tuple[list[Row], bool, int]:
        """Give a window's rows, whether more follow, and how many match in all."""
        caller = current_caller()
        cluster_id = None
        if request.cluster_id:
            cluster_id = (await self._clusters.get(caller, request.cluster_id)).cluster_id
        status = _RUN_STATUSES.get(request.status)
        query = RunQuery(
            namespace_id=caller.namespace_id,
            cluster_id=cluster_id,
            statuses=[status] if status else [],
            limit=window.limit,
            offset=window.offset,
        )
        if not request.search and request.status in (*_EXACT, ""):
            page = await self._clusters.runs_page(query)
            return page.rows, window.offset + len(page.rows) < page.total, page.total
        found = [row async for row in self._all(query) if _matches(row, request)]
        rows, has_next = slice_of(window, found)
        return list(rows), has_next, len(found)

    async def _all(self, query: RunQuery) -> AsyncIterator[Row]:
        """Read every run of a query, in batches."""
        offset = 0
        while True:
            page = await self._clusters.runs_page(
                RunQuery(query.namespace_id, query.cluster_id, query.statuses, BATCH, offset)
            )
            for row in page.rows:
                yield row
            offset += BATCH
            if offset >= page.total:
                return


def _window(request: task_pb2.ListTasksRequest) -> Window:
    violations: list[Violation] = []
    if request.HasField("status"):
        words = tuple(word for word in get_args(ClusterStatus) if word in _RUN_STATUSES)
        checked_word("status", request.status, words, violations)
    if request.HasField("task_type"):
        checked_word("task_type", request.task_type, (TASK_TYPE,), violations)
    query = {"status": request.status, "cluster_id": request.cluster_id}
    return checked_window(request, query, violations)


def _matches(row: Row, request: task_pb2.ListTasksRequest) -> bool:
    record, run = row
    if request.status and run_status_word(run) != request.status:
        return False
    text = request.search.casefold()
    parts = (run.task_id, run.error.message if run.error else "", record.cluster_name)
    return any(text in part.casefold() for part in parts)
