"""What callers do with clusters while others do something else with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from job_fixtures import NAMESPACE, Bench

from server.errors import ClusterNotFoundError
from server.jobs import moves
from server.jobs.admission import Admission
from server.jobs.clusters import Clusters
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, NamespaceRecord
from server.jobs.parents import Parents
from server.jobs.removal import Removal
from server.labeling.settings import LabelingSettings
from server.qdrant.client import QdrantAddress, connect_async
from server.stores.sqlite import SqliteStore
from server.tenancy import FIRST_TEMPLATE, Caller

NOWHERE = QdrantAddress("127.0.0.1", 1)
Meanwhile = Callable[[ClusterRecord], Awaitable[object]]


class InterruptedStore(SqliteStore):
    """A real store; once, something else happens between two calls of one caller."""

    after_get: Meanwhile | None = None
    before_delete: Meanwhile | None = None

    async def get_cluster(self, namespace_id: str, id_or_name: str) -> ClusterRecord:
        found = await super().get_cluster(namespace_id, id_or_name)
        meanwhile, self.after_get = self.after_get, None
        if meanwhile is not None:
            await meanwhile(found)
        return found

    async def delete_cluster(self, record: ClusterRecord) -> None:
        meanwhile, self.before_delete = self.before_delete, None
        if meanwhile is not None:
            await meanwhile(record)
        await super().delete_cluster(record)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[InterruptedStore]:
    store = InterruptedStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def bench(store: InterruptedStore, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path / "artifacts")


@pytest.fixture
async def clusters(bench: Bench) -> AsyncIterator[Clusters]:
    client = connect_async(NOWHERE)
    yield Clusters(
        bench.store,
        bench.events,
        Admission(
            bench.store, client, Parents(bench.store, str(bench.artifacts)), LabelingSettings()
        ),
        wake=lambda: None,
        interrupt=lambda run_id: None,
    )
    await client.close()


@pytest.fixture
def caller() -> Caller:
    namespace = NamespaceRecord(
        namespace_id=NAMESPACE,
        organization_id="org_1",
        name="team",
        collection_template=FIRST_TEMPLATE,
        created_at=utc_now(),
    )
    return Caller("org_1", namespace, "write")


async def test_a_patch_does_not_undo_a_rename_that_came_between(
    bench: Bench, store: InterruptedStore, clusters: Clusters, caller: Caller
) -> None:
    await bench.pending()

    async def rename(record: ClusterRecord) -> None:
        await store.replace_cluster(record.model_copy(update={"cluster_name": "renamed"}))

    store.after_get = rename
    patched = await clusters.patch(caller, "clust_1", {"description": "described"})
    assert (patched.cluster_name, patched.definition.description) == ("renamed", "described")


async def test_an_empty_value_clears_a_field(
    bench: Bench, clusters: Clusters, caller: Caller
) -> None:
    await bench.pending()
    sent = {"description": "d", "metadata": {"a": 1}, "llm_labeling": {"enabled": False}}
    await clusters.patch(caller, "clust_1", sent)
    cleared = {"description": "", "metadata": {}, "llm_labeling": {}}
    definition = (await clusters.patch(caller, "clust_1", cleared)).definition
    assert (definition.description, definition.metadata) == ("", {})
    assert definition.llm_labeling is None


async def test_a_run_that_is_queued_during_a_delete_is_canceled_too(
    bench: Bench, store: InterruptedStore, clusters: Clusters, caller: Caller
) -> None:
    first = await bench.pending()
    removal = Removal(clusters, store, bench.events, NOWHERE, str(bench.artifacts))

    async def execute(record: ClusterRecord) -> None:
        await store.replace_cluster(moves.queue_run(record, record.definition, utc_now()))

    store.before_delete = execute
    removed = await removal.delete(caller, "clust_1", cascade=False)

    assert len(removed.run_ids) == 2
    assert removed.run_ids[0] == first.runs[-1].run_id
    assert removed.canceled_run_id == removed.run_ids[1]
    with pytest.raises(ClusterNotFoundError):
        await bench.now()
