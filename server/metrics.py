"""What Prometheus may ask for: calls, the queue, runs, their stages, the device.

The one file that imports prometheus-client. Everything is counted in a registry of its own,
so that several servers in one process (as in tests) do not meet; `listen` serves it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from server.errors import UnavailableError
from server.jobs.model import ACTIVE_STATUSES, RunStatus
from server.jobs.spec import Progress

LOOK_S = 5.0
"""Seconds between counts of the store's runs."""

_log = logging.getLogger(__name__)

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_BUCKETS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = at = CollectorRegistry()
        self.calls = Counter("shoal_rpcs", "Calls that ended", ["rpc", "code"], registry=at)
        self.call_seconds = Histogram(
            "shoal_rpc_seconds", "Seconds a unary call took", ["rpc"],
            buckets=_CALL_BUCKETS, registry=at,
        )  # fmt: skip
        self.streams = Gauge("shoal_streams_open", "Streams that are open", ["rpc"], registry=at)
        self.failed_logins = Counter("shoal_failed_logins", "Calls with a wrong key", registry=at)
        self.queue_depth = Gauge(
            "shoal_queue_depth", "Runs of all servers that wait to be claimed", registry=at
        )
        self.runs_active = Gauge(
            "shoal_runs_active", "Runs of all servers that have not ended", ["status"], registry=at
        )
        self.in_hand = Gauge("shoal_runs_in_hand", "Runs this server works on", registry=at)
        self.ended = Counter(
            "shoal_runs_ended", "Runs this server brought to an end", ["status"], registry=at
        )
        self.lease_losses = Counter(
            "shoal_lease_losses", "Runs that another server took from this one", registry=at
        )
        self.worker_deaths = Counter(
            "shoal_worker_deaths", "Worker processes that died under a run", registry=at
        )
        self.stage_seconds = Histogram(
            "shoal_stage_seconds", "Seconds a stage took", ["stage"],
            buckets=_STAGE_BUCKETS, registry=at,
        )  # fmt: skip
        self.exported = Counter(
            "shoal_exported_points", "Points read from Qdrant; its rate is points/s", registry=at
        )
        self.device_memory = Gauge(
            "shoal_device_memory_bytes", "Memory of the device that a run last used, by kind",
            ["kind"], registry=at,
        )  # fmt: skip

    def listen(self, address: str) -> Callable[[], None]:
        """Serve the numbers over HTTP at ``host:port``; gives what stops that.

        Raises
        ------
        OSError
            If the address cannot be listened on.
        """
        host, _, port = address.rpartition(":")
        server, thread = start_http_server(int(port), host.strip("[]"), self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def count_call(self, name: str, code: str, elapsed_s: float | None) -> None:
        """Note the end of a call; of a stream without its seconds, which its run decides."""
        self.calls.labels(name, code).inc()
        if elapsed_s is not None:
            self.call_seconds.labels(name).observe(elapsed_s)

    def set_runs(self, by_status: Mapping[RunStatus, int]) -> None:
        """Show the store's active runs by state."""
        for status in ACTIVE_STATUSES:
            self.runs_active.labels(status).set(by_status.get(status, 0))
        self.queue_depth.set(by_status.get("pending", 0))

    async def follow_store(
        self, count_runs: Callable[[], Awaitable[Mapping[RunStatus, int]]]
    ) -> None:
        """Show the store's active runs by state every `LOOK_S` seconds, until canceled."""
        while True:
            try:
                self.set_runs(await count_runs())
            except UnavailableError as error:
                _log.warning("the job store is away, its runs are not counted: %s", error)
            await asyncio.sleep(LOOK_S)


class RunMeter:
    """Turns the reports of one run into numbers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began: dict[str, datetime] = {}
        self._exported = 0

    def note(self, report: Progress) -> None:
        """Note where the run is."""
        stage, told_at = report.stage, report.occurred_at
        if stage is None or told_at is None:
            return
        if stage == "export" and report.processed is not None:
            self._metrics.exported.inc(max(report.processed - self._exported, 0))
            self._exported = report.processed
        if report.device_memory is not None:
            for kind, n_bytes in report.device_memory.items():
                self._metrics.device_memory.labels(kind).set(n_bytes)
        if report.share == 0.0:
            self._began[stage] = told_at
        elif report.share == 1.0 and stage in self._began:
            elapsed_s = (told_at - self._began.pop(stage)).total_seconds()
            self._metrics.stage_seconds.labels(stage).observe(max(elapsed_s, 0.0))
