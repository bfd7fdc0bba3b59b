"""The embedded job store: one SQLite file, which several processes may open.

All statements run in one thread of the store's own, each transaction as one function. So a
call that is canceled halfway (gRPC does that all the time) either never starts or runs to
its end, and no other task's statements get into its transaction; an asynchronous driver,
which awaits each statement, gives neither. An acknowledged write survives kill -9 and power
loss: WAL with ``synchronous = FULL`` syncs at every commit.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from server.errors import (
    AlreadyExistsError,
    ClusterNotFoundError,
    NotFoundError,
    UnavailableError,
)
from server.jobs.model import ClusterRecord, EventRecord, KeyRecord, NamespaceRecord, RunStatus
from server.stores import sqlite_queries as queries
from server.stores.base import ClusterPage, ClusterQuery, RunPage, RunQuery
from server.stores.documents import (
    changed_meanwhile,
    cluster_fields,
    decode,
    decode_cluster,
    encode,
    microseconds,
    name_taken,
    request_id_taken,
    run_fields,
)
from server.stores.sqlite_file import open_database, words_for

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


class SqliteStore:
    """Keeps jobs, events, namespaces and keys in one file.

    Parameters
    ----------
    path : Path or str
        The file; made, with its folder, when it is missing. Beside it lie -wal and -shm.
    busy_timeout_s : float
        How long a write waits for another process's, in seconds, before UnavailableError.
    """

    def __init__(self, path: Path | str, busy_timeout_s: float = 10.0) -> None:
        self.path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file and create what is missing.

        Raises
        ------
        StoreFileError, StoreVersionError
            If the file is damaged, not ours, or a newer version's. It is left as it was.
        """
        if self._thread is not None:
            return
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-store")
        try:
            self._connection = await asyncio.get_running_loop().run_in_executor(
                self._thread, open_database, self.path, self._busy_timeout_s
            )
        except BaseException:
            self._thread.shutdown(wait=False)
            self._thread = None
            raise

    async def close(self) -> None:
        """Finish the transactions that were begun and close the file."""
        thread, connection = self._thread, self._connection
        self._thread = self._connection = None
        if thread is not None and connection is not None:
            await asyncio.get_running_loop().run_in_executor(thread, connection.close)
            thread.shutdown()

    async def ping(self) -> None:
        """Read from the file, or raise `UnavailableError`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("SELECT 1 FROM clusters LIMIT 1").fetchone()
            if not self.path.exists():
                raise UnavailableError(f"job store {self.path} was removed; restart the server")

        await self._read(work)

    async def clock(self) -> datetime:
        """Give this machine's time: the file has no other."""
        return datetime.now(UTC)

    async def _read(self, work: Work[T]) -> T:
        """Run `work` on one unchanging state of the database."""
        return await self._transact("BEGIN DEFERRED", work)

    async def _write(self, work: Work[T]) -> T:
        """Run `work` as the only writer; it takes effect as a whole or not at all."""
        return await self._transact("BEGIN IMMEDIATE", work)

    async def _transact(self, begin: str, work: Work[T]) -> T:
        thread, connection = self._thread, self._connection
        if thread is None or connection is None:
            raise UnavailableError(f"job store {self.path} is closed")

        def run() -> T:
            with words_for(self.path):
                connection.execute(begin)
                try:
                    result = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                return result

        return await asyncio.get_running_loop().run_in_executor(thread, run)

    # Clusters

    async def insert_cluster(self, record: ClusterRecord) -> None:
        """Store a new cluster with its runs; a taken request id is told before a taken name."""

        def work(connection: sqlite3.Connection) -> None:
            _refuse_taken(connection, record)
            sql = "SELECT 1 FROM clusters WHERE cluster_id = ?"
            if connection.execute(sql, (record.cluster_id,)).fetchone():
                raise AlreadyExistsError(f"cluster id {record.cluster_id!r} is taken")
            connection.execute(queries.INSERT_CLUSTER, _row(record))
            connection.executemany(queries.INSERT_RUN, _run_rows(record))

        await self._write(work)

    async def get_cluster(self, namespace_id: str, id_or_name: str) -> ClusterRecord:
        """Find a cluster by id or by name, or raise `ClusterNotFoundError`."""
        values = {"namespace_id": namespace_id, "wanted": id_or_name}
        record = await self._find(queries.CLUSTER_BY_ID_OR_NAME, values)
        if record is None:
            raise ClusterNotFoundError(id_or_name)
        return record

    async def find_by_request_id(self, namespace_id: str, request_id: str) -> ClusterRecord | None:
        """Find the cluster that a CreateCluster with this request id made."""
        values = {"namespace_id": namespace_id, "wanted": request_id}
        return await self._find(queries.CLUSTER_BY_REQUEST, values)

    async def find_by_run(self, namespace_id: str, run_or_task_id: str) -> ClusterRecord | None:
        """Find the cluster one of whose runs has this run id or task id."""
        values = {"namespace_id": namespace_id, "wanted": run_or_task_id}
        return await self._find(queries.CLUSTER_BY_RUN, values)

    async def _find(self, sql: str, values: dict[str, str]) -> ClusterRecord | None:
        def work(connection: sqlite3.Connection) -> ClusterRecord | None:
            row = connection.execute(sql, values).fetchone()
            return decode_cluster(*row) if row else None

        return await self._read(work)

    async def replace_cluster(self, record: ClusterRecord) -> ClusterRecord:
        """Write a changed cluster if its stored revision is still ``record.revision``.

        Events of runs that the changed record no longer has are removed.
        """
        stored = record.model_copy(update={"revision": record.revision + 1})
        kept = json.dumps([run.run_id for run in record.runs])

        def work(connection: sqlite3.Connection) -> None:
            _refuse_changed(connection, record)
            _refuse_taken(connection, record)
            connection.execute(queries.UPDATE_CLUSTER, _row(stored))
            gone = {"cluster_id": record.cluster_id, "kept": kept}
            connection.execute(queries.DELETE_EVENTS_OF_OTHER_RUNS, gone)
            connection.execute(queries.DELETE_RUNS, gone)
            connection.executemany(queries.INSERT_RUN, _run_rows(record))

        await self._write(work)
        return stored

    async def revisions(self, cluster_ids: Sequence[str]) -> dict[str, int]:
        """Give the stored revision of each of these clusters that there is."""
        values = (json.dumps(list(cluster_ids)),)
        return await self._read(
            lambda connection: dict(connection.execute(queries.REVISIONS, values).fetchall())
        )

    async def delete_cluster(self, record: ClusterRecord) -> None:
        """Remove a cluster and its runs' events, under the same condition as a replace."""

        def work(connection: sqlite3.Connection) -> None:
            _refuse_changed(connection, record)
            gone = {"cluster_id": record.cluster_id, "kept": "[]"}
            connection.execute(queries.DELETE_EVENTS_OF_OTHER_RUNS, gone)
            connection.execute(queries.DELETE_CLUSTER, gone)

        await self._write(work)

    async def list_clusters(self, query: ClusterQuery) -> ClusterPage:
        """Give one page of clusters.

        Clusters that a newer version wrote are left out of the records and of `total`;
        `by_status` counts them as UNKNOWN.
        """
        return await self._read(lambda connection: queries.list_clusters(connection, query))

    async def list_runs(self, query: RunQuery) -> RunPage:
        """Give one page of a namespace's runs, newest first."""
        return await self._read(lambda connection: queries.list_runs(connection, query))

    async def count_active_runs(self, namespace_id: str) -> int:
        """Count runs that are pending or processing in a namespace."""

        def work(connection: sqlite3.Connection) -> int:
            row = connection.execute(queries.COUNT_ACTIVE_RUNS, (namespace_id,)).fetchone()
            return int(row[0])

        return await self._read(work)

    async def count_active_by_status(self) -> dict[RunStatus, int]:
        """Count runs that are pending or processing, of all namespaces, by their state."""
        return await self._read(
            lambda connection: dict(connection.execute(queries.COUNT_ACTIVE_BY_STATUS).fetchall())
        )

    async def claimable(
        self, now: datetime, limit: int, after_namespace: str = ""
    ) -> list[ClusterRecord]:
        """Give clusters whose newest run waits for a server, namespaces in turn."""
        return await self._read(
            lambda connection: queries.claimable(connection, now, limit, after_namespace)
        )

    # Events

    async def append_event(self, event: EventRecord) -> EventRecord:
        """Number an event and store it; after a final event, give back that one."""

        def work(connection: sqlite3.Connection) -> EventRecord:
            last = connection.execute(queries.LAST_EVENT, (event.run_id,)).fetchone()
            if last and last[1]:
                return decode(EventRecord, last[2], event.run_id)
            stored = event.model_copy(update={"sequence": last[0] + 1 if last else 1})
            row = (stored.run_id, stored.sequence, stored.is_final, encode(stored))
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", row)
            return stored

        return await self._write(work)

    async def events_after(self, run_id: str, sequence: int, limit: int) -> list[EventRecord]:
        """Give stored events with a higher sequence, in order."""
        values = (run_id, sequence, max(limit, 0))

        def work(connection: sqlite3.Connection) -> list[EventRecord]:
            rows = connection.execute(queries.EVENTS_AFTER, values).fetchall()
            return [decode(EventRecord, text, run_id) for (text,) in rows]

        return await self._read(work)

    async def last_sequences(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Give the highest sequence stored for each of these runs that has events."""
        values = (json.dumps(list(run_ids)),)
        return await self._read(
            lambda connection: dict(connection.execute(queries.LAST_SEQUENCES, values).fetchall())
        )

    # Namespaces and keys

    async def insert_namespace(self, record: NamespaceRecord) -> None:
        """Store a namespace; its name is unique in the organization (else AlreadyExistsError)."""
        created_us = microseconds(record.created_at)
        row = (record.namespace_id, record.organization_id, record.name, created_us, encode(record))
        await self._insert("INSERT INTO namespaces VALUES (?, ?, ?, ?, ?)", row, record.name)

    async def find_namespace(self, organization_id: str, id_or_name: str) -> NamespaceRecord | None:
        """Find a namespace of an organization by id or by name."""
        values = {"organization_id": organization_id, "wanted": id_or_name}
        rows = await self._documents(queries.NAMESPACE_BY_ID_OR_NAME, values)
        return decode(NamespaceRecord, rows[0], id_or_name) if rows else None

    async def list_namespaces(self, organization_id: str | None = None) -> list[NamespaceRecord]:
        """Give all namespaces (of one organization), oldest first."""
        rows = await self._documents(queries.NAMESPACES, {"organization_id": organization_id})
        return [decode(NamespaceRecord, text, "in the list") for text in rows]

    async def insert_key(self, record: KeyRecord) -> None:
        """Store a new key; its id and its secret are new too (else AlreadyExistsError)."""
        row = (*_key_row(record), record.key_id)
        sql = (
            "INSERT INTO keys (sha256, organization_id, created_us, document, key_id) "
            "VALUES (?, ?, ?, ?, ?)"
        )
        await self._insert(sql, row, record.key_id)

    async def find_key(self, sha256: str) -> KeyRecord | None:
        """Find a key by the SHA-256 of its secret, revoked ones included."""
        rows = await self._documents("SELECT document FROM keys WHERE sha256 = :s", {"s": sha256})
        return decode(KeyRecord, rows[0], "of a caller") if rows else None

    async def list_keys(self, organization_id: str | None = None) -> list[KeyRecord]:
        """Give all keys (of one organization), oldest first."""
        rows = await self._documents(queries.KEYS, {"organization_id": organization_id})
        return [decode(KeyRecord, text, "in the list") for text in rows]

    async def replace_key(self, record: KeyRecord) -> None:
        """Write a changed key (a revocation), or raise `NotFoundError`."""
        row = (*_key_row(record), record.key_id)
        sql = (
            "UPDATE keys SET sha256 = ?, organization_id = ?, created_us = ?, document = ? "
            "WHERE key_id = ?"
        )

        def work(connection: sqlite3.Connection) -> None:
            if connection.execute(sql, row).rowcount == 0:
                raise NotFoundError("key", record.key_id)

        await self._write(work)

    async def _insert(self, sql: str, row: Sequence[Any], name: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(sql, row)
            except sqlite3.IntegrityError as error:
                raise AlreadyExistsError(f"{name!r} is taken; choose another") from error

        await self._write(work)

    async def _documents(self, sql: str, values: Mapping[str, str | None]) -> list[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            return [text for (text,) in connection.execute(sql, values).fetchall()]

        return await self._read(work)


def _row(record: ClusterRecord) -> dict[str, Any]:
    fields = cluster_fields(record)
    return {**fields, "collection_ids": json.dumps(fields["collection_ids"])}


def _run_rows(record: ClusterRecord) -> list[dict[str, Any]]:
    ids = {"cluster_id": record.cluster_id, "namespace_id": record.namespace_id}
    return [{**ids, **fields} for fields in run_fields(record)]


def _key_row(record: KeyRecord) -> tuple[str, str, int, str]:
    created_us = microseconds(record.created_at)
    return record.sha256, record.organization_id, created_us, encode(record)


def _refuse_taken(connection: sqlite3.Connection, record: ClusterRecord) -> None:
    """Refuse a request id or a name that another cluster of the namespace has."""
    values = (record.namespace_id, record.request_id, record.cluster_id)
    if connection.execute(queries.HOLDER_OF_REQUEST, values).fetchone():
        raise request_id_taken(record)
    values = (record.namespace_id, record.cluster_name, record.cluster_id)
    if connection.execute(queries.HOLDER_OF_NAME, values).fetchone():
        raise name_taken(record)


def _refuse_changed(connection: sqlite3.Connection, record: ClusterRecord) -> None:
    values = (record.cluster_id, record.namespace_id, record.revision)
    if connection.execute(queries.SAME_REVISION, values).fetchone() is None:
        raise changed_meanwhile(record)
