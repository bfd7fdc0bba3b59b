"""Records for the store's tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from server.jobs.definition import ClusterDefinition
from server.jobs.model import ClusterRecord, EventRecord, Lease, RunRecord
from server.stores.base import JobStore

OpenStore = Callable[[], Awaitable[JobStore]]

NAMESPACE = "ns_a"
T0 = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """Give a moment after `T0`."""
    return T0 + timedelta(seconds=seconds)


def definition(**changes: Any) -> ClusterDefinition:
    """Give a definition whose JSON has what MongoDB's own fields cannot hold."""
    raw: dict[str, Any] = {
        "collection_ids": ["docs"],
        "vector_config": {"clustering_method": "kmeans"},
        "filters": {"metadata.title": "ä", "$or": [2**70]},
    }
    return ClusterDefinition.model_validate(raw | changes)


def run(number: int, *, status: Any = "pending", lease_until: datetime | None = None) -> RunRecord:
    """Give a run queued `number` seconds after `T0`."""
    lease = Lease(owner="a", number=1, expires_at=lease_until) if lease_until else None
    return RunRecord(
        run_id=f"run_{number}",
        task_id=f"task_{number}",
        definition=definition(),
        queued_at=after(number),
        status=status,
        lease=lease,
    )


def cluster(number: int, **changes: Any) -> ClusterRecord:
    """Give a cluster made `number` seconds after `T0`, called "name <number>"."""
    values: dict[str, Any] = {
        "cluster_id": f"clust_{number}",
        "organization_id": "org_a",
        "namespace_id": NAMESPACE,
        "cluster_name": f"name {number}",
        "definition": definition(),
        "created_at": after(number),
        "updated_at": after(number),
    }
    return ClusterRecord(**(values | changes))


def event(run_id: str = "run_1", **changes: Any) -> EventRecord:
    """Give an event that is not numbered yet."""
    values: dict[str, Any] = {"run_id": run_id, "status": "processing", "occurred_at": T0}
    return EventRecord(**(values | changes))
