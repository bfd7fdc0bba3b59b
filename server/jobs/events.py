"""Events of a run: numbered in the store, and passed on to whoever watches.

A watcher reads the stored events first, then waits for its bell. Events that are stored here
reach it at once; those of other servers are found by one question to the store every
`POLL_S` seconds, for all watched runs together. A watcher holds nothing but its place, so one
that goes away leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from server.errors import ClusterNotFoundError, ServerStoppingError, UnavailableError
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, EventRecord, RunRecord
from server.jobs.tails import Tail
from server.stores.base import JobStore

log = logging.getLogger(__name__)

POLL_S = 1.0
LOOKS_PER_POLL = 5
"""A run's record changes seldom without an event, so a watcher reads it only so many polls."""
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
        self._look_s = LOOKS_PER_POLL * poll_s
        self._tails: dict[str, Tail] = {}
        self._polling: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def watched_runs(self) -> int:
        """How many runs somebody is watching here."""
        return len(self._tails)

    async def append(self, event: EventRecord) -> EventRecord:
        """Store an event and wake this server's watchers of its run."""
        stored = await self._store.append_event(event)
        if event.run_id in self._tails:
            self._tails[event.run_id].add(stored)
        return stored

    def ring(self, run_id: str) -> None:
        """Wake the watchers of a run: its record may have changed."""
        if run_id in self._tails:
            self._tails[run_id].changed()

    def end_watches(self) -> None:
        """Tell every watcher that the server is stopping; new ones are told at once."""
        self._is_closing = True
        for run_id in self._tails:
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
        looked_at, seen_changes = -math.inf, -1
        with self._watch(run_id) as tail, tail.bell() as bell:
            while True:
                bell.clear()
                changes = tail.changes
                events = tail.after(after_sequence)
                if events is None:
                    events = await self._store.events_after(run_id, after_sequence, BATCH)
                for event in events:
                    after_sequence = event.sequence
                    last_sent = clock()
                    yield event
                    if event.is_final:
                        return
                if events:
                    continue
                now = clock()
                is_quiet = now - last_sent >= self._heartbeat_s
                if is_quiet or changes != seen_changes or now - looked_at >= self._look_s:
                    run = await self._run(namespace_id, cluster_id, run_id)
                    looked_at, seen_changes = now, changes
                    if run.is_final:
                        final = await self.append(final_event(run))
                        if final.sequence <= after_sequence:
                            return  # The watcher has seen the end already.
                        continue
                    if is_quiet:
                        last_sent = now
                        yield Heartbeat(run)
                if self._is_closing:
                    raise ServerStoppingError(
                        "this server is stopping; the run goes on with the next one. Watch again "
                        f"after sequence {after_sequence}"
                    )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), min(self._look_s, self._heartbeat_s))

    async def _run(self, namespace_id: str, cluster_id: str, run_id: str) -> RunRecord:
        cluster: ClusterRecord = await self._store.get_cluster(namespace_id, cluster_id)
        run = cluster.run(run_id)
        if run is None:
            raise ClusterNotFoundError(cluster_id)
        return run

    @contextlib.contextmanager
    def _watch(self, run_id: str) -> Iterator[Tail]:
        """Keep a run's tail while anybody watches it, and look for events of other servers."""
        tail = self._tails.setdefault(run_id, Tail())
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll(), name="event-poll")
        try:
            yield tail
        finally:
            if not tail.is_watched:
                self._tails.pop(run_id, None)
            if not self._tails and self._polling is not None:
                self._polling.cancel()
                self._polling = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look_elsewhere()
            except UnavailableError as error:  # Watchers meet it too, and tell their callers.
                log.warning("the job store is away, watchers wait: %s", error)
            except Exception:  # Without this task no event of another server would be seen.
                log.exception("looking for events failed; it is tried again")

    async def _look_elsewhere(self) -> None:
        """Find what other servers have told of the runs that are watched here."""
        newest = await self._store.last_sequences(list(self._tails))
        for run_id, tail in list(self._tails.items()):
            last = newest.get(run_id, 0)
            tail.begin(last)
            if tail.last is not None and tail.last < last:  # What a batch leaves waits a poll.
                for event in await self._store.events_after(run_id, tail.last, BATCH):
                    tail.add(event)


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
