"""What the engine is told, what it tells of its workers, and how a function can end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from server.errors import PreconditionError, RunFailure, UnavailableError
from server.logs import LogSettings

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Report = Any
"""What a function tells while it runs: anything that msgpack can carry."""

WorkerFunction = Callable[[Argument, Callable[[Report], None]], Result]


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


class WorkerDiedError(RunFailure):
    """The process that ran the function ended: killed, out of memory, or crashed."""

    reason = "WORKER_DIED"

    def __init__(
        self, message: str = "the worker process died; it may have been killed for memory"
    ) -> None:
        super().__init__(message)


class StoppedError(RunFailure):
    """`Engine.stop` ended the function."""

    reason = "STOPPED"


class NoWorkerError(PreconditionError):
    """The server cannot start: its Dask cluster has no worker that could take a function."""

    reason = "NO_WORKER"


class ClusterAwayError(UnavailableError):
    """The Dask cluster is away, or has no worker that could take the function now."""

    reason = "DASK_CLUSTER_AWAY"
