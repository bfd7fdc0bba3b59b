"""Removes a cluster and what it left: its record, its outputs and its artifacts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from server.errors import ConflictError, PreconditionError
from server.jobs.clusters import Clusters
from server.jobs.events import EventLog
from server.jobs.model import ClusterRecord, OutputCollection
from server.qdrant.client import QdrantAddress, connect, qdrant_errors
from server.results.outputs import remove_outputs
from server.results.retention import delete_cluster_artifacts
from server.stores.base import JobStore
from server.tenancy import Caller

CANCEL_WAIT_S = 15.0
MAX_TRIES = 5


class RunNotStoppedError(PreconditionError):
    """The cluster's run did not stop in time, so nothing was removed."""

    reason = "RUN_NOT_STOPPED"


@dataclass(frozen=True)
class Removed:
    """What a delete took away."""

    cluster_id: str
    cluster_name: str
    run_ids: list[str]
    output_collection_ids: list[str] = field(default_factory=list)
    artifact_folders: int = 0
    canceled_run_id: str | None = None


class Removal:
    """Deletes clusters; a running run is canceled and waited for first."""

    def __init__(
        self,
        clusters: Clusters,
        store: JobStore,
        events: EventLog,
        qdrant: QdrantAddress,
        artifacts_url: str,
    ) -> None:
        self._clusters = clusters
        self._store = store
        self._events = events
        self._qdrant = qdrant
        self._artifacts_url = artifacts_url

    async def delete(self, caller: Caller, id_or_name: str, *, cascade: bool = True) -> Removed:
        """Remove a cluster, and with `cascade` its output collections and artifacts.

        The record goes last: a delete that is interrupted can be repeated.

        Raises
        ------
        ClusterNotFoundError
            If there is no such cluster.
        RunNotStoppedError
            If its run does not stop within `CANCEL_WAIT_S` seconds.
        """
        record = await self._clusters.get(caller, id_or_name)
        canceled_run_id: str | None = None
        folders = 0
        for _ in range(MAX_TRIES):
            found, record = record, await self._stopped(caller, record)
            canceled_run_id = _newly_canceled(found, record) or canceled_run_id
            outputs = _outputs_of(record) if cascade else {}
            if cascade:
                folders += await self._remove_what_it_left(record, outputs)
            try:
                await self._store.delete_cluster(record)
            except ConflictError:  # Perhaps with a new run, which leaves things of its own.
                record = await self._clusters.get(caller, record.cluster_id)
                continue
            return Removed(
                cluster_id=record.cluster_id,
                cluster_name=record.cluster_name,
                run_ids=[run.run_id for run in record.runs],
                output_collection_ids=sorted(outputs),
                artifact_folders=folders,
                canceled_run_id=canceled_run_id,
            )
        raise ConflictError(f"cluster {record.cluster_id} is being changed; repeat the call")

    async def _remove_what_it_left(
        self, record: ClusterRecord, outputs: dict[str, OutputCollection]
    ) -> int:
        """Remove outputs and artifacts; give how many runs had some."""
        await asyncio.to_thread(self._remove_outputs, list(outputs.values()))
        return await asyncio.to_thread(
            delete_cluster_artifacts, self._artifacts_url, record.namespace_id, record.cluster_id
        )

    async def _stopped(self, caller: Caller, record: ClusterRecord) -> ClusterRecord:
        """Cancel the newest run if it is active, and wait for its end."""
        run = record.newest_run
        if run is None or run.is_final:
            return record
        if run.committed_at is None:
            await self._clusters.cancel(caller, record.cluster_id, run.run_id)
        try:
            async with asyncio.timeout(CANCEL_WAIT_S):
                followed = self._events.follow(
                    caller.namespace_id, record.cluster_id, run.run_id, after_sequence=0
                )
                async with aclosing(followed):
                    async for _ in followed:  # Ends after the final event.
                        pass
        except TimeoutError as error:
            raise RunNotStoppedError(
                f"run {run.run_id} has not stopped after {CANCEL_WAIT_S:g} s; repeat the call",
                run_id=run.run_id,
            ) from error
        return await self._clusters.get(caller, record.cluster_id)

    def _remove_outputs(self, outputs: list[OutputCollection]) -> None:
        client = connect(self._qdrant)
        try:
            with qdrant_errors():
                for output in outputs:
                    remove_outputs(client, output)
        finally:
            client.close()


def _outputs_of(record: ClusterRecord) -> dict[str, OutputCollection]:
    return {
        output.collection_id: output
        for run in record.runs
        if run.result is not None
        for output in run.result.outputs
    }


def _newly_canceled(before: ClusterRecord, after: ClusterRecord) -> str | None:
    was, now = before.newest_run, after.newest_run
    if was is None or now is None or was.is_final or now.status != "canceled":
        return None
    return now.run_id
