"""Workers of our own: a Dask cluster on this machine, one worker process by default.

The nanny of a worker that is stopped starts a fresh process at once.
"""

from __future__ import annotations

from typing import Any

import dask
from dask.distributed import Client, Future, LocalCluster, Nanny

from server.engine.connection import Hear, connect, disconnect
from server.engine.model import EngineSettings, WorkerDiedError

KILL_GRACE_S = 0.5
"""How long the nanny lets a stopped worker say goodbye. A fit in native code cannot."""

STOP_TIMEOUT_S = 10
"""How long a stop waits for a worker's end before it goes on without it."""


class LocalWorkers:
    """Workers that live as long as this server."""

    is_abroad = False

    def __init__(self, settings: EngineSettings, topic: str, hear: Hear) -> None:
        self._settings = settings
        self._topic, self._hear = topic, hear
        self._cluster: LocalCluster | None = None
        self.client: Client | None = None

    @property
    def slots(self) -> int:
        """How many functions run at the same time."""
        return self._settings.workers or 1

    async def start(self) -> None:
        """Start the worker processes."""
        dask.config.set(_config(str(self._settings.threads)))
        self._cluster = await LocalCluster(
            n_workers=self.slots,
            threads_per_worker=1,
            processes=True,
            worker_class=_ShortGraceNanny,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            asynchronous=True,
            silence_logs=40,
            memory_limit=0,
        )
        self.client = await connect(self._cluster)
        self.client.subscribe_topic(self._topic, self._hear)

    async def close(self) -> None:
        """Let the worker processes go."""
        client, self.client = self.client, None
        if client is not None:
            await disconnect(client)
        if self._cluster is not None:
            await self._cluster.close()

    async def ready(self) -> tuple[Client, None]:
        """Give the client; a function takes no resources."""
        if self.client is None:
            raise RuntimeError("the engine is not started")
        return self.client, None

    async def cancel(self, key: str, future: Future, addresses: list[str]) -> None:
        """End a function with its worker process."""
        await future.cancel(force=True)
        if addresses and self.client is not None:
            # As Client.restart_workers, but without waiting for the fresh process.
            await self.client.scheduler.restart_workers(
                workers=addresses,
                timeout=STOP_TIMEOUT_S,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"shoal-stop-{key}",
            )

    def loss(self, client: Client) -> WorkerDiedError:
        """Tell what became of a function whose worker is lost."""
        return WorkerDiedError()


class _ShortGraceNanny(Nanny):  # type: ignore[misc]
    """A nanny that kills after `KILL_GRACE_S` instead of four seconds."""

    async def kill(  # The parameters are Nanny's own.
        self,
        timeout: float = 5,  # noqa: ASYNC109
        reason: str = "nanny-kill",
    ) -> None:
        await super().kill(timeout=min(timeout, KILL_GRACE_S), reason=reason)


def _config(threads: str) -> dict[str, Any]:
    return {
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
