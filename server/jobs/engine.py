"""Runs functions in worker processes through Dask, and stops them for good when asked.

By default a local cluster of one worker process; with an address, a cluster that others
keep. One function at a time per worker: a stop ends the process that it runs in, which
would take a neighbour with it. The nanny starts a fresh process at once.

This is the one file of the service that imports Dask.
"""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import dask
from dask.distributed import Client, Future, LocalCluster, Nanny, get_worker
from distributed import KilledWorker
from distributed.client import FutureCancelledError

from server import logs
from server.errors import PreconditionError, RunFailure
from server.logs import LogSettings

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Report = Any
"""What a function tells while it runs: anything that msgpack can carry."""

WorkerFunction = Callable[[Argument, Callable[[Report], None]], Result]

KILL_GRACE_S = 0.5
"""How long the nanny lets a stopped worker say goodbye. A fit in native code cannot."""

STOP_TIMEOUT_S = 10
"""How long a stop waits for a worker's end before it goes on without it."""

WORKER_NICENESS = 5
"""Computing gives way to the server's loop, so that calls are answered while a job runs."""


class WorkerDiedError(RunFailure):
    """The process that ran the function ended: killed, out of memory, or crashed."""

    reason = "WORKER_DIED"


class StoppedError(RunFailure):
    """`Engine.stop` ended the function."""

    reason = "STOPPED"


class NoWorkerError(PreconditionError):
    """The Dask cluster has no worker that could ever take the function."""

    reason = "NO_WORKER"


@dataclass(frozen=True)
class EngineSettings:
    """How the engine's workers are made.

    Attributes
    ----------
    workers : int
        Worker processes of the local cluster, which is also how many runs go at once.
    threads : int
        Threads that numeric libraries may use in each worker.
    address : str or None
        Scheduler of a cluster that others keep; None: a local cluster.
    logs : LogSettings or None
        How workers log; None leaves that as it is.
    """

    workers: int = 1
    threads: int = os.cpu_count() or 1
    address: str | None = None
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

    @property
    def slots(self) -> int:
        """How many functions run at the same time."""
        return self._settings.workers

    async def start(self) -> None:
        """Start the workers, or connect to those there are."""
        if self._settings.address is None:
            self._cluster = await self._local_cluster()
        self._client = await Client(
            self._settings.address or self._cluster, asynchronous=True, set_as_default=False
        )
        if not await self._client.nthreads():
            await self.close()
            raise NoWorkerError(f"the Dask cluster at {self._settings.address} has no workers")
        self._client.subscribe_topic(self._topic, self._on_event)

    async def close(self) -> None:
        """Stop what runs and let the workers go."""
        for key in list(self._futures):
            await self.stop(key)
        if self._client is not None:
            await self._client.close()
        if self._cluster is not None:
            await self._cluster.close()

    async def workers(self) -> list[WorkerState]:
        """Tell what each worker does and takes; empty before the start."""
        if self._client is None:
            return []
        identity = await self._client.scheduler.identity()
        processing = await self._client.processing()
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
        Exception
            Whatever the function raised.
        """
        if self._client is None:
            raise RuntimeError("the engine is not started")
        self._listeners[key] = on_report
        self._futures[key] = self._client.submit(
            _call, function, argument, self._topic, key, self._settings.logs,
            key=f"{key}-{uuid4().hex[:8]}", pure=False, retries=0,
        )  # fmt: skip
        try:
            result: Result = await self._futures[key].result()
        except (KilledWorker, FutureCancelledError) as error:
            if key in self._stopped:
                await self._stopped[key].wait()
                raise StoppedError(f"{key} was stopped") from None
            raise WorkerDiedError(
                "the worker process died; it may have been killed for memory"
            ) from error
        finally:
            self._futures.pop(key, None)
            self._listeners.pop(key, None)
            self._stopped.pop(key, None)
        return result

    async def stop(self, key: str) -> None:
        """End a function now, wherever it is; its worker process ends with it."""
        future = self._futures.get(key)
        if future is None or self._client is None or key in self._stopped:
            return
        gone = self._stopped[key] = asyncio.Event()
        try:
            holders = await self._client.processing()
            await future.cancel(force=True)
            workers = [worker for worker, keys in holders.items() if future.key in keys]
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
            n_workers=self._settings.workers,
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
        listener = self._listeners.get(key)
        if listener is not None:  # A report may arrive after its function's result.
            listener(report)


def _call(
    function: WorkerFunction[Argument, Result],
    argument: Argument,
    topic: str,
    key: str,
    log_settings: LogSettings | None,
) -> Result:
    """Run in the worker: give way to the server, then do the work and tell about it."""
    if log_settings is not None:
        logs.configure(log_settings)
        logs.bind(run_id=key)
    # What goes wrong here is told by the server, once, with the run's name.
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    if os.getpriority(os.PRIO_PROCESS, 0) < WORKER_NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, WORKER_NICENESS)
    worker = get_worker()
    try:
        return function(argument, lambda report: worker.log_event(topic, (key, report)))
    except Exception as error:
        _leave_causes_behind(error)
        raise


def _leave_causes_behind(error: Exception) -> None:
    """Turn what caused an error into a note: the causes of gRPC and others do not pickle.

    Dask takes them along, and where one cannot go, the error arrives as another that names no
    reason: a Qdrant that is away would look like a fault of ours.
    """
    cause = error.__cause__ or error.__context__
    if cause is not None:
        error.add_note("caused by:\n" + "".join(traceback.format_exception(cause)))
    error.__cause__ = error.__context__ = None
