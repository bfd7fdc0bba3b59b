"""What every job store does with events, namespaces and keys, and once it is closed."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from store_records import NAMESPACE, OpenStore, after, cluster, event

from server.errors import AlreadyExistsError, NotFoundError, UnavailableError
from server.jobs.model import KeyRecord, NamespaceRecord
from server.stores.base import ClusterQuery, JobStore


async def test_events_are_numbered_and_read_in_order(store: JobStore) -> None:
    stored = [await store.append_event(event(processed=n)) for n in range(5)]

    assert [e.sequence for e in stored] == [1, 2, 3, 4, 5]
    assert stored[3] == event(processed=3, sequence=4)
    assert await store.events_after("run_1", 0, 99) == stored
    assert await store.events_after("run_1", 2, 2) == stored[2:4]
    assert await store.events_after("run_1", 5, 99) == []
    assert await store.events_after("run_1", 0, 0) == []
    assert await store.events_after("run_2", 0, 99) == []
    assert (await store.append_event(event("run_2"))).sequence == 1


async def test_the_last_sequences_of_many_runs_are_told_at_once(store: JobStore) -> None:
    for run_id, count in (("run_1", 3), ("run_2", 1)):
        for _ in range(count):
            await store.append_event(event(run_id))
    assert await store.last_sequences(["run_1", "run_2", "run_9"]) == {"run_1": 3, "run_2": 1}
    assert await store.last_sequences(["run_2"]) == {"run_2": 1}
    assert await store.last_sequences([]) == {}


async def test_concurrent_appenders_leave_no_gap_and_share_no_number(
    open_store: OpenStore,
) -> None:
    stores = [await open_store() for _ in range(2)]
    appended = await asyncio.gather(
        *(stores[n % 2].append_event(event(processed=n)) for n in range(20))
    )
    stored = await stores[0].events_after("run_1", 0, 99)
    assert [e.sequence for e in stored] == list(range(1, 21))
    assert sorted(appended, key=lambda e: e.sequence) == stored
    assert {e.processed for e in stored} == set(range(20))


async def test_a_run_has_one_end_and_nothing_after_it(store: JobStore) -> None:
    await store.append_event(event())
    final = await store.append_event(event(status="completed", message="done"))

    assert await store.append_event(event(status="failed", message="late")) == final
    assert await store.append_event(event(message="later still")) == final
    assert [e.status for e in await store.events_after("run_1", 0, 9)] == [
        "processing",
        "completed",
    ]


async def test_of_concurrent_final_events_one_is_kept(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(2)]
    answers = await asyncio.gather(
        *(stores[n % 2].append_event(event(status="failed", message=str(n))) for n in range(10))
    )
    assert len({answer.message for answer in answers}) == 1
    assert await stores[0].events_after("run_1", 0, 9) == answers[:1]


def namespace(number: int, name: str, organization_id: str = "org_a") -> NamespaceRecord:
    return NamespaceRecord(
        namespace_id=f"ns_{number}",
        organization_id=organization_id,
        name=name,
        collection_template="{collection_id}",
        created_at=after(-number),
    )


async def test_namespaces_are_unique_by_name_in_their_organization(store: JobStore) -> None:
    first, second = namespace(1, "default"), namespace(2, "default", "org_b")
    third = namespace(3, "ns_1")
    for record in (first, second, third):
        await store.insert_namespace(record)

    with pytest.raises(AlreadyExistsError, match="default"):
        await store.insert_namespace(namespace(4, "default"))
    with pytest.raises(AlreadyExistsError):
        await store.insert_namespace(namespace(1, "other"))
    assert await store.find_namespace("org_a", "default") == first
    assert await store.find_namespace("org_a", "ns_1") == first  # The id goes before the name.
    assert await store.find_namespace("org_b", "ns_1") is None
    assert await store.find_namespace("org_b", "default") == second
    assert await store.list_namespaces() == [third, second, first]
    assert await store.list_namespaces("org_a") == [third, first]
    assert await store.list_namespaces("org_c") == []


def key(number: int, **changes: object) -> KeyRecord:
    values: dict[str, object] = {
        "key_id": f"key_{number}",
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "organization_id": "org_a",
        "role": "write",
        "namespace_ids": [NAMESPACE],
        "created_at": after(-number),
    }
    return KeyRecord.model_validate(values | changes)


async def test_keys_are_found_by_their_hash_also_when_revoked(store: JobStore) -> None:
    await store.insert_key(key(1))
    await store.insert_key(key(2, organization_id="org_b"))

    assert await store.find_key(key(1).sha256) == key(1)
    assert await store.find_key("0" * 64) is None
    revoked = key(1, revoked_at=after(1))
    await store.replace_key(revoked)
    assert await store.find_key(key(1).sha256) == revoked
    assert await store.list_keys() == [key(2, organization_id="org_b"), revoked]
    assert await store.list_keys("org_a") == [revoked]


async def test_key_faults_are_told(store: JobStore) -> None:
    await store.insert_key(key(1))
    with pytest.raises(AlreadyExistsError):
        await store.insert_key(key(1, sha256="0" * 64))
    with pytest.raises(AlreadyExistsError):
        await store.insert_key(key(2, sha256=key(1).sha256))
    with pytest.raises(NotFoundError, match="key_9"):
        await store.replace_key(key(9))


async def test_opening_twice_and_closing_twice_is_harmless(open_store: OpenStore) -> None:
    store = await open_store()
    await store.open()
    await store.ping()
    await store.insert_cluster(cluster(1))
    await store.close()
    await store.close()
    with pytest.raises(UnavailableError, match="closed"):
        await store.ping()
    with pytest.raises(UnavailableError, match="closed"):
        await store.list_clusters(ClusterQuery(NAMESPACE))
    await store.open()
    assert (await store.get_cluster(NAMESPACE, "name 1")).cluster_id == "clust_1"


async def test_many_first_openers_meet_without_harm(open_store: OpenStore) -> None:
    stores = await asyncio.gather(*(open_store() for _ in range(8)))
    await stores[0].insert_cluster(cluster(1))
    for store in stores:
        assert (await store.list_clusters(ClusterQuery(NAMESPACE))).total == 1


async def test_a_canceled_call_leaves_the_store_working(store: JobStore) -> None:
    calls = [asyncio.create_task(store.append_event(event())) for _ in range(10)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    number = (await store.append_event(event())).sequence
    stored = await store.events_after("run_1", 0, 99)
    assert [e.sequence for e in stored] == list(range(1, number + 1))
    assert number >= 6
