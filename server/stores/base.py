"""The job store's protocol: documents with a revision, and numbered events.

The store knows no states and no leases: a change is made by a pure function of
`jobs/moves.py` and written with `replace_cluster`, which succeeds only if nobody wrote in
between. Every implementation passes `tests/contract/test_stores.py`.

All times are aware datetimes in UTC. Every method raises `UnavailableError` when the
database does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from server.jobs.model import (
    ClusterRecord,
    ClusterStatus,
    EventRecord,
    KeyRecord,
    NamespaceRecord,
    RunRecord,
    RunStatus,
)

SortField = Literal["created_at", "updated_at", "cluster_name", "status"]


@dataclass(frozen=True)
class ClusterQuery:
    """Which clusters of a namespace, in which order, and which part of them.

    Attributes
    ----------
    search : str
        Case-insensitive part of the name or the description.
    after_cluster_id : str or None
        Continue after this cluster in the given order (a cursor); else `offset` counts.
    include_archived : bool
        Archived clusters are left out unless this is set or `statuses` names ARCHIVED.
    """

    namespace_id: str
    search: str = ""
    statuses: Sequence[ClusterStatus] = ()
    cluster_types: Sequence[str] = ()
    collection_ids: Sequence[str] = ()
    sort_by: SortField = "created_at"
    descending: bool = True
    limit: int = 20
    offset: int = 0
    after_cluster_id: str | None = None
    include_archived: bool = False


@dataclass(frozen=True)
class ClusterPage:
    """One page of clusters; `total` counts all that match, `by_status` all of them by state."""

    records: list[ClusterRecord]
    total: int
    by_status: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunQuery:
    """Which runs (tasks) of a namespace, newest first; of one cluster when it is named."""

    namespace_id: str
    cluster_id: str | None = None
    statuses: Sequence[RunStatus] = ()
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True)
class RunPage:
    """One page of runs, each with the cluster it belongs to."""

    rows: list[tuple[ClusterRecord, RunRecord]]
    total: int
    by_status: dict[str, int] = field(default_factory=dict)


class JobStore(Protocol):
    """What the service asks of a database. Methods are safe to call from many tasks."""

    async def open(self) -> None:
        """Connect, and create tables or indexes that are missing."""

    async def close(self) -> None:
        """Let go of the connection. Nothing acknowledged is lost."""

    async def ping(self) -> None:
        """Answer, or raise `UnavailableError`."""

    async def clock(self) -> datetime:
        """Give the database's own time; servers compare leases by theirs."""

    # Clusters

    async def insert_cluster(self, record: ClusterRecord) -> None:
        """Store a new cluster.

        Raises
        ------
        ClusterNameTakenError, RequestIdTakenError
            If the name or the request id is taken in the namespace.
        """

    async def get_cluster(self, namespace_id: str, id_or_name: str) -> ClusterRecord:
        """Find a cluster by id or by name, or raise `ClusterNotFoundError`."""

    async def find_by_request_id(self, namespace_id: str, request_id: str) -> ClusterRecord | None:
        """Find the cluster that a CreateCluster with this request id made."""

    async def find_by_run(self, namespace_id: str, run_or_task_id: str) -> ClusterRecord | None:
        """Find the cluster one of whose runs has this run id or task id."""

    async def replace_cluster(self, record: ClusterRecord) -> ClusterRecord:
        """Write a changed cluster if its stored revision is still ``record.revision``.

        Returns the record as stored, its revision raised by one.

        Raises
        ------
        ConflictError
            If somebody else wrote or removed the cluster in between; nothing is written.
        ClusterNameTakenError
            If the changed name is taken.
        """

    async def revisions(self, cluster_ids: Sequence[str]) -> dict[str, int]:
        """Give the stored revision of each of these clusters that there is."""

    async def delete_cluster(self, record: ClusterRecord) -> None:
        """Remove a cluster and its runs' events, under the same condition as a replace."""

    async def list_clusters(self, query: ClusterQuery) -> ClusterPage:
        """Give one page of a namespace's clusters."""

    async def list_runs(self, query: RunQuery) -> RunPage:
        """Give one page of a namespace's runs, newest first."""

    async def count_active_runs(self, namespace_id: str) -> int:
        """Count runs that are pending or processing in a namespace."""

    async def count_active_by_status(self) -> dict[RunStatus, int]:
        """Count runs that are pending or processing, of all namespaces, by their state."""

    async def claimable(
        self, now: datetime, limit: int, after_namespace: str = ""
    ) -> list[ClusterRecord]:
        """Give clusters whose newest run is pending, or processing with an expired lease.

        Namespaces take turns: first the run of each that was queued first, then the second
        of each, and so on; within a turn by namespace id, beginning after `after_namespace`.
        """

    # Events

    async def append_event(self, event: EventRecord) -> EventRecord:
        """Number an event (1, 2, … within its run, no gaps) and store it.

        Once a final event is stored, appending another final one returns the stored one,
        and any later event is dropped the same way: a run has one end.
        """

    async def events_after(self, run_id: str, sequence: int, limit: int) -> list[EventRecord]:
        """Give stored events with a higher sequence, in order."""

    async def last_sequences(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Give the highest sequence stored for each of these runs that has events."""

    # Namespaces and keys

    async def insert_namespace(self, record: NamespaceRecord) -> None:
        """Store a namespace; its name is unique in the organization (else AlreadyExistsError)."""

    async def find_namespace(self, organization_id: str, id_or_name: str) -> NamespaceRecord | None:
        """Find a namespace of an organization by id or by name."""

    async def list_namespaces(self, organization_id: str | None = None) -> list[NamespaceRecord]:
        """Give all namespaces (of one organization), oldest first."""

    async def insert_key(self, record: KeyRecord) -> None:
        """Store a new key."""

    async def find_key(self, sha256: str) -> KeyRecord | None:
        """Find a key by the SHA-256 of its secret, revoked ones included."""

    async def list_keys(self, organization_id: str | None = None) -> list[KeyRecord]:
        """Give all keys (of one organization), oldest first."""

    async def replace_key(self, record: KeyRecord) -> None:
        """Write a changed key (a revocation), or raise `NotFoundError`."""
