"""Puts the parts together: stores, Qdrant, workers, queue, calls. One server process.

api ──▶ Clusters ──▶ store ◀── RunQueue ──▶ RunningRun ──▶ Engine ──▶ pipeline (worker)
            └── EventLog ◀───────────────────────┘
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from typing import Self

from qdrant_client import AsyncQdrantClient

from server.config import Settings
from server.engine.engine import Engine
from server.engine.model import EngineSettings
from server.engine.reach import require_reach
from server.errors import NotFoundError, PreconditionError
from server.jobs.admission import Admission, Limits
from server.jobs.clusters import Clusters
from server.jobs.events import EventLog
from server.jobs.findings import Findings
from server.jobs.model import ClusterRecord, NamespaceRecord, OutputCollection, RunRecord
from server.jobs.parents import Parents
from server.jobs.queue import QueueSettings, RunQueue
from server.jobs.removal import Removal
from server.jobs.results import Results
from server.jobs.running import RunningRun, Workplace
from server.jobs.spec import DEFAULT_ASSIGNMENT_THRESHOLD, RunSpec
from server.metrics import Metrics
from server.qdrant.client import QdrantAddress, connect_async
from server.qdrant.embedded import attach_or_start
from server.results.outputs import generation_of, plan_output, slug
from server.stores.base import JobStore
from server.stores.choice import make_store
from server.tenancy import Tenancy, qdrant_name
from server.tracing import Tracing


class App:
    """A running service without its gRPC face; `api/server.py` puts that in front.

    Use as ``async with App(settings) as app``. Parts start in the order of their needs and
    stop in reverse.
    """

    store: JobStore
    events: EventLog
    qdrant_address: QdrantAddress
    tenancy: Tenancy
    clusters: Clusters
    results: Results
    metrics: Metrics
    tracing: Tracing

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self.metrics = Metrics()
        self.tracing = Tracing(settings.otel_endpoint)

    async def __aenter__(self) -> Self:
        """Start everything, or stop what was started and raise what failed."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Hand running runs back and stop everything."""
        await self._stack.aclose()

    async def drain(self, grace_s: float) -> None:
        """Take no new runs, give those in hand time to end, hand the rest back, tell watchers.

        Watchers follow to the end of that: they see how their run ends, or that it goes on
        elsewhere, and then that this server is stopping.
        """
        self._admission.close()
        await self._queue.close(grace_s)
        self.events.end_watches()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        stack.push_async_callback(asyncio.to_thread, self.tracing.flush)
        self.store = make_store(settings)
        await self.store.open()
        stack.push_async_callback(self.store.close)
        self._show_metrics(stack)
        self.tenancy = Tenancy(self.store, dev=settings.dev, template=settings.collection_template)
        self.qdrant_address = await self._qdrant(stack)
        client = connect_async(self.qdrant_address)
        stack.push_async_callback(client.close)

        engine = Engine(
            EngineSettings(
                workers=settings.workers,
                threads=settings.threads,
                address=settings.dask_address,
                device=settings.device,
                logs=settings.logs,
            )
        )
        stack.push_async_callback(engine.close)
        await engine.start()
        if settings.dask_address is not None:
            await require_reach(engine, settings.artifacts, self.qdrant_address)

        self.workers = engine.workers
        self.events = EventLog(self.store)
        self._start_queue(stack, engine)
        self._serve_callers(stack, client, engine)

    def _show_metrics(self, stack: AsyncExitStack) -> None:
        address = self._settings.metrics_listen
        if address is None:
            return
        try:
            stack.callback(self.metrics.listen(address))
        except OSError as error:
            raise PreconditionError(
                f"cannot listen on {address} for metrics: {error.strerror or error}; choose "
                "another with SHOAL_METRICS_LISTEN",
                listen=address,
            ) from error
        looking = asyncio.create_task(
            self.metrics.follow_store(self.store.count_active_by_status), name="metrics"
        )
        stack.callback(looking.cancel)

    async def _qdrant(self, stack: AsyncExitStack) -> QdrantAddress:
        settings = self._settings
        if settings.qdrant_url is not None:
            key = settings.qdrant_api_key
            return QdrantAddress.from_url(
                settings.qdrant_url, api_key=key.get_secret_value() if key else None
            )
        embedded = await asyncio.to_thread(attach_or_start, settings.data_dir)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        return embedded.address

    def _start_queue(self, stack: AsyncExitStack, engine: Engine) -> None:
        settings = self._settings
        workplace = Workplace(
            store=self.store,
            events=self.events,
            engine=engine,
            make_spec=self._make_spec,
            lease_s=settings.lease_s,
            metrics=self.metrics,
            traces=self.tracing,
        )
        self._queue = RunQueue(
            self.store,
            lambda cluster: RunningRun(workplace, cluster),
            QueueSettings(owner=settings.owner, lease_s=settings.lease_s),
            slots=lambda: engine.slots,
        )
        self.metrics.in_hand.set_function(lambda: self._queue.n_in_hand)
        stack.push_async_callback(self._queue.close, settings.shutdown_grace_s)
        self._queue.start()

    def _serve_callers(
        self, stack: AsyncExitStack, client: AsyncQdrantClient, engine: Engine
    ) -> None:
        settings = self._settings
        self._admission = Admission(
            self.store,
            client,
            Parents(self.store, settings.artifacts),
            settings.labeling,
            Limits(active_runs=settings.max_active_runs),
        )
        self.clusters = Clusters(
            self.store,
            self.events,
            self._admission,
            wake=self._queue.wake,
            interrupt=self._queue.interrupt,
        )
        self.results = Results.of(
            self.clusters,
            self.store,
            self.events,
            client,
            self.qdrant_address,
            settings.artifacts,
            engine,
            settings.device,
        )
        stack.push_async_callback(self.results.maps.close)

    @property
    def findings(self) -> Findings:
        """What runs found."""
        return self.results.findings

    @property
    def removal(self) -> Removal:
        """The way clusters are deleted."""
        return self.results.removal

    @property
    def _spread_above_bytes(self) -> int | None:
        settings = self._settings
        return None if settings.dask_address is None else int(settings.spread_mib * 2**20)

    async def _make_spec(self, cluster: ClusterRecord, run: RunRecord) -> RunSpec:
        """Say all that a worker needs for a run."""
        namespace = await self.store.find_namespace(cluster.organization_id, cluster.namespace_id)
        if namespace is None:
            raise NotFoundError("namespace", cluster.namespace_id)
        earlier = [past for past in cluster.runs if past.run_id != run.run_id]
        successes = [past for past in earlier if past.status == "completed" and not past.is_skipped]
        return RunSpec(
            namespace_id=cluster.namespace_id,
            cluster_id=cluster.cluster_id,
            run_id=run.run_id,
            definition=run.definition,
            qdrant=self.qdrant_address,
            qdrant_names=tuple(
                qdrant_name(namespace, collection_id)
                for collection_id in run.definition.collection_ids
            ),
            artifacts_url=self._settings.artifacts,
            outputs=_outputs_of(cluster, run, namespace, successes),
            labeling=self._settings.labeling,
            label_cache=str(self._settings.data_dir / "labels" / cluster.namespace_id),
            device=self._settings.device,
            # A cluster's workers are others' to size.
            n_threads=None if self._settings.dask_address else self._settings.threads,
            within=run.within,
            keep_runs=self._settings.keep_runs,
            previous_run_ids=tuple(past.run_id for past in earlier),
            earlier_successes=tuple(past.run_id for past in reversed(successes)),
            assign_to=successes[-1] if run.mode == "assign" and successes else None,
            assignment_threshold=(
                DEFAULT_ASSIGNMENT_THRESHOLD
                if run.assignment_threshold is None
                else run.assignment_threshold
            ),
            lease_number=_lease_number(run),
            result=run.result,
            spread_above_bytes=self._spread_above_bytes,
            trace=self.tracing.link(),
            started_at=run.started_at,
        )


def _lease_number(run: RunRecord) -> int:
    return run.lease.number if run.lease is not None else 1


def _outputs_of(
    cluster: ClusterRecord, run: RunRecord, namespace: NamespaceRecord, successes: list[RunRecord]
) -> tuple[OutputCollection, ...]:
    """Name a run's outputs: as earlier successful runs did, also after a rename."""
    definition = run.definition
    if definition.enrich_source_collection:
        return ()
    features: list[str | None] = [None]
    if definition.vector_config is not None and definition.vector.has_output_per_feature:
        features = [*definition.vector.features]
    kept = {
        output.feature: output
        for past in successes
        for output in (past.result.outputs if past.result else ())
    }
    planned = [
        plan_output(
            cluster.cluster_name,
            cluster.cluster_id,
            run.run_id,
            cluster.namespace_id,
            namespace.collection_template,
            word,
            _lease_number(run),
        ).model_copy(update={"feature": feature})
        for feature, word in zip(features, _distinct_words(features), strict=True)
    ]
    return tuple(
        output
        if output.feature not in kept
        else kept[output.feature].model_copy(
            update={
                "generation": generation_of(
                    kept[output.feature].name, run.run_id, _lease_number(run)
                )
            }
        )
        for output in planned
    )


def _distinct_words(features: list[str | None]) -> list[str | None]:
    """Give a short name for each feature; two that would be called alike get a digest."""
    slugs = [None if feature is None else slug(feature) for feature in features]
    return [
        word
        if feature is None or word is None or slugs.count(word) == 1
        else f"{word[:48]}-{hashlib.sha256(feature.encode()).hexdigest()[:8]}"
        for feature, word in zip(features, slugs, strict=True)
    ]
