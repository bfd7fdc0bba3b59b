"""Applies a move to a stored cluster: read, change, write back if nobody wrote in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from server.errors import ConflictError
from server.jobs.model import ClusterRecord
from server.stores.base import JobStore

MAX_TRIES = 20
"""Writers of one cluster are few (owner, canceler, patcher), so more means a fault."""

Move = Callable[[ClusterRecord], ClusterRecord]


def utc_now() -> datetime:
    """Give the present time, aware, in whole milliseconds (what every store keeps)."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


async def apply(store: JobStore, namespace_id: str, cluster_id: str, move: Move) -> ClusterRecord:
    """Change a cluster by a pure function, again from the start when another writer was faster.

    Returns the record as stored; a move that returns its argument writes nothing.

    Raises
    ------
    ClusterNotFoundError
        If the cluster is gone.
    ConflictError
        If other writers won `MAX_TRIES` times.
    """
    for _ in range(MAX_TRIES):
        record = await store.get_cluster(namespace_id, cluster_id)
        changed = move(record)
        if changed is record:
            return record
        try:
            return await store.replace_cluster(changed)
        except ConflictError:
            continue
    raise ConflictError(f"cluster {cluster_id} is being changed by others; repeat the call")
