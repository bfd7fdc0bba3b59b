"""One claimed run, from claim to its one final state.

    prepare (worker) ─▶ commit (store) ─▶ publish (worker) ─▶ finish (store) ─▶ final event

Before the commit the run may be canceled, fail, or be handed back, and what it staged is
discarded. After it the run only goes forward: whoever claims it next publishes again, which
is harmless. Every write to the record shows the lease's number, so a server that lost the
run changes nothing. A store or a Qdrant that is away is waited for. `held.py` keeps the record and
the lease, `reports.py` the events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import uuid4

from gpu.errors import ClusteringError, HostMemoryError
from server import logs, tracing
from server.engine.engine import Engine
from server.engine.model import StoppedError, WorkerDiedError
from server.errors import ClusterNotFoundError, RunFailure, ShoalError, UnavailableError
from server.jobs import moves, pipeline
from server.jobs.events import EventLog, final_event
from server.jobs.held import HeldRun, StopReason, seconds
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, RunError, RunRecord
from server.jobs.moves import LeaseLostError
from server.jobs.reports import Reports
from server.jobs.spec import Prepared, Progress, RunSpec
from server.metrics import Metrics, RunMeter
from server.stores.base import JobStore
from server.tracing import Tracing

log = logging.getLogger(__name__)

OUTAGE_PAUSE_S = (1.0, 30.0)
"""Seconds, first and longest, before work that found Qdrant away is tried again."""

INTERNAL_MESSAGE = "something unexpected went wrong; the server's log has it under error id {}"


@dataclass(frozen=True)
class Workplace:
    """What every run needs: the store, the events, the workers, and how its spec is made.

    `outage_s`: how long a run waits for a Qdrant that is away, beyond a worker's own patience.
    """

    store: JobStore
    events: EventLog
    engine: Engine
    make_spec: Callable[[ClusterRecord, RunRecord], Awaitable[RunSpec]]
    lease_s: float
    outage_s: float = 300.0
    metrics: Metrics = field(default_factory=Metrics)
    traces: Tracing = tracing.OFF


class GivenUpError(RunFailure):
    """The run was begun too often without an end."""

    reason = "GIVEN_UP"


class RunningRun:
    """A run this server holds the lease of."""

    def __init__(self, workplace: Workplace, cluster: ClusterRecord) -> None:
        self._at = workplace
        self._held = held = HeldRun(
            workplace.store,
            cluster,
            workplace.lease_s,
            on_stop=self._stop_work,
            on_return=self._tell_of_absence,
        )
        self.run_id = held.run_id
        self._reports = Reports(held, workplace.events, RunMeter(workplace.metrics))
        self._spec: RunSpec | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def _run(self) -> RunRecord:
        return self._held.run

    def interrupt(self) -> None:
        """Stop the work because the run was canceled."""
        self._held.stop("canceled")

    def hand_back(self) -> None:
        """Stop the work and leave the run to the next server."""
        self._held.stop("handed back")

    async def bring_to_end(self) -> None:
        """Do the work, whatever happens, up to a final state or the loss of the lease."""
        logs.bind(run_id=self.run_id, cluster_id=self._held.cluster.cluster_id)
        heartbeat = asyncio.create_task(self._held.keep())
        writer = asyncio.create_task(self._reports.write())
        try:
            with self._span():
                await self._work()
        except StoppedError:
            await self._after_stop()
        except LeaseLostError as error:
            self._at.metrics.lease_losses.inc()
            self._held.stop_reason = "lease lost"  # What is still to be told is another's to tell.
            log.warning("run %s: %s", self.run_id, error)
        except ClusterNotFoundError as error:
            self._held.stop_reason = "deleted"
            log.warning("run %s: %s", self.run_id, error)
            await self._discard()
        except WorkerDiedError as error:
            await self._after_death(error)
        except UnavailableError as error:
            await self._after_outage(error)
        except MemoryError as error:
            await self._fail(_out_of_memory(error))
        except (ShoalError, ClusteringError) as error:
            await self._fail(RunError(reason=error.reason, message=str(error)))
        except Exception as error:
            await self._fail_unexpectedly(error)
        finally:
            heartbeat.cancel()
            self._reports.close()
            await writer
            self._at.events.ring(self.run_id)

    def _span(self) -> AbstractContextManager[None]:
        """Cover the work by a span, under the call that asked for the run."""
        return self._at.traces.span(
            "run",
            parent=self._run.traceparent,
            attributes={
                "shoal.run_id": self.run_id,
                "shoal.cluster_id": self._held.cluster.cluster_id,
                "shoal.namespace_id": self._held.cluster.namespace_id,
                "shoal.attempt": self._run.attempts,
            },
        )

    async def _work(self) -> None:
        self._tell_if_taken_up()
        self._spec = spec = await self._held.outlast(self._make_spec)
        if self._run.committed_at is None:
            if self._run.attempts > moves.MAX_ATTEMPTS:
                raise GivenUpError(
                    f"the run was begun {moves.MAX_ATTEMPTS} times and each time its server or "
                    "worker died; a smaller sample_size needs less memory"
                )
            if self._run.cancel_requested:
                self._held.stop_reason = "canceled"
                raise StoppedError("canceled before it began")
            prepared: Prepared = await self._bear_outages(pipeline.prepare, spec)
            await self._held.change(lambda cluster: self._commit(cluster, prepared))
            spec = await self._held.outlast(self._make_spec)
        more_warnings = await self._bear_outages(pipeline.publish, spec)
        await self._finish("completed", extra_warnings=more_warnings)

    async def _make_spec(self) -> RunSpec:
        return await self._at.make_spec(self._held.cluster, self._run)

    def _tell_if_taken_up(self) -> None:
        """Say that somebody else, or an earlier attempt, began this run."""
        if self._held.lease_number == 1:
            return
        message = f"the run is taken up again: attempt {self._run.attempts} of {moves.MAX_ATTEMPTS}"
        if self._run.committed_at is not None:
            message = "the run is taken up again: its results are whole and are published now"
        self._reports.say(message)

    async def _bear_outages(self, function: Any, spec: RunSpec) -> Any:
        """Do work again, from its last finished stage, while Qdrant is away for some time."""
        away_since: float | None = None
        pause_s, longest_pause_s = OUTAGE_PAUSE_S
        while True:
            began_at = seconds()
            try:
                return await self._in_worker(function, spec)
            except UnavailableError as error:
                now = seconds()
                if away_since is None or now - began_at > self._at.outage_s:
                    away_since = now  # It worked for long: this is another outage.
                if now - away_since >= self._at.outage_s:
                    raise
                message = f"{error.message}; the run waits for it and then goes on"
                self._reports.say(message)
            await self._held.pause(pause_s)
            pause_s = min(2 * pause_s, longest_pause_s)

    def _tell_of_absence(self, away_s: float) -> None:
        self._reports.say(f"the job store was away for {away_s:.0f} s; the run went on meanwhile")

    def _commit(self, cluster: ClusterRecord, prepared: Prepared) -> ClusterRecord:
        run = cluster.run(self.run_id)
        if run is not None and run.cancel_requested:
            self._held.stop_reason = self._held.stop_reason or "canceled"
            raise StoppedError("canceled before its commit")
        return moves.commit(
            cluster, self.run_id, self._held.lease_number,
            prepared.result, prepared.warnings, utc_now(),
        )  # fmt: skip

    async def _in_worker(self, function: Any, spec: RunSpec) -> Any:
        if self._held.stop_reason is not None:
            raise StoppedError(self._held.stop_reason)
        return await self._at.engine.run(
            self.run_id,
            function,
            spec,
            lambda message: self._reports.put(Progress.from_message(message)),
        )

    def _stop_work(self, reason: StopReason) -> None:
        if reason == "lease lost":
            self._at.metrics.lease_losses.inc()
        task = asyncio.create_task(self._at.engine.stop(self.run_id))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _after_stop(self) -> None:
        """Clean up behind stopped work, as its reason asks."""
        if self._held.stop_reason == "lease lost":
            await self._abandon()
        elif self._held.stop_reason == "deleted":
            await self._discard()
        elif self._held.stop_reason == "canceled":
            if self._run.committed_at is None:
                await self._discard()
            await self._finish("canceled")
        elif self._held.stop_reason == "handed back":  # The next server goes on from what is there.
            await self._release("the server is stopping; the run goes on with the next", True)

    async def _after_death(self, error: WorkerDiedError) -> None:
        """Let the run be claimed again, unless it has killed too many workers."""
        self._at.metrics.worker_deaths.inc()
        if self._run.attempts < moves.MAX_ATTEMPTS:
            await self._release(f"{error.message}; the run goes on from its last stage", False)
            return
        message = f"{error.message}; a smaller sample_size needs less memory"
        await self._fail(RunError(reason=error.reason, message=message))

    async def _after_outage(self, error: UnavailableError) -> None:
        """Fail a run that waited too long, unless it is committed: then it only goes on."""
        if self._held.stop_reason is not None:  # The job store is away, and so is the time to wait.
            await self._after_stop()
        elif self._run.committed_at is None:
            message = f"{error.message}; the run waited {self._at.outage_s:g} s for it"
            await self._fail(RunError(reason=error.reason, message=message))
        else:
            await self._release(f"{error.message}; publishing is tried again", True)

    async def _fail_unexpectedly(self, error: Exception) -> None:
        error_id = uuid4().hex[:12]
        log.error(
            "run %s failed, error id %s", self.run_id, error_id,
            exc_info=error, extra={"error_id": error_id},
        )  # fmt: skip
        await self._fail(RunError(reason="INTERNAL", message=INTERNAL_MESSAGE.format(error_id)))

    async def _fail(self, error: RunError) -> None:
        if self._run.committed_at is None:
            await self._discard()
        await self._finish("failed", error=error)

    async def _discard(self) -> None:
        """Remove what was staged. Never fails: a run must end where leftovers cannot go now."""
        with self._leftovers_logged():
            # The spec it began with: a rename since then would name another output.
            spec = self._spec or await self._make_spec()
            await self._remove(pipeline.discard, spec)

    async def _abandon(self) -> None:
        """Remove what a stopped attempt staged of a run that is another's now."""
        with self._leftovers_logged():
            spec = self._spec or await self._make_spec()
            record = await self._at.store.get_cluster(spec.namespace_id, spec.cluster_id)
            run = record.run(self.run_id)
            to_show = run.result.outputs if run is not None and run.result is not None else []
            staged = tuple(output for output in spec.outputs if output not in to_show)
            await self._remove(pipeline.abandon, replace(spec, outputs=staged))

    async def _remove(self, function: Callable[[RunSpec], None], spec: RunSpec) -> None:
        """Call it here: a fresh worker may take seconds to come."""
        await asyncio.to_thread(function, spec)

    @contextmanager
    def _leftovers_logged(self) -> Iterator[None]:
        """Let go what could not be removed now: the cluster's next run sweeps it."""
        try:
            yield
        except Exception:
            log.warning("run %s: what it staged was not removed", self.run_id, exc_info=True)

    async def _finish(
        self,
        status: Literal["completed", "failed", "canceled"],
        *,
        error: RunError | None = None,
        extra_warnings: list[str] | None = None,
    ) -> None:
        # First: a watcher that finds the run ended stores the final event, and drops the rest.
        await self._reports.settle()
        try:
            await self._held.change(
                lambda cluster: moves.finish(
                    cluster, self.run_id, self._held.lease_number, status, utc_now(),
                    error, extra_warnings,
                )
            )  # fmt: skip
        except (LeaseLostError, ClusterNotFoundError) as lost:
            log.warning("run %s ended elsewhere: %s", self.run_id, lost)
            return
        self._at.metrics.ended.labels(status).inc()
        log.info("run %s ended: %s", self.run_id, status, extra={"status": status})
        await self._held.outlast(lambda: self._at.events.append(final_event(self._run)))

    async def _release(self, message: str, blameless: bool) -> None:
        # First: once released, the run may be claimed and tell its own events.
        self._reports.say(message)
        await self._reports.settle()
        try:
            await self._held.change(
                lambda cluster: moves.release(
                    cluster, self.run_id, self._held.lease_number, utc_now(), blameless=blameless
                )
            )
        except (LeaseLostError, ClusterNotFoundError) as lost:
            log.warning("run %s went elsewhere: %s", self.run_id, lost)


def _out_of_memory(error: MemoryError) -> RunError:
    return RunError(
        reason=HostMemoryError.reason,
        message=f"the worker ran out of memory ({error}); a smaller sample_size needs less",
    )
