"""What a run's worker tells, stored as numbered events in the order in which it was told."""

from __future__ import annotations

import asyncio
import functools
import logging

from server.jobs import moves
from server.jobs.events import EventLog
from server.jobs.held import HeldRun
from server.jobs.ledger import utc_now
from server.jobs.model import EventRecord
from server.jobs.spec import Progress
from server.metrics import RunMeter

log = logging.getLogger(__name__)


class Reports:
    """The way from the worker to the event log, for one run.

    Parameters
    ----------
    held : HeldRun
        Whose record follows the stages.
    events : EventLog
    meter : RunMeter
        Sees every report before it is stored.
    """

    def __init__(self, held: HeldRun, events: EventLog, meter: RunMeter) -> None:
        self._held, self._events, self._meter = held, events, meter
        self._waiting: asyncio.Queue[Progress | None] = asyncio.Queue()

    def put(self, report: Progress) -> None:
        """Take a report of the worker's."""
        self._waiting.put_nowait(report)

    def say(self, message: str) -> None:
        """Report something about the run itself."""
        self.put(Progress(stage=self._held.run.stage, message=message))

    async def settle(self) -> None:
        """Wait until everything that was told is stored."""
        await self._waiting.join()

    def close(self) -> None:
        """Let `write` end behind what was told so far."""
        self._waiting.put_nowait(None)

    async def write(self) -> None:
        """Store what is told, until it is closed; a lost event never ends a run."""
        while (report := await self._waiting.get()) is not None:
            self._meter.note(report)
            try:
                await self._held.outlast(functools.partial(self._store, report))
            except Exception as error:  # Whoever ends the run waits for this task's work.
                log.warning("run %s: an event was not stored: %r", self._held.run_id, error)
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    async def _store(self, report: Progress) -> None:
        held = self._held
        if held.stop_reason in ("lease lost", "deleted"):
            return  # The events are another server's to tell, or went with the cluster.
        # Made first: it checks the report, whose stage then goes into the record.
        event = EventRecord(
            run_id=held.run_id,
            status="processing",
            stage=report.stage,
            stage_progress=report.share,
            processed=report.processed,
            total=report.total,
            message=report.message,
            device=report.device,
            device_reason=report.device_reason,
            occurred_at=report.occurred_at or utc_now(),
            warnings=list(report.warnings),
        )
        stage = event.stage
        if stage is not None and stage != held.run.stage and held.run.committed_at is None:
            await held.change(
                lambda cluster: moves.enter_stage(
                    cluster, held.run_id, held.lease_number, stage, utc_now()
                )
            )
        await self._events.append(event)
