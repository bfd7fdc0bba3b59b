"""Events of a run: numbered in the store, and passed on to whoever watches.

A watcher reads the stored events first, then waits. A bell rings in this process when an
event is stored here; events of other servers are found by looking again every
`POLL_S` seconds. A watcher holds nothing but its place, so one that goes away leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from server.errors import ClusterNotFoundError, ServerStoppingError
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, EventRecord, RunRecord
from server.stores.base import JobStore

POLL_S = 1.0
HEARTBEAT_S = 15.0
BATCH = 200


@dataclass(frozen=True)
class Heartbeat:
    """Nothing new, but the stream lives; carries the run's present state."""

    run: RunRecord


class EventLog:
    """Stores events and lets watchers follow them."""

    def __init__(
        self, store: JobStore, *, poll_s: float = POLL_S, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._is_closing = False

    @property
    def watched_runs(self) -> int:
        """How many runs somebody is watching here."""
        return len(self._bells)

    async def append(self, event: EventRecord) -> EventRecord:
        """Store an event and wake this server's watchers of its run."""
        stored = await self._store.append_event(event)
        self.ring(event.run_id)
        return stored

    def ring(self, run_id: str) -> None:
        """Wake the watchers of a run: there is something to read."""
        for bell in self._bells.get(run_id, ()):
            bell.set()

    def end_watches(self) -> None:
        """Tell every watcher that the server is stopping; new ones are told at once."""
        self._is_closing = True
        for run_id in self._bells:
            self.ring(run_id)

    async def follow(
        self, namespace_id: str, cluster_id: str, run_id: str, after_sequence: int
    ) -> AsyncGenerator[EventRecord | Heartbeat, None]:
        """Give a run's events after a sequence number, live, up to its final one.

        If the run has ended and its server died before it stored the final event, that event
        is stored now: a final event always comes.

        Raises
        ------
        ClusterNotFoundError
            If the cluster is deleted while it is watched.
        ServerStoppingError
            After the events there are, if the server is stopping.
        """
        clock = asyncio.get_running_loop().time
        last_sent = clock()
        with self._bell(run_id) as bell:
            while True:
                bell.clear()
                for event in await self._store.events_after(run_id, after_sequence, BATCH):
                    after_sequence = event.sequence
                    last_sent = clock()
                    yield event
                    if event.is_final:
                        return
                run = await self._run(namespace_id, cluster_id, run_id)
                if run.is_final:
                    final = await self.append(final_event(run))
                    if final.sequence <= after_sequence:
                        return  # The watcher has seen the end already.
                    continue
                if self._is_closing:
                    raise ServerStoppingError(
                        "this server is stopping; the run goes on with the next one. Watch again "
                        f"after sequence {after_sequence}"
                    )
                if clock() - last_sent >= self._heartbeat_s:
                    last_sent = clock()
                    yield Heartbeat(run)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), min(self._poll_s, self._heartbeat_s))

    async def _run(self, namespace_id: str, cluster_id: str, run_id: str) -> RunRecord:
        cluster: ClusterRecord = await self._store.get_cluster(namespace_id, cluster_id)
        run = cluster.run(run_id)
        if run is None:
            raise ClusterNotFoundError(cluster_id)
        return run

    @contextlib.contextmanager
    def _bell(self, run_id: str) -> Iterator[asyncio.Event]:
        """Give one watcher its own bell, so that no other can silence it."""
        bell = asyncio.Event()
        self._bells.setdefault(run_id, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[run_id].discard(bell)
            if not self._bells[run_id]:
                del self._bells[run_id]


def final_event(run: RunRecord) -> EventRecord:
    """Make the event that ends a run's stream from the run as stored."""
    return EventRecord(
        run_id=run.run_id,
        status=run.status,
        stage=run.stage,
        message=_last_words(run),
        device=run.result.device if run.result else None,
        device_reason=run.result.device_reason if run.result else None,
        occurred_at=run.finished_at or utc_now(),
        warnings=run.warnings,
        error=run.error,
    )


def _last_words(run: RunRecord) -> str:
    if run.error is not None:
        return run.error.message
    if run.result is None:
        return f"the run was {run.status}"
    if run.result.skipped_reason is not None:
        return run.result.skipped_reason
    result = run.result
    noise = f", {result.num_noise} of them noise" if result.num_noise else ""
    return f"{result.num_clusters} groups from {result.num_documents} documents{noise}"
