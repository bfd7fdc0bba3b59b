"""MongoDB's side of the job store: indexes, version, documents, filters, words for its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import (
    DocumentTooLarge,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)

from server.errors import PreconditionError, UnavailableError
from server.jobs.model import SCHEMA_VERSION, ClusterRecord, KeyRecord
from server.stores.base import ClusterQuery, RunQuery
from server.stores.documents import (
    STORE_VERSION,
    StoreVersionError,
    cluster_fields,
    encode,
    microseconds,
    run_fields,
)

Fields = dict[str, Any]

ACTIVE: Fields = {"$in": ["pending", "processing"]}
_RIGHTS_CODES = (13, 18)  # Unauthorized, AuthenticationFailed


def _index(*fields: str, descending: str | None = None, **options: Any) -> IndexModel:
    order = [(name, DESCENDING if name == descending else ASCENDING) for name in fields]
    return IndexModel(order, **options)


_INDEXES: dict[str, list[IndexModel]] = {
    "clusters": [
        _index("namespace_id", "cluster_name", unique=True),
        _index("request_key", unique=True, sparse=True),
        _index("namespace_id", "created_us", "_id"),
        _index("namespace_id", "updated_us", "_id"),
        _index("namespace_id", "runs.status"),
        _index("runs.run_id"),
        _index("runs.task_id"),
        _index("claimable_us"),
    ],
    "events": [_index("run_id", "sequence", descending="sequence", unique=True)],
    "namespaces": [_index("organization_id", "name", unique=True)],
    "keys": [_index("sha256", unique=True)],
}


def request_key(namespace_id: str, request_id: str) -> str:
    """Name a request id in one field: a sparse unique index cannot be compound."""
    return f"{namespace_id}/{request_id}"


@contextmanager
def words_for(database: str) -> Iterator[None]:
    """Turn the driver's errors into the service's. A taken unique value is the caller's."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except DocumentTooLarge as error:
        raise PreconditionError(
            "the record is larger than MongoDB's 16 MiB; delete the cluster or shorten its "
            "metadata",
            state="TOO_LARGE",
        ) from error
    except PyMongoError as error:
        advice = "see whether it runs and can be reached"
        if isinstance(error, OperationFailure) and error.code in _RIGHTS_CODES:
            advice = "check the user, the password and its rights (readWrite)"
        raise UnavailableError(
            f"job store {database!r} (MongoDB) did not do its work: {_brief(error)}; {advice}"
        ) from error


def _brief(error: PyMongoError) -> str:
    """Leave out the driver's picture of the whole topology."""
    return str(error).split(" (configured timeouts", 1)[0].split(", Timeout:", 1)[0]


async def prepare(database: Any) -> None:
    """Check the layout's version and create missing indexes; safe to run in many replicas."""
    version = await database.meta.find_one({"_id": "store"})
    if version is None:
        try:
            await database.meta.insert_one({"_id": "store", "version": STORE_VERSION})
        except DuplicateKeyError:
            version = await database.meta.find_one({"_id": "store"})
    if version is not None and version["version"] > STORE_VERSION:
        raise StoreVersionError(
            f"job store {database.name!r} was set up by a newer version of shoal (layout "
            f"{version['version']}, this version knows {STORE_VERSION}); upgrade this server",
            state="NEWER",
        )
    for collection, indexes in _INDEXES.items():
        await database[collection].create_indexes(indexes)


def cluster_filter(query: ClusterQuery, *, by_status: bool) -> Fields:
    """Say which clusters match, apart from paging (and from their status)."""
    wanted: Fields = {"namespace_id": query.namespace_id}
    if query.search:
        # Both sides are case-folded; a NUL cannot stand in a pattern as such.
        part = re.escape(query.search.casefold()).replace("\0", r"\x00")
        wanted["$or"] = [
            {"name_folded": {"$regex": part}},
            {"description_folded": {"$regex": part}},
        ]
    if by_status and query.statuses:
        wanted["status"] = {"$in": list(query.statuses)}
    if query.cluster_types:
        wanted["cluster_type"] = {"$in": list(query.cluster_types)}
    if query.collection_ids:
        wanted["collection_ids"] = {"$in": list(query.collection_ids)}
    if not query.include_archived and "ARCHIVED" not in query.statuses:
        wanted["archived"] = False
    return wanted


def runs_of(query: RunQuery) -> list[Fields]:
    """Give the stages that make one row per matching run."""
    wanted: Fields = {
        "namespace_id": query.namespace_id,
        "schema_version": {"$lte": SCHEMA_VERSION},
    }
    if query.cluster_id is not None:
        wanted["_id"] = query.cluster_id
    stages: list[Fields] = [{"$match": wanted}, {"$project": {"runs": 1}}, {"$unwind": "$runs"}]
    if query.statuses:
        stages.append({"$match": {"runs.status": {"$in": list(query.statuses)}}})
    return stages


def runs_page(query: RunQuery) -> list[Fields]:
    """Give the stages that order the rows of `runs_of` and cut a page out."""
    return [
        {"$sort": {"runs.queued_us": -1, "runs.position": -1, "runs.run_id": -1}},
        {"$skip": max(query.offset, 0)},
        {"$limit": query.limit},
        {"$project": {"_id": 0, "cluster_id": "$_id", "run_id": "$runs.run_id"}},
    ]


def cluster_document(record: ClusterRecord) -> Fields:
    """Give a cluster as it is stored: its record as text, and the fields that queries look at."""
    fields = cluster_fields(record)
    return {
        "_id": fields.pop("cluster_id"),
        **fields,
        **request_key_field(record),
        "runs": run_fields(record),
    }


def request_key_field(record: ClusterRecord) -> Fields:
    """Give the field of a request id; none where there is none."""
    if record.request_id is None:
        return {}
    return {"request_key": request_key(record.namespace_id, record.request_id)}


def same_revision(record: ClusterRecord) -> Fields:
    """Match the stored cluster while nobody else has changed it."""
    return {
        "_id": record.cluster_id,
        "namespace_id": record.namespace_id,
        "revision": record.revision,
    }


def of_organization(organization_id: str | None) -> Fields:
    """Match what belongs to an organization; without one, all."""
    return {} if organization_id is None else {"organization_id": organization_id}


def key_document(record: KeyRecord) -> Fields:
    """Give a key as it is stored."""
    return {
        "_id": record.key_id,
        "sha256": record.sha256,
        "organization_id": record.organization_id,
        "created_us": microseconds(record.created_at),
        "document": encode(record),
    }
