"""What callers can do with clusters and their runs. Knows no gRPC and no CUDA.

`api/service.py` translates a call into one method here and the answer back. Every method
takes the caller first and sees only the caller's namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from server import tracing
from server.errors import (
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    RequestIdTakenError,
    Violation,
)
from server.jobs import ledger, moves
from server.jobs.admission import Admission
from server.jobs.checks import faults_of_cluster_name
from server.jobs.definition import ClusterDefinition, parse_definition, patched
from server.jobs.events import EventLog, Heartbeat
from server.jobs.ids import new_id, short_id
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, EventRecord, RunRecord
from server.jobs.moves import RunOptions
from server.stores.base import ClusterPage, ClusterQuery, JobStore, RunPage, RunQuery
from server.tenancy import Caller

REQUEST_ID_LIFE = timedelta(hours=24)

READ_AT_ONCE = 500
"""Clusters of one look into the store, where all of them are looked at."""


@dataclass(frozen=True)
class RequestIdentity:
    """A caller's name for one request, and what its body was, so that a retry is known."""

    request_id: str
    body_sha256: str


class RunNotFoundError(NotFoundError):
    """The cluster has no such run."""

    reason = "RUN_NOT_FOUND"


class TaskNotFoundError(NotFoundError):
    """No task of that id in the caller's namespace."""

    reason = "TASK_NOT_FOUND"


class NothingToAssignToError(PreconditionError):
    """Mode assign needs the groups of an earlier run, and no run has found groups yet."""

    reason = "NOTHING_TO_ASSIGN_TO"


class Clusters:
    """Clusters of all namespaces; `wake` tells the run queue that there is work."""

    def __init__(
        self,
        store: JobStore,
        events: EventLog,
        admission: Admission,
        *,
        wake: Callable[[], None],
        interrupt: Callable[[str], None],
    ) -> None:
        self._store = store
        self._events = events
        self._admission = admission
        self._wake = wake
        self._interrupt = interrupt

    async def create(
        self,
        caller: Caller,
        raw: dict[str, Any],
        *,
        execute: bool = True,
        identity: RequestIdentity | None = None,
    ) -> ClusterRecord:
        """Check a definition, store it with its first run pending, and give it back.

        A repeat with the same request id and body within 24 hours gives the first answer.

        Raises
        ------
        InvalidRequestError
            With every fault of the definition.
        ClusterNameTakenError, RequestIdTakenError
            If the name is taken, or the request id was used with another body.
        QuotaError
            If the namespace has too many active runs.
        """
        if identity is not None:
            earlier = await self._earlier(caller, identity)
            if earlier is not None:
                return earlier
        definition = self._admission.definition(raw)
        parent = await self._admission.sources(caller, definition)
        if parent is not None:  # By its id, whatever it will be called later.
            named = {"parent_cluster_id": parent.cluster_id}
            definition = definition.model_copy(update=named)
        if execute:
            await self._admission.quota(caller)
        now = utc_now()
        cluster_id = new_id("clust")
        record = ClusterRecord(
            cluster_id=cluster_id,
            organization_id=caller.organization_id,
            namespace_id=caller.namespace_id,
            cluster_name=definition.cluster_name or _default_name(definition, cluster_id),
            definition=definition,
            created_at=now,
            updated_at=now,
            request_id=identity.request_id if identity else None,
            request_sha256=identity.body_sha256 if identity else None,
        )
        if execute:
            options = RunOptions(traceparent=tracing.current())
            record = moves.queue_run(record, definition, now, options, within=parent)
        try:
            await self._store.insert_cluster(record)
        except RequestIdTakenError:  # The same request came twice at once.
            earlier = await self._earlier(caller, identity) if identity else None
            if earlier is None:
                raise
            return earlier
        if parent is not None:
            await self._admission.parents.link(record, parent)
        self._wake()
        return record

    async def get(self, caller: Caller, id_or_name: str) -> ClusterRecord:
        """Find a cluster by id or name."""
        return await self._store.get_cluster(caller.namespace_id, id_or_name)

    async def page(
        self, query: ClusterQuery, passes: Callable[[ClusterRecord], bool] | None = None
    ) -> ClusterPage:
        """Give a page of clusters.

        Parameters
        ----------
        passes : callable or None
            A test that the store cannot make: all that match the query are then read.
        """
        if passes is None:
            return await self._store.list_clusters(query)
        found = [record async for record in self._all(query) if passes(record)]
        start: int | None = query.offset
        if query.after_cluster_id is not None:
            # What the cursor stands at may no longer match; then there is nothing after it.
            ids = [record.cluster_id for record in found]
            start = ids.index(query.after_cluster_id) + 1 if query.after_cluster_id in ids else None
        records = [] if start is None else found[start : start + query.limit]
        return ClusterPage(records, len(found), Counter(record.status for record in found))

    async def _all(self, query: ClusterQuery) -> AsyncGenerator[ClusterRecord, None]:
        """Give all clusters of a query, whatever part of them it asks for."""
        step = replace(query, limit=READ_AT_ONCE, offset=0, after_cluster_id=None)
        while True:
            records = (await self._store.list_clusters(step)).records
            for record in records:
                yield record
            if len(records) < READ_AT_ONCE:
                return
            step = replace(step, after_cluster_id=records[-1].cluster_id)

    async def patch(
        self, caller: Caller, id_or_name: str, changes: dict[str, Any]
    ) -> ClusterRecord:
        """Change a cluster; a running run keeps what it started with.

        Parameters
        ----------
        changes : dict
            Only what was sent, of: cluster_name, description, metadata, filters,
            algorithm_params, sample_size, llm_labeling, archived. An empty value clears.
        """
        record = await self.get(caller, id_or_name)
        definition = self._admission.definition(patched(record.definition, changes))
        if "filters" in changes or "algorithm_params" in changes or "sample_size" in changes:
            await self._admission.sources(caller, definition)
        if violations := list(faults_of_cluster_name(changes.get("cluster_name"))):
            raise InvalidRequestError(violations)

        def move(current: ClusterRecord) -> ClusterRecord:
            return current.model_copy(
                update={
                    "cluster_name": changes.get("cluster_name", current.cluster_name),
                    "definition": parse_definition(patched(current.definition, changes)),
                    "archived": changes.get("archived", current.archived),
                    "updated_at": utc_now(),
                }
            )

        return await ledger.apply(self._store, caller.namespace_id, record.cluster_id, move)

    async def execute(
        self,
        caller: Caller,
        id_or_name: str,
        overrides: dict[str, Any],
        options: RunOptions = moves.FULL,
    ) -> tuple[ClusterRecord, RunRecord]:
        """Queue another run, with overrides for it alone (filters, sample_size, llm_labeling).

        A repeat with the same request id and body within 24 hours gives the first one's run.

        Raises
        ------
        NothingToAssignToError
            In mode assign, if no run has found groups yet.
        RequestIdTakenError
            If the request id was used with another body.
        """
        record = await self.get(caller, id_or_name)
        if (earlier := _same_request(record, options)) is not None:
            return record, earlier
        definition = self._admission.definition(patched(record.definition, overrides))
        parent = await self._admission.sources(caller, definition)
        if options.mode == "assign":
            _check_assignable(record)
        await self._admission.quota(caller)
        options = replace(options, traceparent=tracing.current())

        def move(current: ClusterRecord) -> ClusterRecord:
            if _same_request(current, options) is not None:  # The same came twice at once.
                return current
            return moves.queue_run(current, definition, utc_now(), options, within=parent)

        stored = await ledger.apply(self._store, caller.namespace_id, record.cluster_id, move)
        self._wake()
        return stored, _same_request(stored, options) or stored.runs[-1]

    async def cancel(
        self, caller: Caller, id_or_name: str, run_id: str
    ) -> tuple[ClusterRecord, RunRecord]:
        """Ask a run to stop; a finished one is given back as it is."""
        record, _ = await self.run(caller, id_or_name, run_id)
        stored = await ledger.apply(
            self._store,
            caller.namespace_id,
            record.cluster_id,
            lambda current: moves.request_cancel(current, run_id, utc_now()),
        )
        self._interrupt(run_id)
        self._events.ring(run_id)
        return stored, _run_of(stored, run_id)

    async def run(
        self, caller: Caller, id_or_name: str, run_id: str | None = None
    ) -> tuple[ClusterRecord, RunRecord]:
        """Find a run of a cluster; without an id its newest."""
        record = await self.get(caller, id_or_name)
        return record, _run_of(record, run_id)

    async def find_task(self, caller: Caller, task_id: str) -> tuple[ClusterRecord, RunRecord]:
        """Find a run by its task id (or run id) alone."""
        record = await self._store.find_by_run(caller.namespace_id, task_id)
        if record is None:
            raise TaskNotFoundError("task", task_id)
        found = [run for run in record.runs if task_id in (run.task_id, run.run_id)]
        return record, found[0]

    async def runs_page(self, query: RunQuery) -> RunPage:
        """Give a page of runs, newest first."""
        return await self._store.list_runs(query)

    async def follow(
        self, caller: Caller, id_or_name: str, run_id: str | None, after_sequence: int
    ) -> AsyncGenerator[tuple[ClusterRecord, EventRecord | Heartbeat], None]:
        """Give a run's events as they happen, each with its cluster as stored then."""
        record, run = await self.run(caller, id_or_name, run_id)
        followed = self._events.follow(
            caller.namespace_id, record.cluster_id, run.run_id, after_sequence
        )
        async with aclosing(followed):
            async for event in followed:
                if isinstance(event, EventRecord) and event.is_final:
                    record = await self.get(caller, record.cluster_id)
                yield record, event

    async def _earlier(self, caller: Caller, identity: RequestIdentity) -> ClusterRecord | None:
        """Give the answer to an earlier request of the same id, unless it has aged out."""
        earlier = await self._store.find_by_request_id(caller.namespace_id, identity.request_id)
        if earlier is None:
            return None
        if utc_now() - earlier.created_at > REQUEST_ID_LIFE:
            await ledger.apply(
                self._store,
                caller.namespace_id,
                earlier.cluster_id,
                lambda current: current.model_copy(
                    update={"request_id": None, "request_sha256": None}
                ),
            )
            return None
        if earlier.request_sha256 != identity.body_sha256:
            raise RequestIdTakenError(
                f"request_id {identity.request_id!r} was used for cluster {earlier.cluster_id} "
                "with another body; send a new request_id",
                cluster_id=earlier.cluster_id,
            )
        return earlier


def _same_request(record: ClusterRecord, options: RunOptions) -> RunRecord | None:
    """Find the run that an earlier request of the same id queued, unless it has aged out."""
    if options.request_id is None:
        return None
    for run in reversed(record.runs):
        if run.request_id != options.request_id or utc_now() - run.queued_at > REQUEST_ID_LIFE:
            continue
        if run.request_sha256 != options.request_sha256:
            raise RequestIdTakenError(
                f"request_id {options.request_id!r} was used for run {run.run_id} with another "
                "body; send a new request_id",
                run_id=run.run_id,
            )
        return run
    return None


def _check_assignable(record: ClusterRecord) -> None:
    if record.definition.cluster_type != "vector":
        told = "assign compares vectors, and this cluster groups by attributes; send full"
        raise InvalidRequestError([Violation("mode", told)])
    if record.newest_success is None:
        raise NothingToAssignToError(
            f"no run of cluster {record.cluster_id} has found groups yet, so new documents have "
            f"nowhere to go; its status is {record.status}; send mode full",
            cluster_id=record.cluster_id,
            status=record.status,
        )


def _run_of(record: ClusterRecord, run_id: str | None) -> RunRecord:
    run = record.newest_run if run_id is None else record.run(run_id)
    if run is None:
        hint = "the cluster has no runs yet" if run_id is None else "see ListExecutions"
        raise RunNotFoundError("run", run_id or "(newest)", hint)
    return run


def _default_name(definition: ClusterDefinition, cluster_id: str) -> str:
    return f"clusters of {definition.collection_ids[0]} {short_id(cluster_id)}"
