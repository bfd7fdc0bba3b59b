"""What tests of the run queue share: an engine whose workers do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from server.engine.engine import Engine
from server.engine.model import StoppedError
from server.jobs import moves, pipeline
from server.jobs.definition import parse_definition
from server.jobs.events import EventLog
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, RunRecord, RunResult
from server.jobs.running import RunningRun, Workplace
from server.jobs.spec import Prepared, Progress, RunSpec
from server.qdrant.client import QdrantAddress
from server.stores.base import JobStore

NAMESPACE = "ns_1"
OWNER = "server-a"
WAIT_S = 10.0
RESULT = RunResult(algorithm="kmeans", num_clusters=2, num_documents=10)
PREPARED = Prepared(RESULT, [])


@dataclass
class Call:
    """A function that an engine was asked to run; the test gives its answer."""

    function: Callable[..., Any]
    spec: RunSpec
    on_report: Callable[[Any], None]
    answer: asyncio.Future[Any]

    def tell(self, **progress: Any) -> None:
        """Report as a worker does."""
        self.on_report(Progress(**progress).to_message())


class HandEngine:
    """Runs nothing: the test takes each call and answers it."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[Call] = asyncio.Queue()
        self._running: dict[str, Call] = {}

    async def run(
        self, key: str, function: Any, argument: RunSpec, on_report: Callable[[Any], None]
    ) -> Any:
        """Wait for the test's answer."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._running[key] = Call(function, argument, on_report, answer)
        self._calls.put_nowait(call)
        try:
            return await call.answer
        finally:
            del self._running[key]

    async def stop(self, key: str) -> None:
        """End a call as a killed worker does."""
        if key in self._running:
            self._running[key].answer.set_exception(StoppedError(f"{key} was stopped"))

    async def asked(self, function: Callable[..., Any]) -> Call:
        """Give the next call, which has to be for this function."""
        async with asyncio.timeout(WAIT_S):
            call = await self._calls.get()
        assert call.function is function
        return call

    async def prepared(self) -> None:
        """Answer the next call, a `prepare`, with a result."""
        (await self.asked(pipeline.prepare)).answer.set_result(PREPARED)


@dataclass
class Bench:
    """A store, events and an engine by hand; runs enrich, so nothing needs a Qdrant."""

    store: JobStore
    artifacts: Path
    lease_s: float = 30.0
    outage_s: float = 0.0
    engine: HandEngine = field(default_factory=HandEngine)

    def __post_init__(self) -> None:
        self.events = EventLog(self.store, poll_s=0.02)
        self.workplace = Workplace(
            self.store,
            self.events,
            cast(Engine, self.engine),
            self.make_spec,
            self.lease_s,
            self.outage_s,
        )

    async def make_spec(self, cluster: ClusterRecord, run: RunRecord) -> RunSpec:
        """As the app does; artifacts lie under the cluster's name, to tell a rename."""
        return RunSpec(
            namespace_id=cluster.namespace_id,
            cluster_id=cluster.cluster_id,
            run_id=run.run_id,
            definition=run.definition,
            qdrant=QdrantAddress("127.0.0.1", 1),
            qdrant_names=("docs",),
            artifacts_url=str(self.artifacts / cluster.cluster_name),
            outputs=(),
            result=run.result,
        )

    async def pending(
        self, cluster_id: str = "clust_1", namespace_id: str = NAMESPACE
    ) -> ClusterRecord:
        """Store a cluster with a pending run."""
        definition = parse_definition(
            {
                "collection_ids": ["docs"],
                "vector_config": {"clustering_method": "kmeans"},
                "enrich_source_collection": True,
            }
        )
        record = ClusterRecord(
            cluster_id=cluster_id,
            organization_id="org_1",
            namespace_id=namespace_id,
            cluster_name=f"name of {cluster_id}",
            definition=definition,
            created_at=utc_now(),
            updated_at=utc_now(),
        )
        record = moves.queue_run(record, definition, utc_now())
        await self.store.insert_cluster(record)
        return record

    async def claimed(self, record: ClusterRecord) -> RunningRun:
        """Claim the newest run, as the queue does."""
        return RunningRun(
            self.workplace,
            await self.store.replace_cluster(moves.claim(record, OWNER, utc_now(), self.lease_s)),
        )

    async def claimed_and_lost(self, record: ClusterRecord) -> ClusterRecord:
        """Let a server claim the newest run and fall silent at once."""
        long_ago = utc_now() - timedelta(hours=1)
        return await self.store.replace_cluster(moves.claim(record, "server-z", long_ago, 1))

    async def now(self, cluster_id: str = "clust_1") -> ClusterRecord:
        """Read the cluster as stored."""
        return await self.store.get_cluster(NAMESPACE, cluster_id)

    async def change(self, move: Callable[[ClusterRecord], ClusterRecord]) -> ClusterRecord:
        """Change the cluster as another server does: nobody here is told."""
        return await self.store.replace_cluster(move(await self.now()))

    async def lose_lease(self) -> ClusterRecord:
        """Let another server claim the run."""
        late = utc_now() + timedelta(hours=1)
        return await self.change(lambda cluster: moves.claim(cluster, "server-b", late, 30))

    def stage(self, record: ClusterRecord) -> Path:
        """Put a file where the newest run stages its artifacts."""
        run = record.runs[-1]
        folder = self.artifacts / record.cluster_name / NAMESPACE / record.cluster_id / run.run_id
        folder.mkdir(parents=True)
        (folder / "members.parquet").write_text("half")
        return folder
