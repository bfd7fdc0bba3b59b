"""ClusterService over gRPC: translate in, delegate, translate out.

Errors are raised as they come; `interceptor.py` makes a status of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from clusters.v1 import (
    cluster_pb2,
    cluster_requests_pb2,
    execution_pb2,
    task_pb2,
    watch_pb2,
)

from server.api.auth import current_caller
from server.api.convert.clusters import cluster_to_pb
from server.api.convert.executions import (
    event_to_pb,
    execution_to_pb,
    heartbeat_to_pb,
    interruption,
)
from server.api.convert.pages import pagination_to_pb, slice_of, stats_to_pb
from server.api.convert.requests import (
    changes_of,
    definition_of,
    identity_of,
    options_of,
    overrides_of,
)
from server.api.convert.tasks import task_to_pb
from server.api.convert.values import required
from server.api.limits import wants_total
from server.api.listing import cluster_query_of, execution_window_of, matching_runs
from server.api.results_service import ResultCalls
from server.jobs.events import Heartbeat

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterService(ResultCalls):
    """Definitions, runs and results of the caller's namespace."""

    async def CreateCluster(
        self, request: cluster_requests_pb2.CreateClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        """Store a definition and queue its first run."""
        record = await self._clusters.create(
            current_caller(),
            definition_of(request),
            execute=request.execute or not request.HasField("execute"),
            identity=identity_of(request, context.invocation_metadata() or ()),
        )
        return cluster_to_pb(record)

    async def GetCluster(
        self, request: cluster_requests_pb2.GetClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        """Give one cluster, by id or name."""
        required(request, "cluster_id")
        return cluster_to_pb(await self._clusters.get(current_caller(), request.cluster_id))

    async def ListClusters(
        self, request: cluster_requests_pb2.ListClustersRequest, context: Context
    ) -> cluster_requests_pb2.ListClustersResponse:
        """Give a page of the namespace's clusters."""
        query, window, passes = cluster_query_of(current_caller(), request)
        page = await self._clusters.page(query, passes)
        rows = page.records[: window.limit]
        total = page.total if wants_total(request) else None
        return cluster_requests_pb2.ListClustersResponse(
            results=[cluster_to_pb(record) for record in rows],
            pagination=pagination_to_pb(
                window,
                n_rows=len(rows),
                last_id=rows[-1].cluster_id if rows else "",
                has_next=len(page.records) > window.limit,
                total=total,
            ),
            total_count=total or 0,
            stats=stats_to_pb(page.total, page.by_status),
        )

    async def PatchCluster(
        self, request: cluster_requests_pb2.PatchClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        """Change a cluster; a running run keeps what it started with."""
        required(request, "cluster_id")
        record = await self._clusters.patch(
            current_caller(), request.cluster_id, changes_of(request)
        )
        return cluster_to_pb(record)

    async def ExecuteCluster(
        self, request: execution_pb2.ExecuteClusterRequest, context: Context
    ) -> task_pb2.Task:
        """Queue another run."""
        required(request, "cluster_id")
        record, run = await self._clusters.execute(
            current_caller(),
            request.cluster_id,
            overrides_of(request),
            options_of(request, context.invocation_metadata() or ()),
        )
        return task_to_pb(record, run)

    async def ListExecutions(
        self, request: execution_pb2.ListExecutionsRequest, context: Context
    ) -> execution_pb2.ListExecutionsResponse:
        """Give a page of a cluster's runs, newest first."""
        required(request, "cluster_id")
        window = execution_window_of(request)
        record = await self._clusters.get(current_caller(), request.cluster_id)
        runs = matching_runs(record, request.status, request.search)
        rows, has_next = slice_of(window, runs)
        total = len(runs) if wants_total(request) else None
        return execution_pb2.ListExecutionsResponse(
            results=[execution_to_pb(record, run) for run in rows],
            pagination=pagination_to_pb(
                window,
                n_rows=len(rows),
                last_id=rows[-1].run_id if rows else "",
                has_next=has_next,
                total=total,
            ),
            total_count=total or 0,
            stats=stats_to_pb(len(runs), Counter(run.status for run in runs)),
        )

    async def CancelExecution(
        self, request: execution_pb2.CancelExecutionRequest, context: Context
    ) -> execution_pb2.Execution:
        """Ask a run to stop, and give it as it then stands."""
        required(request, "cluster_id", "run_id")
        record, run = await self._clusters.cancel(
            current_caller(), request.cluster_id, request.run_id
        )
        return execution_to_pb(record, run)

    async def WatchExecution(
        self, request: watch_pb2.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[watch_pb2.ExecutionEvent]:
        """Send the run's events as they happen, and end after its final one."""
        required(request, "cluster_id")
        last: watch_pb2.ExecutionEvent | None = None
        followed = self._clusters.follow(
            current_caller(), request.cluster_id, request.run_id or None, request.after_sequence
        )
        try:
            async with aclosing(followed):
                async for record, event in followed:
                    if isinstance(event, Heartbeat):
                        sequence = last.sequence if last is not None else request.after_sequence
                        last = heartbeat_to_pb(event, sequence)
                    else:
                        last = event_to_pb(record, event)
                    yield last
        except Exception as error:
            if last is not None:
                yield interruption(last, error)
            raise
