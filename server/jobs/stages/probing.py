"""What a worker process finds when it looks around: for `shoal doctor`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpu.backend import choose_backend
from gpu.errors import ClusteringError
from gpu.memory import free_bytes
from server.jobs.spec import Device


@dataclass(frozen=True)
class WorkerFacts:
    """What one worker has to compute with.

    Attributes
    ----------
    device : {"gpu", "cpu"} or None
        Where runs would compute; None where they could not.
    reason : str
        Why there, or why not.
    free_memory_bytes : int
        Free on that device, or of the machine.
    """

    pid: int
    device: str | None
    reason: str
    free_memory_bytes: int


def probe_worker(device: Device, report: Callable[[Any], None]) -> WorkerFacts:
    """Look for the device that runs would compute on."""
    try:
        backend = choose_backend(device)
    except ClusteringError as error:
        return WorkerFacts(os.getpid(), None, str(error), free_bytes("cpu"))
    return WorkerFacts(os.getpid(), backend.device, backend.reason, free_bytes(backend.device))
