"""The running service as tests see it, and the means to move its runs by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from clusters.v1 import cluster_pb2, cluster_requests_pb2, execution_pb2
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceStub
from clusters.v1.task_service_pb2_grpc import TaskServiceStub
from google.protobuf import json_format

from server.api.server import GrpcServer
from server.jobs import ledger, moves
from server.jobs.clusters import Clusters
from server.jobs.events import EventLog, final_event
from server.jobs.ledger import utc_now
from server.jobs.model import EventRecord, NamespaceRecord, RunError, RunRecord, RunResult, Stage
from server.stores.sqlite import SqliteStore
from server.tenancy import Tenancy

ORGANIZATION = "org_test"
TIMEOUT_S = 20
MULTIMODAL = "multimodal_extractor_v1_multimodal_embedding"


@dataclass
class World:
    """The running service, and the means to move runs by hand."""

    store: SqliteStore
    events: EventLog
    clusters: Clusters
    tenancy: Tenancy
    served: GrpcServer
    namespace: NamespaceRecord
    key: str
    artifacts: Path
    callers: list[Caller] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)

    def connect(self, *, key: str | None = None, namespace: str | None = None) -> Caller:
        """Connect as the holder of a key, in a namespace; by default the test's own."""
        headers = {
            "authorization": f"Bearer {self.key if key is None else key}",
            "x-namespace": self.namespace.name if namespace is None else namespace,
        }
        sent = {name: value for name, value in headers.items() if value}
        self.callers.append(Caller(self.served.port, sent))
        return self.callers[-1]

    async def close(self) -> None:
        """Let go of everything."""
        for caller in self.callers:
            await caller.channel.close()
        await self.served.server.stop(0)
        await self.store.close()

    async def key_for(self, role: Any, *namespaces: str) -> str:
        """Make a key of a role."""
        secret, _ = await self.tenancy.create_key(
            ORGANIZATION, list(namespaces or [self.namespace.name]), role
        )
        return secret

    async def move(self, cluster_id: str, change: ledger.Move) -> RunRecord:
        """Change a stored cluster and give its newest run."""
        stored = await ledger.apply(self.store, self.namespace.namespace_id, cluster_id, change)
        return stored.runs[-1]

    async def begin(self, cluster_id: str, stage: Stage = "export") -> RunRecord:
        """Claim the newest run and enter a stage, with an event."""
        run = await self.move(cluster_id, lambda c: moves.claim(c, "worker", utc_now(), 60.0))
        run = await self.move(
            cluster_id, lambda c: moves.enter_stage(c, run.run_id, 1, stage, utc_now())
        )
        await self.say(run, stage_progress=0.5, processed=10, total=20, message="10 of 20 read")
        return run

    async def say(self, run: RunRecord, **more: Any) -> EventRecord:
        """Store an event of a run in its present state."""
        return await self.events.append(
            EventRecord(
                run_id=run.run_id, status=run.status, stage=run.stage, occurred_at=utc_now(), **more
            )
        )

    async def complete(self, cluster_id: str, result: RunResult, *warnings: str) -> RunRecord:
        """Commit and finish the run that `begin` claimed, with its final event."""
        run = await self._newest(cluster_id)
        await self.move(
            cluster_id,
            lambda c: moves.commit(c, run.run_id, 1, result, list(warnings), utc_now()),
        )
        return await self._finish(cluster_id, run, "completed")

    async def fail(self, cluster_id: str, reason: str, message: str) -> RunRecord:
        """Fail the run that `begin` claimed, with its final event."""
        run = await self._newest(cluster_id)
        return await self._finish(
            cluster_id, run, "failed", error=RunError(reason=reason, message=message)
        )

    async def _newest(self, cluster_id: str) -> RunRecord:
        record = await self.store.get_cluster(self.namespace.namespace_id, cluster_id)
        return record.runs[-1]

    async def _finish(
        self, cluster_id: str, run: RunRecord, status: Any, error: RunError | None = None
    ) -> RunRecord:
        later = utc_now() + timedelta(milliseconds=1500)
        ended = await self.move(
            cluster_id, lambda c: moves.finish(c, run.run_id, 1, status, later, error)
        )
        await self.events.append(final_event(ended))
        return ended


class Caller:
    """Stubs on a channel of one caller."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        # A page is larger than the 4 MB that gRPC takes unasked.
        options = [("grpc.max_receive_message_length", -1)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.metadata = tuple(headers.items())
        self.clusters = ClusterServiceStub(self.channel)
        self.tasks = TaskServiceStub(self.channel)

    def call(self, stub_method: Any, request: Any, *more: tuple[str, str]) -> Any:
        """Start a call with the caller's headers."""
        return stub_method(request, metadata=(*self.metadata, *more), timeout=TIMEOUT_S)

    async def create(self, body: dict[str, Any], *more: tuple[str, str]) -> cluster_pb2.Cluster:
        """Create a cluster from its JSON."""
        request = json_format.ParseDict(body, cluster_requests_pb2.CreateClusterRequest())
        answer: cluster_pb2.Cluster = await self.call(self.clusters.CreateCluster, request, *more)
        return answer

    async def cancel(self, cluster_id: str, run_id: str) -> execution_pb2.Execution:
        """Cancel a run."""
        request = execution_pb2.CancelExecutionRequest(cluster_id=cluster_id, run_id=run_id)
        answer: execution_pb2.Execution = await self.call(self.clusters.CancelExecution, request)
        return answer

    async def get(self, id_or_name: str) -> cluster_pb2.Cluster:
        """Get a cluster."""
        request = cluster_requests_pb2.GetClusterRequest(cluster_id=id_or_name)
        answer: cluster_pb2.Cluster = await self.call(self.clusters.GetCluster, request)
        return answer
