"""A run that this server holds by a lease: its record, its heartbeat, and why it has to stop.

Every write to the record shows the lease's number, so a server that lost the run changes
nothing. A job store that is away is waited for, until it answers or the run is to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from server.errors import ClusterNotFoundError, UnavailableError
from server.jobs import ledger, moves
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, RunRecord
from server.jobs.moves import LeaseLostError
from server.stores.base import JobStore

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between looks at the record: a cancel may come by another server, and ends in 5 s."""

STORE_PAUSE_S = 1.0
"""Seconds between tries to write to a job store that is away."""

Answer = TypeVar("Answer")
StopReason = Literal["canceled", "handed back", "lease lost", "deleted"]


class HeldRun:
    """The newest run of a cluster, under this server's lease.

    Parameters
    ----------
    store : JobStore
    cluster : ClusterRecord
        As it was claimed.
    lease_s : float
        Seconds that the lease lasts; the heartbeat renews it every third of that.
    on_stop : callable
        Told once, from the event loop, why the work is to stop.
    on_return : callable
        Told that the job store is back, and for how many seconds it was away.

    Raises
    ------
    LeaseLostError
        If nobody holds the run.
    """

    def __init__(
        self,
        store: JobStore,
        cluster: ClusterRecord,
        lease_s: float,
        *,
        on_stop: Callable[[StopReason], None],
        on_return: Callable[[float], None],
    ) -> None:
        run = cluster.newest_run
        if run is None or run.lease is None:
            raise LeaseLostError(f"cluster {cluster.cluster_id} has no claimed run")
        self._store = store
        self._lease_s = lease_s
        self._on_stop, self._on_return = on_stop, on_return
        self._stop_asked = asyncio.Event()
        self._store_away_since: float | None = None
        self.cluster = cluster
        self.run_id = run.run_id
        self.lease_number = run.lease.number
        self.stop_reason: StopReason | None = None

    @property
    def run(self) -> RunRecord:
        """The run, as it was last read or written."""
        run = self.cluster.run(self.run_id)
        if run is None:
            raise LeaseLostError(f"run {self.run_id} is gone")
        return run

    def stop(self, reason: StopReason) -> None:
        """Ask for the work's end; the first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self._stop_asked.set()
            self._on_stop(reason)

    async def pause(self, seconds: float) -> None:
        """Wait, but not for a run that is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), seconds)

    async def outlast(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat what the job store does not take, until it does or the run is to stop."""
        while True:
            try:
                answer = await attempt()
            except UnavailableError as error:
                self._note_absence()
                if self.stop_reason is not None:
                    raise
                log.warning("run %s waits for the job store: %s", self.run_id, error)
            else:
                self._note_return()
                return answer
            await self.pause(STORE_PAUSE_S)

    async def change(self, move: ledger.Move) -> None:
        """Write a move to the record, however long the job store is away."""
        self._adopt(await self.outlast(lambda: self._apply(move)))

    async def keep(self) -> None:
        """Renew the lease for as long as the work goes on.

        Notices a cancel that came by another server, and the lease's loss.
        """
        beat_s = self._lease_s / 3
        renewed_at = seconds()
        while True:
            await asyncio.sleep(min(beat_s, LOOK_S))
            began_at = seconds()
            try:
                if began_at - renewed_at < beat_s:
                    await self._look()
                    continue
                self._adopt(await self._apply(self._renewed))
                self._note_return()
                renewed_at = began_at
            except LeaseLostError:
                self.stop("lease lost")
                return
            except ClusterNotFoundError:
                self.stop("deleted")
                return
            except Exception as error:  # Without a heartbeat, two servers would do one run.
                log.warning("run %s: the lease could not be renewed: %r", self.run_id, error)
                if isinstance(error, UnavailableError):
                    self._note_absence()
                is_late = seconds() - renewed_at >= self._lease_s
                if is_late and self.run.committed_at is not None:
                    # Others may have it by now, and publishing shows no lease to Qdrant. What
                    # comes before the commit harms nobody, and the commit itself decides.
                    self.stop("lease lost")
                    return

    def _renewed(self, cluster: ClusterRecord) -> ClusterRecord:
        return moves.renew(cluster, self.run_id, self.lease_number, utc_now(), self._lease_s)

    async def _apply(self, move: ledger.Move) -> ClusterRecord:
        return await ledger.apply(
            self._store, self.cluster.namespace_id, self.cluster.cluster_id, move
        )

    async def _look(self) -> None:
        """Read the record; raise `LeaseLostError` if the run is no longer ours."""
        self._adopt(
            await self._store.get_cluster(self.cluster.namespace_id, self.cluster.cluster_id)
        )
        run = self.run
        if run.is_final or run.lease is None or run.lease.number != self.lease_number:
            raise LeaseLostError(f"run {self.run_id} is no longer ours")

    def _adopt(self, cluster: ClusterRecord) -> None:
        # Heartbeats and reports change the record too; an answer may come late.
        if cluster.revision > self.cluster.revision:
            self.cluster = cluster
        run = self.run
        if run.cancel_requested and run.committed_at is None and not run.is_final:
            self.stop("canceled")

    def _note_absence(self) -> None:
        if self._store_away_since is None:
            self._store_away_since = seconds()

    def _note_return(self) -> None:
        """Say once that the job store was away: nothing could be told meanwhile."""
        if self._store_away_since is not None:
            away_s = seconds() - self._store_away_since
            self._store_away_since = None
            self._on_return(away_s)


def seconds() -> float:
    """Read the clock that nobody sets: a jump of the time of day renews and ends no lease."""
    return time.monotonic()
