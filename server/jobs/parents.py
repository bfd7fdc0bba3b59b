"""A job inside a group of another: what it may name, and how the two know each other."""

from __future__ import annotations

import asyncio

from server.errors import ClusterNotFoundError, InvalidRequestError, NotFoundError, Violation
from server.jobs import ledger
from server.jobs.definition import ClusterDefinition
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, ParentGroup
from server.results.artifacts import RunFolder
from server.stores.base import JobStore

MAX_LISTED = 20


class Parents:
    """Finds the parents of jobs in the store and their groups in the artifacts."""

    def __init__(self, store: JobStore, artifacts_url: str) -> None:
        self._store = store
        self._artifacts_url = artifacts_url

    async def find(self, namespace_id: str, definition: ClusterDefinition) -> ParentGroup | None:
        """Resolve what a definition names as its parent; None where it names none.

        Raises
        ------
        InvalidRequestError
            If the parent has no such group now, or does not cluster these collections.
        """
        if definition.parent_cluster_id is None or definition.parent_group_id is None:
            return None
        try:
            parent = await self._store.get_cluster(namespace_id, definition.parent_cluster_id)
        except ClusterNotFoundError as error:
            raise InvalidRequestError([Violation("parent_cluster_id", error.message)]) from error
        run = parent.newest_success
        if run is None:
            raise InvalidRequestError(
                [
                    Violation(
                        "parent_cluster_id",
                        f"no run of {parent.cluster_id} has found groups yet; its status is "
                        f"{parent.status}",
                    )
                ]
            )
        violations = [
            Violation(
                f"collection_ids[{position}]",
                f"{collection_id!r} is not clustered by the parent, which has "
                f"{', '.join(run.definition.collection_ids)}",
            )
            for position, collection_id in enumerate(definition.collection_ids)
            if collection_id not in run.definition.collection_ids
        ]
        violations += await self._faults_of_group(parent, run.run_id, definition.parent_group_id)
        if violations:
            raise InvalidRequestError(violations)
        return ParentGroup(
            cluster_id=parent.cluster_id,
            run_id=run.run_id,
            group_id=definition.parent_group_id,
        )

    async def link(self, child: ClusterRecord, parent: ParentGroup) -> None:
        """Name a stored child on its parent; a repeat changes nothing."""

        def name_child(record: ClusterRecord) -> ClusterRecord:
            if child.cluster_id in record.child_cluster_ids:
                return record
            return record.model_copy(
                update={
                    "child_cluster_ids": [*record.child_cluster_ids, child.cluster_id],
                    "updated_at": utc_now(),
                }
            )

        await ledger.apply(self._store, child.namespace_id, parent.cluster_id, name_child)

    async def _faults_of_group(
        self, parent: ClusterRecord, run_id: str, group_id: str
    ) -> list[Violation]:
        folder = RunFolder(self._artifacts_url, parent.namespace_id, parent.cluster_id, run_id)
        try:
            groups = await asyncio.to_thread(folder.read_groups, with_centroids=False)
        except NotFoundError as error:
            return [Violation("parent_cluster_id", f"{error.message}; execute the parent again")]
        names = [group.cluster_id for group in groups]
        if group_id in names:
            return []
        more = ", …" if len(names) > MAX_LISTED else ""
        return [
            Violation(
                "parent_group_id",
                f"{group_id!r} is no group of the parent's newest run; it has "
                f"{', '.join(names[:MAX_LISTED])}{more}",
            )
        ]
