"""What a finished run found: its groups and their members, read from its artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from qdrant_client import AsyncQdrantClient

from server.errors import PreconditionError
from server.jobs.clusters import Clusters
from server.jobs.model import ClusterRecord, RunRecord
from server.qdrant.client import qdrant_errors
from server.qdrant.errors import CollectionNotFoundError
from server.results.artifacts import RunFolder
from server.results.groups import Group
from server.results.names import renamed_groups, renamed_members
from server.tenancy import Caller

MEMBERS_AT_ONCE = 500


class NoResultsError(PreconditionError):
    """The run has no groups to show: it has not ended well, or was skipped."""

    reason = "NO_RESULTS"


@dataclass(frozen=True)
class Member:
    """One document of a group; `rank` 1 is the nearest to the centroid.

    `row` is the members table's row, by column; `payload` the document's own, where asked for.
    """

    rank: int
    row: dict[str, Any]
    payload: dict[str, Any] | None = None


class Findings:
    """Reads the artifacts of runs; never writes."""

    def __init__(self, clusters: Clusters, artifacts_url: str, qdrant: AsyncQdrantClient) -> None:
        self._clusters = clusters
        self._artifacts_url = artifacts_url
        self._qdrant = qdrant

    async def groups(
        self, caller: Caller, id_or_name: str, run_id: str | None = None, *, vectors: bool = False
    ) -> tuple[ClusterRecord, RunRecord, list[Group]]:
        """Give the groups of a run, largest first; of the newest successful one by default.

        Raises
        ------
        NoResultsError
            If the run has no groups to show.
        NotFoundError
            If its artifacts were retired.
        """
        cluster, run = await self.finished(caller, id_or_name, run_id)
        folder = self.folder(cluster, run)
        groups = await asyncio.to_thread(folder.read_groups, with_centroids=vectors)
        return cluster, run, renamed_groups(groups, run.renamed)

    async def members(
        self,
        caller: Caller,
        id_or_name: str,
        group_id: str,
        run_id: str | None = None,
        *,
        offset: int = 0,
        limit: int | None = None,
        with_payload: bool = False,
    ) -> AsyncGenerator[Member, None]:
        """Give a group's members, nearest to the centroid first."""
        cluster, run = await self.finished(caller, id_or_name, run_id)
        folder = self.folder(cluster, run)
        given = 0
        while limit is None or given < limit:
            wanted = MEMBERS_AT_ONCE if limit is None else min(MEMBERS_AT_ONCE, limit - given)
            table = await asyncio.to_thread(
                folder.read_members, group_id, offset=offset + given, limit=wanted
            )
            rows = renamed_members(table, run.renamed).to_pylist()
            payloads = await self.payloads(caller, rows) if with_payload else {}
            for position, row in enumerate(rows):
                key = (row["source_collection_id"], row["source_document_id"])
                yield Member(offset + given + position + 1, row, payloads.get(key))
            given += len(rows)
            if len(rows) < wanted:
                return

    async def payloads(
        self, caller: Caller, rows: list[dict[str, Any]], fields: list[str] | None = None
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """Fetch the documents' payloads, or some of their fields; one that is gone has none."""
        ids_by_collection: dict[str, list[int | str]] = {}
        for row in rows:
            text = row["source_document_id"]
            point_id: int | str = int(text) if text.isdigit() else text
            ids_by_collection.setdefault(row["source_collection_id"], []).append(point_id)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for collection_id, ids in ids_by_collection.items():
            try:
                with qdrant_errors(collection_id):
                    points = await self._qdrant.retrieve(
                        caller.qdrant_name(collection_id),
                        ids,
                        with_payload=True if fields is None else fields,
                    )
            except CollectionNotFoundError:  # Deleted since: its documents have no payload.
                continue
            for point in points:
                found[collection_id, str(point.id)] = point.payload or {}
        return found

    async def finished(
        self, caller: Caller, id_or_name: str, run_id: str | None
    ) -> tuple[ClusterRecord, RunRecord]:
        """Give a run that has groups; without an id the newest.

        Raises
        ------
        NoResultsError
            If the run has no groups to show.
        """
        if run_id is None:
            cluster = await self._clusters.get(caller, id_or_name)
            if cluster.newest_success is None:
                raise NoResultsError(
                    f"no run of cluster {cluster.cluster_id} has found groups yet; "
                    f"its status is {cluster.status}",
                    cluster_id=cluster.cluster_id,
                    status=cluster.status,
                )
            return cluster, cluster.newest_success
        cluster, run = await self._clusters.run(caller, id_or_name, run_id)
        if run.status != "completed" or run.is_skipped:
            raise NoResultsError(
                f"run {run_id} has no groups; its status is {run.status}",
                run_id=run_id,
                status=run.status,
            )
        return cluster, run

    def folder(self, cluster: ClusterRecord, run: RunRecord) -> RunFolder:
        """Give the folder of a run's artifacts; names in them are those that the run gave."""
        return RunFolder(self._artifacts_url, cluster.namespace_id, cluster.cluster_id, run.run_id)
