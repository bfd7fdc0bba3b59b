"""How every store keeps a record: its JSON as text, beside the few fields that are searched.

The document is text, not BSON or columns: BSON cuts times to milliseconds, refuses integers
above 63 bits, and a filter such as ``{"metadata.title": "x"}`` has a dot in its field name.
So both stores give back the very record that was written. Times in search fields are whole
microseconds since 1970, because ISO texts with and without a fraction do not sort.

What a newer version wrote is never guessed at: `decode_cluster` refuses it, lists leave it
out and count it as UNKNOWN.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from server.errors import (
    ClusterNameTakenError,
    ConflictError,
    InvalidRequestError,
    PreconditionError,
    RequestIdTakenError,
    ShoalError,
    UnavailableError,
    Violation,
)
from server.jobs.model import SCHEMA_VERSION, ClusterRecord, Record
from server.stores.base import RunPage

STORE_VERSION = 1
"""Layout of tables and indexes; raised when an older server could no longer work on them."""

UNKNOWN = "UNKNOWN"
SORT_FIELDS = {
    "created_at": "created_us",
    "updated_at": "updated_us",
    "cluster_name": "name_folded",
    "status": "status",
}

R = TypeVar("R", bound=Record)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_log = logging.getLogger(__name__)


class StoreVersionError(PreconditionError):
    """The database or the record was written by a newer version; nothing was changed."""

    reason = "STORE_VERSION"


class StoreFileError(UnavailableError):
    """The database's file is damaged, of another program, or cannot be opened."""

    reason = "STORE_FILE"


class UnreadableRecordError(ShoalError):
    """A stored record is not what this version writes: somebody else changed it."""

    reason = "RECORD_UNREADABLE"


def microseconds(moment: datetime) -> int:
    """Count microseconds since 1970; `moment` must be aware (else TypeError)."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def encode(record: Record) -> str:
    """Write a record as JSON text, with NaN and infinity as such (pydantic makes them null)."""
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False)


def decode(model: type[R], text: str, name: str) -> R:
    """Read a record that `encode` wrote.

    Raises
    ------
    UnreadableRecordError
        If the text is not such a record; says which one (`name`) and what is wrong.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise UnreadableRecordError(
            f"the stored {model.__name__} {name!r} cannot be read ({where}: {first['msg']}); "
            "restore it from a backup or remove it from the job store",
            name=name,
        ) from error


def decode_cluster(text: str, cluster_id: str, schema_version: int) -> ClusterRecord:
    """Read a cluster, or raise `StoreVersionError` if a newer version wrote it."""
    if schema_version > SCHEMA_VERSION:
        raise StoreVersionError(
            f"cluster {cluster_id!r} was written by a newer version of shoal (record schema "
            f"{schema_version}, this version reads up to {SCHEMA_VERSION}); upgrade this server",
            cluster_id=cluster_id,
            state=UNKNOWN,
        )
    return decode(ClusterRecord, text, cluster_id)


def decode_listed(rows: Iterable[tuple[str, str]]) -> list[ClusterRecord]:
    """Read the clusters of a list from rows (document, cluster_id).

    A damaged record is left out and logged: it must not hide the others from their owner.
    """
    records = []
    for text, cluster_id in rows:
        try:
            records.append(decode(ClusterRecord, text, cluster_id))
        except UnreadableRecordError as error:
            _log.error("left out of a list: %s", error)
    return records


def cluster_fields(record: ClusterRecord) -> dict[str, Any]:
    """Give the document of a cluster and the fields by which stores find and sort it."""
    run = record.newest_run
    return {
        "cluster_id": record.cluster_id,
        "namespace_id": record.namespace_id,
        "cluster_name": record.cluster_name,
        "request_id": record.request_id,
        "revision": record.revision,
        "schema_version": record.schema_version,
        "status": record.status,
        "archived": record.archived,
        "cluster_type": record.definition.cluster_type,
        "collection_ids": list(record.definition.collection_ids),
        "name_folded": record.cluster_name.casefold(),
        "description_folded": record.definition.description.casefold(),
        "created_us": microseconds(record.created_at),
        "updated_us": microseconds(record.updated_at),
        "queued_us": microseconds(run.queued_at) if run else None,
        "claimable_us": _claimable_from(record),
        "document": encode(record),
    }


def _claimable_from(record: ClusterRecord) -> int | None:
    """Say from when on the newest run may be claimed; None: never, it is over."""
    run = record.newest_run
    if run is None or run.is_final:
        return None
    if run.status == "pending" or run.lease is None:
        return 0
    return microseconds(run.lease.expires_at)


def run_fields(record: ClusterRecord) -> list[dict[str, Any]]:
    """Give the fields by which stores find and sort a cluster's runs, oldest first."""
    return [
        {
            "run_id": run.run_id,
            "task_id": run.task_id,
            "position": position,
            "queued_us": microseconds(run.queued_at),
            "status": run.status,
        }
        for position, run in enumerate(record.runs)
    ]


def in_turn(waiting: Iterable[tuple[str, str]], after_namespace: str) -> list[str]:
    """Let namespaces take turns.

    Parameters
    ----------
    waiting : iterable of (namespace_id, cluster_id)
        In the order in which they were queued.
    after_namespace : str
        The namespace whose turn was last.

    Returns
    -------
    list of str
        The cluster ids: the first of each namespace, the second of each, and so on.
    """
    turns: Counter[str] = Counter()
    places = []
    for namespace_id, cluster_id in waiting:
        turns[namespace_id] += 1
        begins_over = namespace_id <= after_namespace
        places.append((turns[namespace_id], begins_over, namespace_id, cluster_id))
    return [cluster_id for *_, cluster_id in sorted(places)]


def run_page(
    keys: Iterable[tuple[str, str]], clusters: Iterable[ClusterRecord], by_status: dict[str, int]
) -> RunPage:
    """Put a page of runs together from ordered (cluster_id, run_id) and their clusters."""
    by_id = {record.cluster_id: record for record in clusters}
    rows = []
    for cluster_id, run_id in keys:
        record = by_id.get(cluster_id)
        run = record.run(run_id) if record is not None else None
        if record is not None and run is not None:
            rows.append((record, run))
    return RunPage(rows=rows, total=sum(by_status.values()), by_status=by_status)


def name_taken(record: ClusterRecord) -> ClusterNameTakenError:
    """Say that another cluster of the namespace has the record's name."""
    return ClusterNameTakenError(
        f"the cluster name {record.cluster_name!r} is taken in this namespace; choose another",
        cluster_name=record.cluster_name,
    )


def request_id_taken(record: ClusterRecord) -> RequestIdTakenError:
    """Say that another cluster of the namespace was made with the record's request id."""
    return RequestIdTakenError(
        f"the request id {record.request_id!r} was used before; send a new one",
        request_id=record.request_id,
    )


def changed_meanwhile(record: ClusterRecord) -> ConflictError:
    """Say that another writer was faster."""
    return ConflictError(
        f"cluster {record.cluster_id!r} was changed or removed meanwhile; repeat the call",
        cluster_id=record.cluster_id,
    )


def cursor_gone(cluster_id: str) -> InvalidRequestError:
    """Say that a list cannot continue after a cluster that is not there."""
    fault = f"the list cannot continue after {cluster_id!r}, which is gone; start the list again"
    return InvalidRequestError([Violation("cursor", fault)])
