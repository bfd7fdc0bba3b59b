"""Runs functions in worker processes, and stops them for good when asked.

By default in workers of our own (`local.py`); with an address, in those of a Dask cluster that
others keep (`abroad.py`). One function at a time per worker: a stop ends the process that it runs
in, which would take a neighbour with it. A function is never begun twice: one that the scheduler
would silently repeat after a worker's death refuses to.

This package is the one part of the service that imports Dask.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Any
from uuid import uuid4

from dask.distributed import Client, Future
from distributed import KilledWorker
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from server.engine import task
from server.engine.abroad import WorkersAbroad
from server.engine.local import LocalWorkers
from server.engine.model import (
    Argument,
    EngineSettings,
    Report,
    Result,
    StoppedError,
    WorkerFunction,
    WorkerState,
)


class Engine:
    """Workers, and the functions that run in them, by key."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self._settings = settings or EngineSettings()
        self._topic = f"shoal-{uuid4().hex}"
        self._workers: LocalWorkers | WorkersAbroad = (
            LocalWorkers(self._settings, self._topic, self._hear)
            if self._settings.address is None
            else WorkersAbroad(self._settings, self._topic, self._hear, self._lose)
        )
        self._futures: dict[str, Future] = {}
        self._stopped: dict[str, asyncio.Event] = {}
        self._listeners: dict[str, Callable[[Report], None]] = {}
        self._cancels: set[asyncio.Future[None]] = set()
        self._early: set[str] = set()  # Asked for, and not yet sent.
        self._stopped_early: set[str] = set()

    @property
    def slots(self) -> int:
        """How many functions run at the same time."""
        return self._workers.slots

    async def start(self) -> None:
        """Start the workers, or connect to those there are.

        Raises
        ------
        NoWorkerError
            If the cluster of others does not answer, or has no worker that fits.
        """
        await self._workers.start()

    async def close(self) -> None:
        """Stop what runs and let the workers go."""
        for key in list(self._futures):
            # A cluster that is away runs nothing of ours; its client has no scheduler then.
            with contextlib.suppress(OSError, AttributeError):
                await self.stop(key)
        await self._workers.close()

    async def workers(self) -> list[WorkerState]:
        """Tell what each worker does and takes; empty before the start."""
        client = self._workers.client
        if client is None:
            return []
        try:
            identity = await client.scheduler.identity()
            processing = await client.processing()
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
        client, _ = await self._workers.ready()
        answers: dict[str, Result | Exception] = await client.run(
            task.call_aside, function, argument, on_error="return"
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
        is_abroad = self._workers.is_abroad
        self._listeners[key] = on_report
        future = self._futures[key] = client.submit(
            task.call, function, argument, self._topic, key, self._settings.logs, is_abroad,
            key=f"{key}-{uuid4().hex[:8]}", pure=False, retries=0, resources=resources,
        )  # fmt: skip
        try:
            result: Result = await future.result()
        except (
            KilledWorker, FutureCancelledError, CommClosedError, task.BegunBeforeError,
        ) as error:  # fmt: skip
            if key in self._stopped:
                await self._stopped[key].wait()
                raise StoppedError(f"{key} was stopped") from None
            raise self._workers.loss(client) from error
        finally:
            self._futures.pop(key, None)
            self._listeners.pop(key, None)
            self._stopped.pop(key, None)
        if is_abroad:  # Only of an end that was seen: a repeat may be under way else.
            await task.forget(client, future.key)
        return result

    async def stop(self, key: str) -> None:
        """End a function now, wherever it is; its worker process ends with it."""
        self._stopped_early |= {key} & self._early
        future, client = self._futures.get(key), self._workers.client
        if future is None or client is None or key in self._stopped:
            return
        gone = self._stopped[key] = asyncio.Event()
        try:
            holders = await client.processing()
            addresses = [address for address, keys in holders.items() if future.key in keys]
            await self._workers.cancel(key, future, addresses)
        except Exception:
            self._stopped.pop(key, None)  # It may run on: a later stop tries again.
            raise
        finally:
            gone.set()

    async def _ready(self, key: str) -> tuple[Client, dict[str, float] | None]:
        """Give the client, and the resources a function takes, unless it is stopped meanwhile."""
        self._early.add(key)
        try:
            ready = await self._workers.ready()
            if key in self._stopped_early:
                raise StoppedError(f"{key} was stopped before it began")
        finally:
            self._early.discard(key)
            self._stopped_early.discard(key)
        return ready

    def _hear(self, event: tuple[float, Any]) -> None:
        _, (key, report) = event
        listener = self._listeners.get(key)
        if listener is not None:  # A report may arrive after its function's result.
            listener(report)

    def _lose(self, tasks: Collection[str]) -> None:
        """Give up what a worker ran that is gone."""
        for key, future in list(self._futures.items()):
            if future.key in tasks and key not in self._stopped:
                cancel = asyncio.ensure_future(future.cancel(force=True))
                self._cancels.add(cancel)
                cancel.add_done_callback(self._cancels.discard)
