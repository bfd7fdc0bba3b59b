"""Events of a run: numbered in the store, and passed on to whoever watches.

A watcher reads the stored events first, then waits for its bell. Events that are stored here
reach it at once; those of other servers, and changes of a run's record, are found by two
questions to the store every `POLL_S` seconds, for all watched runs together. A watcher holds
nothing but its place, so one that goes away leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from server.errors import ClusterNotFoundError, ServerStoppingError, UnavailableError
from server.jobs.ledger import utc_now
from server.jobs.model import EventRecord, RunRecord
from server.jobs.tails import Tail
from server.stores.base import JobStore

log = logging.getLogger(__name__)

POLL_S = 1.0
HEARTBEAT_S = 15.0
HEARTBEAT_SPREAD = 0.3
"""Share of its seconds by which a heartbeat may come early: a thousand watchers that one event
woke together would else be told together that nothing happens, while every call waits."""
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
        heartbeat_at = self._heartbeat_at(clock())
        seen_changes = -1
        with self._watch(run_id, cluster_id) as tail, tail.bell() as bell:
            while True:
                bell.clear()
                changes = tail.changes
                events = tail.after(after_sequence)
                if events is None:
                    events = await self._store.events_after(run_id, after_sequence, BATCH)
                for event in events:
                    after_sequence = event.sequence
                    heartbeat_at = self._heartbeat_at(clock())
                    yield event
                    if event.is_final:
                        return
                if events:
                    continue
                is_quiet = clock() >= heartbeat_at
                if is_quiet or changes != seen_changes:
                    run = await self._run(tail, namespace_id, cluster_id, run_id)
                    seen_changes = changes
                    if run.is_final:
                        final = await self.append(final_event(run))
                        if final.sequence <= after_sequence:
                            return  # The watcher has seen the end already.
                        continue
                    if is_quiet:
                        heartbeat_at = self._heartbeat_at(clock())
                        yield Heartbeat(run)
                if self._is_closing:
                    raise ServerStoppingError(
                        "this server is stopping; the run goes on with the next one. Watch again "
                        f"after sequence {after_sequence}"
                    )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), heartbeat_at - clock())

    def _heartbeat_at(self, now: float) -> float:
        """Say when a watcher that was told something now is to hear from us again."""
        return now + self._heartbeat_s * (1 - HEARTBEAT_SPREAD * random.random())

    async def _run(self, tail: Tail, namespace_id: str, cluster_id: str, run_id: str) -> RunRecord:
        cluster = await tail.cluster(lambda: self._store.get_cluster(namespace_id, cluster_id))
        run = cluster.run(run_id)
        if run is None:
            raise ClusterNotFoundError(cluster_id)
        return run

    @contextlib.contextmanager
    def _watch(self, run_id: str, cluster_id: str) -> Iterator[Tail]:
        """Keep a run's tail while anybody watches it, and look for what other servers do."""
        tail = self._tails.setdefault(run_id, Tail(cluster_id))
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
            except UnavailableError as error:
                log.warning("the job store is away: %s", error)
                for run_id in list(self._tails):  # Watchers meet it too, and tell their callers.
                    self.ring(run_id)
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
        watched = list(self._tails.values())
        revisions = await self._store.revisions(sorted({tail.cluster_id for tail in watched}))
        for tail in watched:
            tail.found(revisions.get(tail.cluster_id))


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
