"""Runs functions in worker processes through Dask, and stops them for good when asked.

By default a local cluster of one worker process; with an address, a cluster that others
keep. One function at a time per worker: a stop ends the process that it runs in, which
would take a neighbour with it. The nanny starts a fresh process at once.

Of a cluster that others keep nothing is restarted and no setting is changed. There a worker
process ends itself once the scheduler no longer wants its function (`inside.py`), and a function
that the scheduler would silently repeat after a worker's death refuses to begin again. A cluster
that is away, or whose workers do not fit (`fitness.py`), is told as such, and looked for again
with the next function.

This is the one file of the service that imports Dask.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import uuid4

import dask
from dask.distributed import Client, Event, Future, LocalCluster, Nanny, get_client, get_worker
from distributed import KilledWorker
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.versions import VersionMismatchWarning

from server.errors import PreconditionError, RunFailure, UnavailableError
from server.jobs import inside
from server.jobs.fitness import Cluster, unfitness, version_faults
from server.logs import LogSettings

log = logging.getLogger(__name__)

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Report = Any
"""What a function tells while it runs: anything that msgpack can carry."""

WorkerFunction = Callable[[Argument, Callable[[Report], None]], Result]

KILL_GRACE_S = 0.5
"""How long the nanny lets a stopped worker say goodbye. A fit in native code cannot."""

STOP_TIMEOUT_S = 10
"""How long a stop waits for a worker's end before it goes on without it."""

CONNECT_TIMEOUT_S = 5
"""How long a scheduler gets to answer."""

LOOK_S = 2.0
"""Seconds between looks at how many workers a cluster of others has."""


class WorkerDiedError(RunFailure):
    """The process that ran the function ended: killed, out of memory, or crashed."""

    reason = "WORKER_DIED"


class StoppedError(RunFailure):
    """`Engine.stop` ended the function."""

    reason = "STOPPED"


class NoWorkerError(PreconditionError):
    """The server cannot start: its Dask cluster has no worker that could take a function."""

    reason = "NO_WORKER"


class ClusterAwayError(UnavailableError):
    """The Dask cluster is away, or has no worker that could take the function now."""

    reason = "DASK_CLUSTER_AWAY"


class BegunBeforeError(Exception):
    """The scheduler repeats a function by itself, after its worker's death. Seen here alone."""


@dataclass(frozen=True)
class EngineSettings:
    """How the engine's workers are made.

    Attributes
    ----------
    workers : int or None
        Functions that this server runs at once: the worker processes of the local cluster (None:
        one), or at most so many of a cluster of others (None: as many as it has).
    threads : int
        Threads that numeric libraries may use in each worker of the local cluster.
    address : str or None
        Scheduler of a cluster that others keep; None: a local cluster.
    device : {"auto", "gpu", "cpu"}
        With a cluster of others: gpu needs workers that offer the resource GPU, auto prefers them.
    logs : LogSettings or None
        How workers log; None leaves that as it is.
    """

    workers: int | None = None
    threads: int = os.cpu_count() or 1
    address: str | None = None
    device: Literal["auto", "gpu", "cpu"] = "auto"
    logs: LogSettings | None = None


class _ShortGraceNanny(Nanny):  # type: ignore[misc]
    """A nanny that kills after `KILL_GRACE_S` instead of four seconds."""

    async def kill(  # The parameters are Nanny's own.
        self,
        timeout: float = 5,  # noqa: ASYNC109
        reason: str = "nanny-kill",
    ) -> None:
        await super().kill(timeout=min(timeout, KILL_GRACE_S), reason=reason)


@dataclass(frozen=True)
class WorkerState:
    """What one worker process does and takes, as it told within the last seconds.

    Attributes
    ----------
    key : str or None
        Key of the function that it runs.
    memory_bytes : int
        What the process holds.
    cpu_percent : float
        Of one core.
    """

    name: str
    key: str | None
    memory_bytes: int
    cpu_percent: float


class Engine:
    """Workers, and the functions that run in them, by key."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self._settings = settings or EngineSettings()
        self._topic = f"shoal-{uuid4().hex}"
        self._futures: dict[str, Future] = {}
        self._stopped: dict[str, asyncio.Event] = {}
        self._listeners: dict[str, Callable[[Report], None]] = {}
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None
        # Of a cluster of others:
        self._connecting = asyncio.Lock()
        self._known_versions: set[str] = set()
        self._n_fit = 0
        self._following: asyncio.Task[None] | None = None
        self._ended: dict[str, tuple[set[str], asyncio.Event]] = {}
        self._cancels: set[asyncio.Future[None]] = set()
        self._early: set[str] = set()  # Asked for, and not yet sent.
        self._stopped_early: set[str] = set()

    @property
    def slots(self) -> int:
        """How many functions run at the same time."""
        if self._settings.address is None:
            return self._settings.workers or 1
        most = self._settings.workers
        return self._n_fit if most is None else min(most, self._n_fit)

    async def start(self) -> None:
        """Start the workers, or connect to those there are.

        Raises
        ------
        NoWorkerError
            If the cluster of others does not answer, or has no worker that fits.
        """
        if self._settings.address is None:
            self._cluster = await self._local_cluster()
            self._client = await self._connect(self._cluster)
            return
        try:
            await self._look()
        except ClusterAwayError as error:
            await self.close()
            raise NoWorkerError(error.message) from error
        self._following = asyncio.create_task(self._follow(), name="dask-cluster")

    async def close(self) -> None:
        """Stop what runs and let the workers go."""
        if self._following is not None:
            self._following.cancel()
        for key in list(self._futures):
            # A cluster that is away runs nothing of ours; its client has no scheduler then.
            with contextlib.suppress(OSError, AttributeError):
                await self.stop(key)
        await self._disconnect()
        if self._cluster is not None:
            await self._cluster.close()

    async def workers(self) -> list[WorkerState]:
        """Tell what each worker does and takes; empty before the start."""
        if self._client is None:
            return []
        try:
            identity = await self._client.scheduler.identity()
            processing = await self._client.processing()
        except (OSError, AttributeError):  # The scheduler is away: its client has none.
            return []
        key_of = {future.key: key for key, future in self._futures.items()}
        return [
            WorkerState(
                name=str(worker["name"]),
                key=next((key_of.get(k, k) for k in processing.get(address, ())), None),
                memory_bytes=int(worker["metrics"].get("memory", 0)),
                cpu_percent=float(worker["metrics"].get("cpu", 0.0)),
            )
            for address, worker in identity["workers"].items()
        ]

    async def everywhere(
        self, function: Callable[[Argument], Result], argument: Argument
    ) -> dict[str, Result | Exception]:
        """Call a short function in every worker, also in busy ones; by the worker's address."""
        client, _ = await self._look()
        answers: dict[str, Result | Exception] = await client.run(
            _aside, function, argument, on_error="return"
        )
        return answers

    async def run(
        self,
        key: str,
        function: WorkerFunction[Argument, Result],
        argument: Argument,
        on_report: Callable[[Report], None],
    ) -> Result:
        """Run ``function(argument, report)`` in a worker and give its result.

        `on_report` is called in this loop with each thing that the function reports.

        Raises
        ------
        WorkerDiedError
            If the worker process ended under it.
        StoppedError
            If `stop` was called; raised once the function's process is gone.
        ClusterAwayError
            If the cluster of others is away, or becomes so, or has no worker that fits.
        Exception
            Whatever the function raised.
        """
        client, resources = await self._ready(key)
        self._listeners[key] = on_report
        future = self._futures[key] = client.submit(
            _call, function, argument, self._topic, key, self._settings.logs, self._is_abroad,
            key=f"{key}-{uuid4().hex[:8]}", pure=False, retries=0, resources=resources,
        )  # fmt: skip
        try:
            result: Result = await future.result()
        except (KilledWorker, FutureCancelledError, CommClosedError, BegunBeforeError) as error:
            if key in self._stopped:
                await self._stopped[key].wait()
                raise StoppedError(f"{key} was stopped") from None
            if client.status != "running" or client is not self._client:
                raise ClusterAwayError(self._silence()) from error
            raise WorkerDiedError(
                "the worker process died; it may have been killed for memory"
            ) from error
        finally:
            self._futures.pop(key, None)
            self._listeners.pop(key, None)
            self._stopped.pop(key, None)
        if self._is_abroad:  # Only of an end that was seen: a repeat may be under way else.
            await _forget(client, future.key)
        return result

    async def stop(self, key: str) -> None:
        """End a function now, wherever it is; its worker process ends with it."""
        self._stopped_early |= {key} & self._early
        future = self._futures.get(key)
        if future is None or self._client is None or key in self._stopped:
            return
        gone = self._stopped[key] = asyncio.Event()
        try:
            holders = await self._client.processing()
            workers = [worker for worker, keys in holders.items() if future.key in keys]
            if self._is_abroad:
                await self._cancel_abroad(key, future, workers)
                return
            await future.cancel(force=True)
            if workers:
                # As Client.restart_workers, but without waiting for the fresh process.
                await self._client.scheduler.restart_workers(
                    workers=workers,
                    timeout=STOP_TIMEOUT_S,
                    wait_for_workers=False,
                    on_error="return",
                    stimulus_id=f"shoal-stop-{key}",
                )
        except Exception:
            self._stopped.pop(key, None)  # It may run on: a later stop tries again.
            raise
        finally:
            gone.set()

    @property
    def _is_abroad(self) -> bool:
        return self._settings.address is not None

    async def _cancel_abroad(self, key: str, future: Future, workers: list[str]) -> None:
        """Take a function's key away, and wait for the end of the process that sees it go."""
        ended = asyncio.Event()
        self._ended[key] = (set(workers), ended)
        try:
            await future.cancel(force=True)
            if workers:
                await asyncio.wait_for(ended.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            # Without a nanny it ends at its next report; what it writes meets the run's fence.
            log.warning("%s was canceled, and its worker %s goes on for now", key, workers)
        finally:
            del self._ended[key]

    async def _ready(self, key: str) -> tuple[Client, dict[str, float] | None]:
        """Give a client that is connected, and the resources that a function takes."""
        if self._is_abroad:
            self._early.add(key)
            try:
                client, cluster = await self._look()
                if key in self._stopped_early:
                    raise StoppedError(f"{key} was stopped before it began")
            finally:
                self._early.discard(key)
                self._stopped_early.discard(key)
            return client, cluster.resources(self._settings.device)
        if self._client is None:
            raise RuntimeError("the engine is not started")
        return self._client, None

    async def _look(self) -> tuple[Client, Cluster]:
        """Look at the cluster of others, and connect to it anew where needed.

        Raises
        ------
        ClusterAwayError
            If it does not answer, or no worker of it fits.
        """
        try:
            client, cluster = await self._look_again()
        except ClusterAwayError:
            self._n_fit = 0
            raise
        self._n_fit = cluster.n_fit(self._settings.device)
        return client, cluster

    async def _look_again(self) -> tuple[Client, Cluster]:
        async with self._connecting:
            try:
                if self._client is None or self._client.status != "running":
                    await self._disconnect()
                    self._client = await self._connect(self._settings.address)
                client = self._client
                cluster = Cluster.from_identity(await client.scheduler.identity())
                await self._compare_versions(client, cluster)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                # TypeError: of tls:// without certificates. AttributeError: a client that has
                # lost its scheduler has none.
                raise ClusterAwayError(f"{self._silence()} ({error})") from error
        if (fault := unfitness(cluster, self._settings.device)) is not None:
            raise ClusterAwayError(f"the Dask cluster at {self._settings.address} {fault}")
        return client, cluster

    async def _compare_versions(self, client: Client, cluster: Cluster) -> None:
        """Refuse workers that run another shoal, Python or Dask; each is looked at once."""
        if set(cluster.workers) <= self._known_versions:
            return
        told: Mapping[str, Any] = await client.get_versions(packages=["shoal"])
        if faults := version_faults(told):
            raise ClusterAwayError(
                f"the Dask cluster at {self._settings.address} runs other versions than this "
                f"server: {'; '.join(faults)}; install the same image or lock file everywhere"
            )
        self._known_versions = set(cluster.workers)

    def _silence(self) -> str:
        return (
            f"no Dask scheduler answers at {self._settings.address}; start it, or mend "
            "SHOAL_DASK_ADDRESS and DASK_DISTRIBUTED__COMM__TLS__*"
        )

    async def _connect(self, to: LocalCluster | str | None) -> Client:
        with warnings.catch_warnings():  # We compare versions ourselves, and in words.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            client = Client(to, asynchronous=True, set_as_default=False, timeout=CONNECT_TIMEOUT_S)
            try:
                await client
            except BaseException:
                await client.close(timeout=CONNECT_TIMEOUT_S)
                raise
        client.subscribe_topic(self._topic, self._on_event)
        if self._is_abroad:
            client.subscribe_topic("all", self._on_cluster_event)
        return client

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close(timeout=CONNECT_TIMEOUT_S)

    async def _follow(self) -> None:
        """Keep the number of slots, and connect again to a cluster that was away."""
        was_away = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except ClusterAwayError as error:
                if not was_away:
                    log.warning("runs wait: %s", error.message)
                was_away = True
            else:
                if was_away:
                    log.warning("the Dask cluster is back, with room for %d runs", self.slots)
                was_away = False

    async def _local_cluster(self) -> LocalCluster:
        threads = str(self._settings.threads)
        dask.config.set(
            {
                # One attempt: a repeat is the run queue's decision, under a new lease.
                "distributed.scheduler.allowed-failures": 0,
                # After 15 s Dask would close the nanny of a worker that is slow to come back,
                # and no run would ever be done here again.
                "distributed.deploy.lost-worker-timeout": "365 days",
                "distributed.worker.daemon": True,
                # A fit may use all memory there is; the estimate before it is ours to make.
                "distributed.worker.memory.terminate": False,
                "distributed.worker.memory.pause": False,
                "distributed.worker.memory.spill": False,
                "distributed.worker.memory.target": False,
                "distributed.worker.multiprocessing-method": "spawn",
                "distributed.nanny.pre-spawn-environ": {
                    "OMP_NUM_THREADS": threads,
                    "OPENBLAS_NUM_THREADS": threads,
                    "MKL_NUM_THREADS": threads,
                    "NUMBA_NUM_THREADS": threads,
                },
            }
        )
        return await LocalCluster(
            n_workers=self._settings.workers or 1,
            threads_per_worker=1,
            processes=True,
            worker_class=_ShortGraceNanny,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            asynchronous=True,
            silence_logs=40,
            memory_limit=0,
        )

    def _on_event(self, event: tuple[float, Any]) -> None:
        _, (key, report) = event
        if report is inside.ENDED:
            if key in self._ended:
                self._ended[key][1].set()
            return
        listener = self._listeners.get(key)
        if listener is not None:  # A report may arrive after its function's result.
            listener(report)

    def _on_cluster_event(self, event: tuple[float, Any]) -> None:
        """See a worker go: what it ran is dead, whatever the scheduler would make of it."""
        _, told = event
        if not isinstance(told, Mapping) or told.get("action") != "remove-worker":
            return
        for workers, ended in self._ended.values():
            if told["worker"] in workers:
                ended.set()
        for key, future in list(self._futures.items()):
            if future.key in told["processing-tasks"] and key not in self._stopped:
                task = asyncio.ensure_future(future.cancel(force=True))
                self._cancels.add(task)
                task.add_done_callback(self._cancels.discard)


def cluster_client() -> Client:
    """Give, inside a function that runs in a worker, the client of that worker's cluster."""
    return get_client()


async def _aside(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Call a function in a thread of its own, so that the worker's loop goes on."""
    return await asyncio.to_thread(function, argument)


def _call(
    function: WorkerFunction[Argument, Result],
    argument: Argument,
    topic: str,
    key: str,
    log_settings: LogSettings | None,
    is_abroad: bool,
) -> Result:
    """Run in the worker: the function, and what `inside` puts round it."""
    worker = get_worker()
    task = worker.get_current_task()
    if is_abroad and not _is_first(task):
        raise BegunBeforeError(f"{key} was begun before, by a worker that is gone")
    around = inside.Surroundings(
        key=key,
        report=lambda report: worker.log_event(topic, (key, report)),
        logs=log_settings,
        is_wanted=(lambda: _is_wanted(worker, task)) if is_abroad else None,
        comes_back=worker.nanny is not None,
    )
    result: Result = inside.carry_out(function, argument, around)
    return result


def _is_first(task: str) -> bool:
    """Mark a task as begun; False if it was before: its scheduler repeats it by itself."""
    begun = Event(_mark(task), client=get_client())
    if begun.is_set():
        return False
    begun.set()
    return True


async def _forget(client: Client, task: str) -> None:
    """Take the mark of a task off the scheduler, which may be away."""
    if client.status == "running":
        with contextlib.suppress(OSError):
            await Event(_mark(task), client=client).clear()


def _mark(task: str) -> str:
    return f"begun-{task}"


def _is_wanted(worker: Any, task: str) -> bool:
    """Tell whether the scheduler still wants a task of this worker, and there is one."""
    state = worker.state.tasks.get(task)
    return (
        worker.status.name in ("running", "paused")
        and state is not None
        and state.state in ("executing", "long-running")
    )
