"""The SQL of the embedded job store. Lists of values travel as JSON, so the SQL is fixed."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any

from server.jobs.model import SCHEMA_VERSION, ClusterRecord
from server.stores.base import ClusterPage, ClusterQuery, RunPage, RunQuery
from server.stores.documents import (
    SORT_FIELDS,
    UNKNOWN,
    cursor_gone,
    decode_listed,
    in_turn,
    microseconds,
    run_page,
)

_COLUMNS = [
    "cluster_id",
    "namespace_id",
    "cluster_name",
    "request_id",
    "revision",
    "schema_version",
    "status",
    "archived",
    "cluster_type",
    "collection_ids",
    "name_folded",
    "description_folded",
    "created_us",
    "updated_us",
    "queued_us",
    "claimable_us",
    "document",
]

INSERT_CLUSTER = (
    f"INSERT INTO clusters ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join(':' + name for name in _COLUMNS)})"
)
UPDATE_CLUSTER = (
    f"UPDATE clusters SET {', '.join(f'{name} = :{name}' for name in _COLUMNS[1:])} "
    "WHERE cluster_id = :cluster_id"
)
DELETE_CLUSTER = "DELETE FROM clusters WHERE cluster_id = :cluster_id"
INSERT_RUN = (
    "INSERT INTO runs (cluster_id, run_id, task_id, namespace_id, position, queued_us, status) "
    "VALUES (:cluster_id, :run_id, :task_id, :namespace_id, :position, :queued_us, :status)"
)
DELETE_RUNS = "DELETE FROM runs WHERE cluster_id = :cluster_id"
DELETE_EVENTS_OF_OTHER_RUNS = """
DELETE FROM events WHERE run_id IN (
    SELECT run_id FROM runs WHERE cluster_id = :cluster_id
    EXCEPT SELECT value FROM json_each(:kept)
)"""

REVISIONS = """
SELECT cluster_id, revision FROM clusters WHERE cluster_id IN (SELECT value FROM json_each(?))"""
SAME_REVISION = "SELECT 1 FROM clusters WHERE cluster_id = ? AND namespace_id = ? AND revision = ?"
HOLDER_OF_REQUEST = (
    "SELECT 1 FROM clusters WHERE namespace_id = ? AND request_id = ? AND cluster_id <> ?"
)
HOLDER_OF_NAME = (
    "SELECT 1 FROM clusters WHERE namespace_id = ? AND cluster_name = ? AND cluster_id <> ?"
)

_FIND = "SELECT document, cluster_id, schema_version FROM clusters WHERE namespace_id = "
CLUSTER_BY_ID_OR_NAME = f"""{_FIND} :namespace_id
AND (cluster_id = :wanted OR cluster_name = :wanted)
ORDER BY cluster_id = :wanted DESC LIMIT 1"""
CLUSTER_BY_REQUEST = f"{_FIND} :namespace_id AND request_id = :wanted"
CLUSTER_BY_RUN = f"""{_FIND} :namespace_id AND cluster_id IN (
    SELECT cluster_id FROM runs WHERE run_id = :wanted
    UNION ALL SELECT cluster_id FROM runs WHERE task_id = :wanted
) LIMIT 1"""

COUNT_ACTIVE_RUNS = (
    "SELECT count(*) FROM runs WHERE namespace_id = ? AND status IN ('pending', 'processing')"
)
COUNT_ACTIVE_BY_STATUS = (
    "SELECT status, count(*) FROM runs WHERE status IN ('pending', 'processing') GROUP BY status"
)
LAST_EVENT = (
    "SELECT sequence, is_final, document FROM events WHERE run_id = ? "
    "ORDER BY sequence DESC LIMIT 1"
)
# The inner question is one step in the index for each run, however many events it has.
LAST_SEQUENCES = """
SELECT value, last FROM (
    SELECT value, (SELECT max(sequence) FROM events WHERE run_id = value) AS last
    FROM json_each(?)
) WHERE last IS NOT NULL"""
EVENTS_AFTER = (
    "SELECT document FROM events WHERE run_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
)
NAMESPACE_BY_ID_OR_NAME = """
SELECT document FROM namespaces
WHERE organization_id = :organization_id AND (namespace_id = :wanted OR name = :wanted)
ORDER BY namespace_id = :wanted DESC LIMIT 1"""
NAMESPACES = """
SELECT document FROM namespaces
WHERE :organization_id IS NULL OR organization_id = :organization_id
ORDER BY created_us, namespace_id"""
KEYS = """
SELECT document FROM keys
WHERE :organization_id IS NULL OR organization_id = :organization_id
ORDER BY created_us, key_id"""

_WORD = f"CASE WHEN schema_version > {SCHEMA_VERSION} THEN '{UNKNOWN}' ELSE status END"
_MATCHES = f"""FROM clusters WHERE namespace_id = :namespace_id
AND (:search = '' OR instr(name_folded, :search) OR instr(description_folded, :search))
AND (:statuses = '[]' OR {_WORD} IN (SELECT value FROM json_each(:statuses)))
AND (:types = '[]' OR cluster_type IN (SELECT value FROM json_each(:types)))
AND (:collections = '[]' OR EXISTS (
    SELECT 1 FROM json_each(collection_ids)
    WHERE value IN (SELECT value FROM json_each(:collections))))
AND (:with_archived OR NOT archived)"""

_CLAIMABLE = f"""
SELECT namespace_id, cluster_id FROM clusters
WHERE claimable_us <= ? AND schema_version <= {SCHEMA_VERSION}
ORDER BY queued_us, cluster_id"""


def list_clusters(connection: sqlite3.Connection, query: ClusterQuery) -> ClusterPage:
    """Read one page of clusters, the total and the counts by status."""
    values: dict[str, Any] = {
        "namespace_id": query.namespace_id,
        "search": query.search.casefold(),
        "statuses": json.dumps(list(query.statuses)),
        "types": json.dumps(list(query.cluster_types)),
        "collections": json.dumps(list(query.collection_ids)),
        "with_archived": query.include_archived or "ARCHIVED" in query.statuses,
        "limit": max(query.limit, 0),
        "offset": max(query.offset, 0),
    }
    counts = f"SELECT {_WORD} AS word, count(*) {_MATCHES} GROUP BY word ORDER BY word"
    by_status: dict[str, int] = dict(connection.execute(counts, values).fetchall())

    key = SORT_FIELDS[query.sort_by]
    after = ""
    if query.after_cluster_id is not None:
        values |= {"after": query.after_cluster_id, "offset": 0}
        row = connection.execute(
            f"SELECT {key} FROM clusters "
            "WHERE namespace_id = :namespace_id AND cluster_id = :after",
            values,
        ).fetchone()
        if row is None:
            raise cursor_gone(query.after_cluster_id)
        values["after_key"] = row[0]
        after = f"AND ({key}, cluster_id) {'<' if query.descending else '>'} (:after_key, :after)"
    order = "DESC" if query.descending else "ASC"
    rows = connection.execute(
        f"SELECT document, cluster_id {_MATCHES} AND schema_version <= {SCHEMA_VERSION} {after} "
        f"ORDER BY {key} {order}, cluster_id {order} LIMIT :limit OFFSET :offset",
        values,
    ).fetchall()
    total = sum(count for word, count in by_status.items() if word != UNKNOWN)
    return ClusterPage(records=decode_listed(rows), total=total, by_status=by_status)


def list_runs(connection: sqlite3.Connection, query: RunQuery) -> RunPage:
    """Read one page of runs, each with its cluster, the total and the counts by status."""
    values = {
        "namespace_id": query.namespace_id,
        "cluster_id": query.cluster_id,
        "statuses": json.dumps(list(query.statuses)),
        "limit": max(query.limit, 0),
        "offset": max(query.offset, 0),
    }
    matches = f"""FROM runs JOIN clusters USING (cluster_id)
    WHERE runs.namespace_id = :namespace_id AND schema_version <= {SCHEMA_VERSION}
    AND (:cluster_id IS NULL OR cluster_id = :cluster_id)
    AND (:statuses = '[]' OR runs.status IN (SELECT value FROM json_each(:statuses)))"""
    by_status: dict[str, int] = dict(
        connection.execute(
            f"SELECT runs.status, count(*) {matches} GROUP BY 1 ORDER BY 1", values
        ).fetchall()
    )
    keys = connection.execute(
        f"SELECT cluster_id, run_id {matches} "
        "ORDER BY runs.queued_us DESC, position DESC, run_id DESC LIMIT :limit OFFSET :offset",
        values,
    ).fetchall()
    documents = connection.execute(
        "SELECT document, cluster_id FROM clusters "
        "WHERE cluster_id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted({cluster_id for cluster_id, _ in keys})),),
    ).fetchall()
    return run_page(keys, decode_listed(documents), by_status)


def claimable(
    connection: sqlite3.Connection, now: datetime, limit: int, after_namespace: str
) -> list[ClusterRecord]:
    """Read clusters whose newest run waits for a server, namespaces in turn.

    A damaged record takes nobody's place: the next one is read instead.
    """
    waiting = connection.execute(_CLAIMABLE, (microseconds(now),)).fetchall()
    found: list[ClusterRecord] = []
    for cluster_id in in_turn(waiting, after_namespace):
        if len(found) >= limit:
            break
        sql = "SELECT document, cluster_id FROM clusters WHERE cluster_id = ?"
        found += decode_listed(connection.execute(sql, (cluster_id,)))
    return found
