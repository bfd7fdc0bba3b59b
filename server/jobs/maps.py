"""Maps of runs: made by a worker when first asked for, then only read."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.engine.engine import Engine
from server.engine.model import StoppedError, WorkerDiedError
from server.errors import UnavailableError
from server.jobs.findings import Findings
from server.jobs.model import ClusterRecord, RunRecord
from server.jobs.spec import Device
from server.jobs.stages.mapping import MapOrder, NoMapError, export_names, make_map
from server.results.artifacts import RunFolder
from server.results.groups import Group
from server.results.maps import find_map, group_centres, read_map, thin
from server.tenancy import Caller

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A worker that is stopped for a canceled run takes a waiting map along: it is made again."""

ANSWER_S = 0.5
"""Kept back of a caller's deadline, so that our words arrive before it."""

RETRY_AFTER_S = 5.0


class MapPendingError(UnavailableError):
    """The map is still being made, and the caller's deadline comes first; call again."""

    reason = "MAP_PENDING"


@dataclass(frozen=True)
class RunMap:
    """What is shown of a run's map.

    Attributes
    ----------
    points : pa.Table or None
        Source ids, group and places of the documents that are shown; None where only the
        groups were asked for.
    centres : mapping of str to array of shape (n_dims,), float32
        Median place of each group that has members.
    n_points : int
        Documents on the whole map.
    """

    cluster: ClusterRecord
    run: RunRecord
    groups: list[Group]
    points: pa.Table | None
    centres: dict[str, NDArray[np.float32]]
    n_points: int
    n_dims: int


class Maps:
    """Gives maps, and has those made that are not there. One making per map at a time."""

    def __init__(
        self, findings: Findings, engine: Engine, artifacts_url: str, device: Device
    ) -> None:
        self._findings = findings
        self._engine = engine
        self._artifacts_url = artifacts_url
        self._device = device
        self._makings: dict[str, asyncio.Task[None]] = {}

    async def show(
        self,
        caller: Caller,
        id_or_name: str,
        run_id: str | None = None,
        *,
        max_points: int | None,
        n_dims: int = 2,
        within_s: float | None = None,
    ) -> RunMap:
        """Give a run's map; of the newest successful run by default.

        Parameters
        ----------
        max_points : int or None
            Most documents to give; None for the groups alone.
        within_s : float or None
            How long the caller waits.

        Raises
        ------
        NoResultsError, NoMapError
            If the run has no groups, or can have no map.
        MapPendingError
            If the map is not made in that time; it is made all the same.
        """
        cluster, run, groups = await self._findings.groups(caller, id_or_name, run_id)
        folder = await self.have(cluster, run, n_dims, within_s)
        return await asyncio.to_thread(_shown, cluster, run, groups, folder, n_dims, max_points)

    async def have(
        self, cluster: ClusterRecord, run: RunRecord, n_dims: int, within_s: float | None
    ) -> RunFolder:
        """See to it that a run that has groups has this map; give the folder that it is in.

        Raises
        ------
        NoMapError, MapPendingError
        """
        if run.definition.cluster_type == "attribute":
            raise NoMapError(
                f"run {run.run_id} grouped documents by their attributes, without vectors, and "
                "only vectors can be mapped",
                run_id=run.run_id,
            )
        folder = self._findings.folder(cluster, run)
        if await asyncio.to_thread(find_map, folder, n_dims) is None:
            await asyncio.to_thread(export_names, folder)  # Tells at once if it cannot be made.
            await self._made(cluster, run, n_dims, within_s)
        return folder

    async def close(self) -> None:
        """Stop what is being made."""
        for key in list(self._makings):
            await self._engine.stop(key)
        await asyncio.gather(*self._makings.values(), return_exceptions=True)

    async def _made(
        self, cluster: ClusterRecord, run: RunRecord, n_dims: int, within_s: float | None
    ) -> None:
        """Wait until the map is there, with all others who wait for it."""
        key = f"layout-{run.run_id}" if n_dims == 2 else f"layout-{run.run_id}-{n_dims}d"
        making = self._makings.get(key)
        if making is None:
            order = MapOrder(
                artifacts_url=self._artifacts_url,
                namespace_id=cluster.namespace_id,
                cluster_id=cluster.cluster_id,
                run=run,
                earlier_run_ids=_earlier(cluster, run),
                n_dims=n_dims,
                device=self._device,
            )
            making = self._makings[key] = asyncio.create_task(self._make(key, order))
            making.add_done_callback(lambda task: self._ended(key, task))
        try:
            # Shielded: who stops waiting does not stop it for the others.
            async with asyncio.timeout(None if within_s is None else max(within_s - ANSWER_S, 0)):
                await asyncio.shield(making)
        except TimeoutError as error:
            raise MapPendingError(
                f"the map of run {run.run_id} is still being made, which may wait for a run that "
                "has the workers; call again, or with a later deadline",
                retry_after_s=RETRY_AFTER_S,
                run_id=run.run_id,
            ) from error

    async def _make(self, key: str, order: MapOrder) -> None:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                await self._engine.run(key, make_map, order, _hear_nothing)
                return
            except WorkerDiedError as error:
                log.warning("%s, attempt %d of %d: %s", key, attempt, MAX_ATTEMPTS, error)
            except StoppedError as error:
                raise UnavailableError("the server is stopping; call again") from error
        raise NoMapError(
            f"the worker died {MAX_ATTEMPTS} times while it made the map of run "
            f"{order.run.run_id}; it may need more memory than there is",
            run_id=order.run.run_id,
        )

    def _ended(self, key: str, making: asyncio.Task[None]) -> None:
        del self._makings[key]
        error = None if making.cancelled() else making.exception()
        if error is not None:  # Perhaps nobody waits any more to be told.
            log.warning("%s was not made: %r", key, error)


def _hear_nothing(report: Any) -> None:
    """Take what the worker tells: no call has a place for it."""


def _earlier(cluster: ClusterRecord, run: RunRecord) -> tuple[str, ...]:
    """Give the runs before this one that may have maps, newest first."""
    before: list[str] = []
    for each in cluster.runs:
        if each.run_id == run.run_id:
            break
        if each.status == "completed" and not each.is_skipped:
            before.append(each.run_id)
    return tuple(reversed(before))


def _shown(
    cluster: ClusterRecord,
    run: RunRecord,
    groups: list[Group],
    folder: RunFolder,
    n_dims: int,
    max_points: int | None,
) -> RunMap:
    table = read_map(folder, n_dims)
    points = None if max_points is None else thin(table, max_points)
    return RunMap(cluster, run, groups, points, group_centres(table), len(table), n_dims)
