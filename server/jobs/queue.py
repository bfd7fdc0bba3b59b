"""Takes pending runs, one lease each, and brings every one of them to one final state.

The loop claims when there is a free slot: at once when woken, and every `poll_s` seconds for
runs of other servers whose lease ran out. Namespaces take turns, so that one with many runs
cannot starve another; within a namespace runs go in the order they were queued. What is done
with a claimed run is in `running.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from server.errors import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError
from server.jobs import moves
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord
from server.jobs.moves import LeaseLostError
from server.jobs.running import RunningRun
from server.stores.base import JobStore

log = logging.getLogger(__name__)

CLOSE_WAIT_S = 10.0
"""Seconds that a claim under way, and then runs that are handed back, get to end."""


@dataclass(frozen=True)
class QueueSettings:
    """How runs are claimed.

    Attributes
    ----------
    owner : str
        This server's name in leases.
    lease_s : float
        Seconds a lease lasts without a heartbeat; a heartbeat is sent every third of it.
    poll_s : float
        Seconds between looks for runs that other servers left.
    """

    owner: str
    lease_s: float = 30.0
    poll_s: float = 1.0


class RunQueue:
    """The loop that claims runs, and the runs it has in hand."""

    def __init__(
        self,
        store: JobStore,
        make_run: Callable[[ClusterRecord], RunningRun],
        settings: QueueSettings,
        *,
        slots: Callable[[], int],
    ) -> None:
        self._store = store
        self._make_run = make_run
        self._settings = settings
        self._slots = slots
        self._woken = asyncio.Event()
        self._last_namespace = ""
        self._is_closing = False
        self._in_hand: dict[str, tuple[RunningRun, asyncio.Task[None]]] = {}
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def n_in_hand(self) -> int:
        """How many runs this server works on."""
        return len(self._in_hand)

    def start(self) -> None:
        """Begin to claim."""
        self._loop_task = asyncio.create_task(self._loop(), name="run-queue")

    def wake(self) -> None:
        """Say that there may be something to claim."""
        self._woken.set()

    def interrupt(self, run_id: str) -> None:
        """Pass a cancel on to the run at once, if it is in hand here."""
        if run_id in self._in_hand:
            self._in_hand[run_id][0].interrupt()

    async def close(self, grace_s: float = 0.0) -> None:
        """Claim no more, wait for what is in hand, then give the rest back to the store."""
        self._is_closing = True
        self._woken.set()
        if self._loop_task is not None:
            # Not canceled at once: a claim under way would be stored with nobody to know of it.
            await asyncio.wait([self._loop_task], timeout=CLOSE_WAIT_S)
            self._loop_task.cancel()
        tasks = [task for _, task in self._in_hand.values()]
        if not tasks:
            return
        log.info("stopping: %d runs in hand get %g s to end", len(tasks), grace_s)
        if grace_s > 0:
            await asyncio.wait(tasks, timeout=grace_s)
        for run, task in list(self._in_hand.values()):
            if not task.done():
                run.hand_back()
        await asyncio.wait(tasks, timeout=CLOSE_WAIT_S)

    async def _loop(self) -> None:
        while not self._is_closing:
            self._woken.clear()
            try:
                while self._may_claim() and await self._claim_one():
                    pass
            except UnavailableError as error:
                log.warning("the job store is away, claiming waits: %s", error)
            except Exception:  # A server that claims no more would look alive and do nothing.
                log.exception("claiming failed; it is tried again in %g s", self._settings.poll_s)
                await asyncio.sleep(self._settings.poll_s)
            if self._is_closing:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._settings.poll_s)

    def _may_claim(self) -> bool:
        return not self._is_closing and len(self._in_hand) < self._slots()

    async def _claim_one(self) -> bool:
        now = utc_now()
        limit = self._slots() + len(self._in_hand)
        for candidate in await self._store.claimable(now, limit, self._last_namespace):
            if candidate.newest_run is not None and candidate.newest_run.run_id in self._in_hand:
                continue  # Ours, with a late heartbeat; to begin it again would hurt it.
            try:
                claimed = await self._store.replace_cluster(
                    moves.claim(candidate, self._settings.owner, now, self._settings.lease_s)
                )
            except (ConflictError, LeaseLostError, NotFoundError, AlreadyExistsError):
                continue  # Another server was faster, or the cluster changed; look again.
            self._last_namespace = claimed.namespace_id
            self._take(claimed)
            return True
        return False

    def _take(self, cluster: ClusterRecord) -> None:
        run = self._make_run(cluster)
        task = asyncio.create_task(run.bring_to_end(), name=f"run {run.run_id}")
        self._in_hand[run.run_id] = (run, task)
        task.add_done_callback(lambda done: self._let_go(run.run_id, done))

    def _let_go(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._in_hand.pop(run_id, None)
        self._woken.set()
        if not task.cancelled() and task.exception() is not None:
            # The lease runs out and the run is claimed again, here or elsewhere.
            log.error("run %s was dropped", run_id, exc_info=task.exception())
