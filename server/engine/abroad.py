"""Workers of a Dask cluster that others keep: nothing of it is restarted, no setting is changed.

There a worker process ends itself once the scheduler no longer wants its function (`inside.py`).
A cluster that is away, or whose workers do not fit (`fitness.py`), is told as such, and looked
for again every `LOOK_S` seconds and with the next function.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dask.distributed import Client, Future

from server.engine import inside
from server.engine.connection import Hear, connect, disconnect
from server.engine.fitness import Cluster, unfitness, version_faults
from server.engine.local import STOP_TIMEOUT_S
from server.engine.model import ClusterAwayError, EngineSettings, NoWorkerError, WorkerDiedError

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between looks at how many workers a cluster has."""


class WorkersAbroad:
    """Workers that come and go as others decide.

    Parameters
    ----------
    lose : callable
        Told which tasks a worker had that is gone.
    """

    is_abroad = True

    def __init__(
        self,
        settings: EngineSettings,
        topic: str,
        hear: Hear,
        lose: Callable[[Collection[str]], None],
    ) -> None:
        if settings.address is None:
            raise ValueError("a cluster of others has an address")
        self._address = settings.address
        self._settings = settings
        self._topic, self._hear, self._lose = topic, hear, lose
        self.client: Client | None = None
        self._connecting = asyncio.Lock()
        self._known_versions: set[str] = set()
        self._n_fit = 0
        self._following: asyncio.Task[None] | None = None
        self._ended: dict[str, tuple[set[str], asyncio.Event]] = {}

    @property
    def slots(self) -> int:
        """How many functions run at the same time."""
        most = self._settings.workers
        return self._n_fit if most is None else min(most, self._n_fit)

    async def start(self) -> None:
        """Connect, and follow how many workers there are.

        Raises
        ------
        NoWorkerError
            If the cluster does not answer, or has no worker that fits.
        """
        try:
            await self.ready()
        except ClusterAwayError as error:
            await self.close()
            raise NoWorkerError(error.message) from error
        self._following = asyncio.create_task(self._follow(), name="dask-cluster")

    async def close(self) -> None:
        """Leave the cluster to its keepers."""
        if self._following is not None:
            self._following.cancel()
        await self._disconnect()

    async def ready(self) -> tuple[Client, dict[str, float] | None]:
        """Give a client that is connected, and the resources that a function takes.

        Raises
        ------
        ClusterAwayError
            If the cluster does not answer, or no worker of it fits.
        """
        try:
            client, cluster = await self._look()
        except ClusterAwayError:
            self._n_fit = 0
            raise
        self._n_fit = cluster.n_fit(self._settings.device)
        return client, cluster.resources(self._settings.device)

    async def cancel(self, key: str, future: Future, addresses: list[str]) -> None:
        """Take a function's key away, and wait for the end of the process that sees it go."""
        ended = asyncio.Event()
        self._ended[key] = (set(addresses), ended)
        try:
            await future.cancel(force=True)
            if addresses:
                await asyncio.wait_for(ended.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            # Without a nanny it ends at its next report; what it writes meets the run's fence.
            log.warning("%s was canceled, and its worker %s goes on for now", key, addresses)
        finally:
            del self._ended[key]

    def loss(self, client: Client) -> ClusterAwayError | WorkerDiedError:
        """Tell what became of a function: the whole cluster is lost, or the function's worker."""
        if client.status != "running" or client is not self.client:
            return ClusterAwayError(self._silence)
        return WorkerDiedError()

    async def _look(self) -> tuple[Client, Cluster]:
        """Look at the cluster, and connect to it anew where needed."""
        async with self._connecting:
            try:
                if self.client is None or self.client.status != "running":
                    await self._disconnect()
                    self.client = await self._connect()
                client = self.client
                cluster = Cluster.from_identity(await client.scheduler.identity())
                await self._compare_versions(client, cluster)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                # TypeError: of tls:// without certificates. AttributeError: a client that has
                # lost its scheduler has none.
                raise ClusterAwayError(f"{self._silence} ({error})") from error
        if (fault := unfitness(cluster, self._settings.device)) is not None:
            raise ClusterAwayError(f"the Dask cluster at {self._address} {fault}")
        return client, cluster

    async def _compare_versions(self, client: Client, cluster: Cluster) -> None:
        """Refuse workers that run another shoal, Python or Dask; each is looked at once."""
        if set(cluster.workers) <= self._known_versions:
            return
        told: Mapping[str, Any] = await client.get_versions(packages=["shoal"])
        if faults := version_faults(told):
            raise ClusterAwayError(
                f"the Dask cluster at {self._address} runs other versions than this server: "
                f"{'; '.join(faults)}; install the same image or lock file everywhere"
            )
        self._known_versions = set(cluster.workers)

    @property
    def _silence(self) -> str:
        return (
            f"no Dask scheduler answers at {self._address}; start it, or mend "
            "SHOAL_DASK_ADDRESS and DASK_DISTRIBUTED__COMM__TLS__*"
        )

    async def _connect(self) -> Client:
        client = await connect(self._address)
        client.subscribe_topic(self._topic, self._hear_reports)
        client.subscribe_topic("all", self._hear_of_workers)
        return client

    async def _disconnect(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            await disconnect(client)

    async def _follow(self) -> None:
        """Keep the number of slots, and connect again to a cluster that was away."""
        was_away = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.ready()
            except ClusterAwayError as error:
                if not was_away:
                    log.warning("runs wait: %s", error.message)
                was_away = True
            else:
                if was_away:
                    log.warning("the Dask cluster is back, with room for %d runs", self.slots)
                was_away = False

    def _hear_reports(self, event: tuple[float, Any]) -> None:
        """Pass a report on, unless it is of the end of a function."""
        _, (key, report) = event
        if report is not inside.ENDED:
            self._hear(event)
        elif key in self._ended:
            self._ended[key][1].set()

    def _hear_of_workers(self, event: tuple[float, Any]) -> None:
        """See a worker go: what it ran is dead, whatever the scheduler would make of it."""
        _, told = event
        if not isinstance(told, Mapping) or told.get("action") != "remove-worker":
            return
        for addresses, ended in self._ended.values():
            if told["worker"] in addresses:
                ended.set()
        self._lose(told["processing-tasks"])
