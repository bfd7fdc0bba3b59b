"""The shared job store: MongoDB, for any number of server replicas.

One document per cluster, changed by a replace that names the revision it read: a single
MongoDB server has no transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from server.errors import (
    AlreadyExistsError,
    ClusterNotFoundError,
    ConflictError,
    NotFoundError,
    ShoalError,
    UnavailableError,
)
from server.jobs.model import (
    ACTIVE_STATUSES,
    SCHEMA_VERSION,
    ClusterRecord,
    EventRecord,
    KeyRecord,
    NamespaceRecord,
    RunStatus,
)
from server.stores import mongo_schema as schema
from server.stores.base import ClusterPage, ClusterQuery, RunPage, RunQuery
from server.stores.documents import (
    SORT_FIELDS,
    UNKNOWN,
    changed_meanwhile,
    cursor_gone,
    decode,
    decode_cluster,
    decode_listed,
    encode,
    in_turn,
    microseconds,
    name_taken,
    request_id_taken,
    run_page,
)
from server.stores.mongo_connection import MongoConnection
from server.stores.mongo_schema import Fields, words_for

MAX_APPENDS = 1000
"""Tries to number an event. Each lost one means that another writer got its event in."""

_READ_BY_US: Fields = {"schema_version": {"$lte": SCHEMA_VERSION}}


class MongoStore(MongoConnection):
    """Keeps jobs, events, namespaces and keys in one MongoDB database."""

    # Clusters

    async def insert_cluster(self, record: ClusterRecord) -> None:
        """Store a new cluster with its runs; a taken request id is told before a taken name."""
        with words_for(self._name):
            try:
                await self._database.clusters.insert_one(schema.cluster_document(record))
            except DuplicateKeyError as error:
                raise await self._duplicate(record) from error

    async def get_cluster(self, namespace_id: str, id_or_name: str) -> ClusterRecord:
        """Find a cluster by id or by name, or raise `ClusterNotFoundError`."""
        either = [{"_id": id_or_name}, {"cluster_name": id_or_name}]
        record = await self._find(namespace_id, {"$or": either}, first=id_or_name)
        if record is None:
            raise ClusterNotFoundError(id_or_name)
        return record

    async def find_by_request_id(self, namespace_id: str, request_id: str) -> ClusterRecord | None:
        """Find the cluster that a CreateCluster with this request id made."""
        return await self._find(
            namespace_id, {"request_key": schema.request_key(namespace_id, request_id)}
        )

    async def find_by_run(self, namespace_id: str, run_or_task_id: str) -> ClusterRecord | None:
        """Find the cluster one of whose runs has this run id or task id."""
        either = [{"runs.run_id": run_or_task_id}, {"runs.task_id": run_or_task_id}]
        return await self._find(namespace_id, {"$or": either})

    async def _find(
        self, namespace_id: str, condition: Fields, first: str | None = None
    ) -> ClusterRecord | None:
        """Find one cluster, that with the id `first` before others."""
        wanted = {"namespace_id": namespace_id, **condition}
        with words_for(self._name):
            found = self._database.clusters.find(wanted, ["document", "schema_version"]).limit(2)
            rows = await found.to_list(2)
        if not rows:
            return None
        row = min(rows, key=lambda row: row["_id"] != first)
        return decode_cluster(row.get("document", ""), row["_id"], row.get("schema_version", 0))

    async def replace_cluster(self, record: ClusterRecord) -> ClusterRecord:
        """Write a changed cluster if its stored revision is still ``record.revision``.

        Events of runs that the changed record no longer has are removed.
        """
        stored = record.model_copy(update={"revision": record.revision + 1})
        with words_for(self._name):
            try:
                before = await self._database.clusters.find_one_and_replace(
                    schema.same_revision(record),
                    schema.cluster_document(stored),
                    projection=["runs"],
                )
            except DuplicateKeyError as error:
                raise await self._duplicate(record) from error
            if before is None:
                raise changed_meanwhile(record)
            kept = {run.run_id for run in record.runs}
            await self._delete_events(
                [r["run_id"] for r in before["runs"] if r["run_id"] not in kept]
            )
        return stored

    async def revisions(self, cluster_ids: Sequence[str]) -> dict[str, int]:
        """Give the stored revision of each of these clusters that there is."""
        with words_for(self._name):
            rows = await self._aggregate(
                {"$match": {"_id": {"$in": list(cluster_ids)}}}, {"$project": {"revision": 1}}
            )
        return {row["_id"]: int(row["revision"]) for row in rows}

    async def delete_cluster(self, record: ClusterRecord) -> None:
        """Remove a cluster, then its runs' events, under the same condition as a replace."""
        with words_for(self._name):
            done = await self._database.clusters.delete_one(schema.same_revision(record))
            if done.deleted_count == 0:
                raise changed_meanwhile(record)
            await self._delete_events([run.run_id for run in record.runs])

    async def _delete_events(self, run_ids: list[str]) -> None:
        if run_ids:
            await self._database.events.delete_many({"run_id": {"$in": run_ids}})

    async def _duplicate(self, record: ClusterRecord) -> ShoalError:
        """Find out which unique field was in the way; servers word their answer differently."""
        clusters = self._database.clusters
        others = {"namespace_id": record.namespace_id, "_id": {"$ne": record.cluster_id}}
        key = schema.request_key_field(record)
        if key and await clusters.find_one({**others, **key}, ["_id"]):
            return request_id_taken(record)
        if await clusters.find_one({**others, "cluster_name": record.cluster_name}, ["_id"]):
            return name_taken(record)
        if await clusters.find_one({"_id": record.cluster_id}, ["_id"]):
            return AlreadyExistsError(f"cluster id {record.cluster_id!r} is taken")
        return ConflictError("the name was taken and given free meanwhile; repeat the call")

    async def list_clusters(self, query: ClusterQuery) -> ClusterPage:
        """Give one page of clusters.

        Clusters that a newer version wrote are left out of the records and of `total`;
        `by_status` counts them as UNKNOWN. Counts and page are read one after the other, so
        they may differ by what is written in between.
        """
        with words_for(self._name):
            by_status = await self._count_by_status(query)
            unknown = by_status.get(UNKNOWN, 0)
            total = sum(by_status.values()) - unknown
            rows = await self._page(query)
        listed = decode_listed((row.get("document", ""), row["_id"]) for row in rows)
        return ClusterPage(records=listed, total=total, by_status=by_status)

    async def _count_by_status(self, query: ClusterQuery) -> dict[str, int]:
        known = {**schema.cluster_filter(query, by_status=True), **_READ_BY_US}
        counts = await self._aggregate(
            {"$match": known}, {"$group": {"_id": "$status", "count": {"$sum": 1}}}
        )
        by_status = {row["_id"]: int(row["count"]) for row in counts}
        if not query.statuses or UNKNOWN in query.statuses:
            newer = {
                **schema.cluster_filter(query, by_status=False),
                "schema_version": {"$gt": SCHEMA_VERSION},
            }
            by_status[UNKNOWN] = await self._database.clusters.count_documents(newer)
        return {word: count for word, count in sorted(by_status.items()) if count}

    async def _page(self, query: ClusterQuery) -> list[Fields]:
        key, direction = SORT_FIELDS[query.sort_by], -1 if query.descending else 1
        wanted = {**schema.cluster_filter(query, by_status=True), **_READ_BY_US}
        offset = max(query.offset, 0)
        if query.after_cluster_id is not None:
            after = {"namespace_id": query.namespace_id, "_id": query.after_cluster_id}
            row = await self._database.clusters.find_one(after, [key])
            if row is None:
                raise cursor_gone(query.after_cluster_id)
            beyond = "$lt" if query.descending else "$gt"
            later = [{key: {beyond: row[key]}}, {key: row[key], "_id": {beyond: row["_id"]}}]
            wanted, offset = {"$and": [wanted, {"$or": later}]}, 0
        if query.limit <= 0:  # To MongoDB a limit of 0 is none.
            return []
        order = [(key, direction), ("_id", direction)]
        found = self._database.clusters.find(wanted, ["document"]).sort(order).skip(offset)
        rows: list[Fields] = await found.limit(query.limit).to_list(query.limit)
        return rows

    async def list_runs(self, query: RunQuery) -> RunPage:
        """Give one page of a namespace's runs, newest first."""
        runs = schema.runs_of(query)
        with words_for(self._name):
            counts = await self._aggregate(
                *runs, {"$group": {"_id": "$runs.status", "count": {"$sum": 1}}}
            )
            keys = (
                [] if query.limit <= 0 else await self._aggregate(*runs, *schema.runs_page(query))
            )
            ids = sorted({row["cluster_id"] for row in keys})
            found = self._database.clusters.find({"_id": {"$in": ids}}, ["document"])
            rows = await found.to_list(None)
        by_status = {row["_id"]: int(row["count"]) for row in counts}
        clusters = decode_listed((row.get("document", ""), row["_id"]) for row in rows)
        wanted = [(row["cluster_id"], row["run_id"]) for row in keys]
        return run_page(wanted, clusters, dict(sorted(by_status.items())))

    async def count_active_runs(self, namespace_id: str) -> int:
        """Count runs that are pending or processing in a namespace."""
        return await self._count_runs({"namespace_id": namespace_id}, schema.ACTIVE)

    async def count_active_by_status(self) -> dict[RunStatus, int]:
        """Count runs that are pending or processing, of all namespaces, by their state."""
        counts = {status: await self._count_runs({}, status) for status in ACTIVE_STATUSES}
        return {status: count for status, count in counts.items() if count}

    async def _count_runs(self, among: Fields, status: Fields | RunStatus) -> int:
        with words_for(self._name):
            counts = await self._aggregate(
                {"$match": {**among, "runs.status": status}},
                {"$project": {"runs.status": 1}},
                {"$unwind": "$runs"},
                {"$match": {"runs.status": status}},
                {"$group": {"_id": None, "count": {"$sum": 1}}},
            )
        return int(counts[0]["count"]) if counts else 0

    async def claimable(
        self, now: datetime, limit: int, after_namespace: str = ""
    ) -> list[ClusterRecord]:
        """Give clusters whose newest run waits for a server, namespaces in turn."""
        if limit <= 0:
            return []
        wanted = {"claimable_us": {"$lte": microseconds(now)}, **_READ_BY_US}
        with words_for(self._name):
            found = self._database.clusters.find(wanted, ["namespace_id"])
            waiting = await found.sort([("queued_us", 1), ("_id", 1)]).to_list(None)
            keys = [(row["namespace_id"], row["_id"]) for row in waiting]
            ready: list[ClusterRecord] = []
            for cluster_id in in_turn(keys, after_namespace):
                if len(ready) >= limit:
                    break
                row = await self._database.clusters.find_one({"_id": cluster_id}, ["document"])
                if row is not None:  # A damaged record takes nobody's place.
                    ready += decode_listed([(row.get("document", ""), cluster_id)])
        return ready

    # Events

    async def append_event(self, event: EventRecord) -> EventRecord:
        """Number an event and store it; after a final event, give back that one.

        The unique number decides between writers: who comes second reads on and tries again.
        """
        events = self._database.events
        for _ in range(MAX_APPENDS):
            with words_for(self._name):
                newest = events.find({"run_id": event.run_id}).sort([("sequence", -1)]).limit(1)
                last = next(iter(await newest.to_list(1)), None)
                if last is not None and last["is_final"]:
                    return decode(EventRecord, last["document"], event.run_id)
                number = last["sequence"] + 1 if last is not None else 1
                stored = event.model_copy(update={"sequence": number})
                try:
                    await events.insert_one(
                        {
                            "run_id": stored.run_id,
                            "sequence": stored.sequence,
                            "is_final": stored.is_final,
                            "document": encode(stored),
                        }
                    )
                except DuplicateKeyError:
                    continue
                return stored
        raise UnavailableError(f"too many writers of events of run {event.run_id!r}; try again")

    async def events_after(self, run_id: str, sequence: int, limit: int) -> list[EventRecord]:
        """Give stored events with a higher sequence, in order."""
        if limit <= 0:
            return []
        with words_for(self._name):
            later = {"run_id": run_id, "sequence": {"$gt": sequence}}
            found = self._database.events.find(later, ["document"]).sort([("sequence", 1)])
            rows = await found.limit(limit).to_list(limit)
        return [decode(EventRecord, row["document"], run_id) for row in rows]

    async def last_sequences(self, run_ids: Sequence[str]) -> dict[str, int]:
        """Give the highest sequence stored for each of these runs that has events."""
        with words_for(self._name):
            rows = await self._aggregate(
                {"$match": {"run_id": {"$in": list(run_ids)}}},
                {"$group": {"_id": "$run_id", "last": {"$max": "$sequence"}}},
                over="events",
            )
        return {row["_id"]: int(row["last"]) for row in rows}

    # Namespaces and keys

    async def insert_namespace(self, record: NamespaceRecord) -> None:
        """Store a namespace; its name is unique in the organization (else AlreadyExistsError)."""
        row = {
            "_id": record.namespace_id,
            "organization_id": record.organization_id,
            "name": record.name,
            "created_us": microseconds(record.created_at),
            "document": encode(record),
        }
        await self._insert("namespaces", row, record.name)

    async def find_namespace(self, organization_id: str, id_or_name: str) -> NamespaceRecord | None:
        """Find a namespace of an organization by id or by name."""
        either = [{"_id": id_or_name}, {"name": id_or_name}]
        rows = await self._rows("namespaces", {"organization_id": organization_id, "$or": either})
        row = min(rows, key=lambda row: row["_id"] != id_or_name, default=None)
        return decode(NamespaceRecord, row["document"], id_or_name) if row is not None else None

    async def list_namespaces(self, organization_id: str | None = None) -> list[NamespaceRecord]:
        """Give all namespaces (of one organization), oldest first."""
        rows = await self._rows("namespaces", schema.of_organization(organization_id))
        return [decode(NamespaceRecord, row["document"], row["_id"]) for row in rows]

    async def insert_key(self, record: KeyRecord) -> None:
        """Store a new key; its id and its secret are new too (else AlreadyExistsError)."""
        await self._insert("keys", schema.key_document(record), record.key_id)

    async def find_key(self, sha256: str) -> KeyRecord | None:
        """Find a key by the SHA-256 of its secret, revoked ones included."""
        rows = await self._rows("keys", {"sha256": sha256})
        return decode(KeyRecord, rows[0]["document"], rows[0]["_id"]) if rows else None

    async def list_keys(self, organization_id: str | None = None) -> list[KeyRecord]:
        """Give all keys (of one organization), oldest first."""
        rows = await self._rows("keys", schema.of_organization(organization_id))
        return [decode(KeyRecord, row["document"], row["_id"]) for row in rows]

    async def replace_key(self, record: KeyRecord) -> None:
        """Write a changed key (a revocation), or raise `NotFoundError`."""
        with words_for(self._name):
            done = await self._database["keys"].replace_one(
                {"_id": record.key_id}, schema.key_document(record)
            )
        if done.matched_count == 0:
            raise NotFoundError("key", record.key_id)

    async def _insert(self, collection: str, row: Fields, name: str) -> None:
        with words_for(self._name):
            try:
                await self._database[collection].insert_one(row)
            except DuplicateKeyError as error:
                raise AlreadyExistsError(f"{name!r} is taken; choose another") from error

    async def _rows(self, collection: str, wanted: Mapping[str, Any]) -> list[Fields]:
        with words_for(self._name):
            found = self._database[collection].find(wanted)
            rows: list[Fields] = await found.sort([("created_us", 1), ("_id", 1)]).to_list(None)
        return rows
