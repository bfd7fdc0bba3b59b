"""What every job store does, whatever database is behind it: clusters and runs."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from store_records import NAMESPACE, T0, OpenStore, after, cluster, definition, event, run

from server.errors import (
    AlreadyExistsError,
    ClusterNameTakenError,
    ClusterNotFoundError,
    ConflictError,
    InvalidRequestError,
    RequestIdTakenError,
)
from server.jobs.model import SCHEMA_VERSION, ClusterRecord
from server.stores.base import ClusterPage, ClusterQuery, JobStore, RunQuery
from server.stores.documents import StoreVersionError


def ids(records: Sequence[ClusterRecord]) -> list[int]:
    return [int(record.cluster_id.removeprefix("clust_")) for record in records]


async def listed(store: JobStore, **query: object) -> ClusterPage:
    return await store.list_clusters(ClusterQuery(namespace_id=NAMESPACE, **query))  # type: ignore[arg-type]


async def test_a_cluster_reads_back_as_it_was_written(store: JobStore) -> None:
    record = cluster(1, runs=[run(1, status="processing", lease_until=after(9))], request_id="r")
    await store.insert_cluster(record)

    assert await store.get_cluster(NAMESPACE, "clust_1") == record
    assert await store.get_cluster(NAMESPACE, "name 1") == record
    assert await store.find_by_request_id(NAMESPACE, "r") == record
    assert await store.find_by_run(NAMESPACE, "run_1") == record
    assert await store.find_by_run(NAMESPACE, "task_1") == record


async def test_another_namespace_sees_nothing(store: JobStore) -> None:
    record = cluster(1, runs=[run(1)], request_id="r")
    await store.insert_cluster(record)

    for name in ("clust_1", "name 1"):
        with pytest.raises(ClusterNotFoundError):
            await store.get_cluster("ns_b", name)
    assert await store.find_by_request_id("ns_b", "r") is None
    assert await store.find_by_run("ns_b", "run_1") is None
    assert await store.list_clusters(ClusterQuery("ns_b")) == ClusterPage([], 0, {})
    assert (await store.list_runs(RunQuery("ns_b"))).rows == []
    assert await store.count_active_runs("ns_b") == 0
    with pytest.raises(ConflictError):
        await store.replace_cluster(record.model_copy(update={"namespace_id": "ns_b"}))
    assert await store.get_cluster(NAMESPACE, "clust_1") == record


async def test_the_revisions_of_many_clusters_are_told_at_once(store: JobStore) -> None:
    for number in (1, 2, 3):
        await store.insert_cluster(cluster(number))
    first = await store.get_cluster(NAMESPACE, "clust_1")
    changed = await store.replace_cluster(first.model_copy(update={"description": "new"}))
    third = await store.get_cluster(NAMESPACE, "clust_3")
    await store.delete_cluster(third)

    assert await store.revisions(["clust_1", "clust_3", "nobody"]) == {"clust_1": changed.revision}
    assert changed.revision == first.revision + 1
    assert await store.revisions(["clust_2"]) == {"clust_2": first.revision}
    assert await store.revisions([]) == {}


async def test_what_was_never_stored_is_not_found(store: JobStore) -> None:
    with pytest.raises(ClusterNotFoundError, match="nobody"):
        await store.get_cluster(NAMESPACE, "nobody")
    assert await store.find_by_request_id(NAMESPACE, "nobody") is None
    assert await store.find_by_run(NAMESPACE, "nobody") is None


async def test_an_id_goes_before_a_name(store: JobStore) -> None:
    await store.insert_cluster(cluster(1, cluster_name="clust_2"))
    await store.insert_cluster(cluster(2))
    assert (await store.get_cluster(NAMESPACE, "clust_2")).cluster_id == "clust_2"


async def test_names_and_request_ids_are_taken_within_a_namespace(store: JobStore) -> None:
    await store.insert_cluster(cluster(1, request_id="r"))

    with pytest.raises(ClusterNameTakenError, match="name 1"):
        await store.insert_cluster(cluster(2, cluster_name="name 1"))
    with pytest.raises(RequestIdTakenError, match="'r'"):
        await store.insert_cluster(cluster(2, request_id="r"))
    with pytest.raises(RequestIdTakenError):  # A retry repeats both; the request id tells more.
        await store.insert_cluster(cluster(2, cluster_name="name 1", request_id="r"))
    with pytest.raises(AlreadyExistsError, match="clust_1"):
        await store.insert_cluster(cluster(1, cluster_name="other"))
    await store.insert_cluster(
        cluster(3, namespace_id="ns_b", cluster_name="name 1", request_id="r")
    )
    await store.insert_cluster(cluster(4))  # Without request ids nothing collides.
    await store.insert_cluster(cluster(5))
    assert ids((await listed(store)).records) == [5, 4, 1]


async def test_a_replace_raises_the_revision_and_refuses_the_old_one(store: JobStore) -> None:
    first = cluster(1)
    await store.insert_cluster(first)
    changed = first.model_copy(update={"runs": [run(1)], "cluster_name": "new"})

    stored = await store.replace_cluster(changed)

    assert stored == changed.model_copy(update={"revision": 1})
    assert await store.get_cluster(NAMESPACE, "new") == stored
    assert await store.find_by_run(NAMESPACE, "run_1") == stored
    with pytest.raises(ConflictError):
        await store.replace_cluster(first)
    with pytest.raises(ConflictError):
        await store.delete_cluster(first)
    assert await store.get_cluster(NAMESPACE, "clust_1") == stored
    with pytest.raises(ClusterNotFoundError):
        await store.get_cluster(NAMESPACE, "name 1")


async def test_a_rename_to_a_taken_name_changes_nothing(store: JobStore) -> None:
    second = cluster(2, runs=[run(1)])
    await store.insert_cluster(cluster(1, request_id="r"))
    await store.insert_cluster(second)

    with pytest.raises(ClusterNameTakenError):
        await store.replace_cluster(
            second.model_copy(update={"cluster_name": "name 1", "runs": []})
        )
    with pytest.raises(RequestIdTakenError):
        await store.replace_cluster(second.model_copy(update={"request_id": "r"}))

    assert await store.get_cluster(NAMESPACE, "name 2") == second
    assert await store.find_by_run(NAMESPACE, "run_1") == second


async def test_a_freed_name_and_request_id_can_be_used_again(store: JobStore) -> None:
    first = cluster(1, request_id="r")
    await store.insert_cluster(first)
    await store.replace_cluster(
        first.model_copy(update={"cluster_name": "moved", "request_id": None})
    )
    await store.insert_cluster(cluster(2, cluster_name="name 1", request_id="r"))
    assert (await store.get_cluster(NAMESPACE, "name 1")).cluster_id == "clust_2"


async def test_of_concurrent_replaces_exactly_one_wins(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(3)]
    first = cluster(1)
    await stores[0].insert_cluster(first)
    changes = [first.model_copy(update={"cluster_name": f"by {n}"}) for n in range(12)]

    answers = await asyncio.gather(
        *(stores[n % 3].replace_cluster(change) for n, change in enumerate(changes)),
        return_exceptions=True,
    )

    winners = [answer for answer in answers if isinstance(answer, ClusterRecord)]
    assert len(winners) == 1
    assert all(isinstance(a, ClusterRecord | ConflictError) for a in answers)
    assert await stores[1].get_cluster(NAMESPACE, "clust_1") == winners[0]


async def test_of_concurrent_inserts_of_a_name_exactly_one_wins(open_store: OpenStore) -> None:
    stores = [await open_store() for _ in range(2)]
    answers = await asyncio.gather(
        *(stores[n % 2].insert_cluster(cluster(n, cluster_name="x")) for n in range(8)),
        return_exceptions=True,
    )
    assert answers.count(None) == 1
    assert sum(isinstance(answer, ClusterNameTakenError) for answer in answers) == 7


async def test_what_one_store_writes_another_reads(open_store: OpenStore) -> None:
    writer, reader = await open_store(), await open_store()
    await writer.insert_cluster(cluster(1))
    assert ids((await listed(reader)).records) == [1]
    await writer.close()
    assert (await reader.get_cluster(NAMESPACE, "name 1")).cluster_id == "clust_1"


async def test_delete_removes_the_cluster_its_runs_and_their_events(store: JobStore) -> None:
    record = cluster(1, runs=[run(1), run(2)])
    await store.insert_cluster(record)
    await store.insert_cluster(cluster(2, runs=[run(3)]))
    for run_id in ("run_1", "run_2", "run_3"):
        await store.append_event(event(run_id))

    await store.delete_cluster(record)

    with pytest.raises(ClusterNotFoundError):
        await store.get_cluster(NAMESPACE, "clust_1")
    assert await store.find_by_run(NAMESPACE, "run_2") is None
    assert await store.events_after("run_1", 0, 9) == []
    assert await store.events_after("run_2", 0, 9) == []
    assert len(await store.events_after("run_3", 0, 9)) == 1
    assert (await store.list_runs(RunQuery(NAMESPACE))).total == 1
    for again in (store.delete_cluster, store.replace_cluster):
        with pytest.raises(ConflictError):
            await again(record)


async def test_a_replace_removes_the_events_of_runs_it_drops(store: JobStore) -> None:
    record = cluster(1, runs=[run(1), run(2)])
    await store.insert_cluster(record)
    await store.append_event(event("run_1"))
    await store.append_event(event("run_2"))

    await store.replace_cluster(record.model_copy(update={"runs": [run(2), run(3)]}))

    assert await store.events_after("run_1", 0, 9) == []
    assert len(await store.events_after("run_2", 0, 9)) == 1
    assert await store.find_by_run(NAMESPACE, "run_1") is None


async def add_five(store: JobStore) -> None:
    for number, name in enumerate(["echo", "Bravo", "delta", "alpha", "Charlie"], start=1):
        await store.insert_cluster(
            cluster(number, cluster_name=name, updated_at=after(100 - number))
        )


@pytest.mark.parametrize(
    ("sort_by", "ascending"),
    [
        ("created_at", [1, 2, 3, 4, 5]),
        ("updated_at", [5, 4, 3, 2, 1]),
        ("cluster_name", [4, 2, 5, 3, 1]),
        ("status", [1, 2, 3, 4, 5]),
    ],
)
async def test_pages_and_cursors_follow_the_order(
    store: JobStore, sort_by: str, ascending: list[int]
) -> None:
    await add_five(store)
    for descending, expected in ((False, ascending), (True, ascending[::-1])):
        order = {"sort_by": sort_by, "descending": descending, "limit": 2}
        seen: list[int] = []
        for offset in (0, 2, 4):
            page = await listed(store, offset=offset, **order)
            assert (page.total, page.by_status) == (5, {"DRAFT": 5})
            seen += ids(page.records)
        assert seen == expected

        page, seen = await listed(store, **order), []
        while page.records:
            seen += ids(page.records)
            page = await listed(store, after_cluster_id=page.records[-1].cluster_id, **order)
        assert seen == expected


async def test_equal_sort_keys_lose_nothing_between_pages(store: JobStore) -> None:
    for number in range(1, 6):
        await store.insert_cluster(cluster(number, created_at=T0))
    page, seen = await listed(store, limit=2), []
    while page.records:
        seen += ids(page.records)
        page = await listed(store, limit=2, after_cluster_id=page.records[-1].cluster_id)
    assert seen == [5, 4, 3, 2, 1]


async def test_a_cursor_that_is_gone_is_told(store: JobStore) -> None:
    await store.insert_cluster(cluster(1, namespace_id="ns_b"))
    with pytest.raises(InvalidRequestError, match="cursor") as caught:
        await listed(store, after_cluster_id="clust_1")
    assert caught.value.violations[0].field == "cursor"


async def test_a_page_past_the_end_or_of_no_rows_still_counts(store: JobStore) -> None:
    await add_five(store)
    for page in (await listed(store, offset=99), await listed(store, limit=0)):
        assert (page.records, page.total) == ([], 5)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("RESEARCH", [1]),
        ("äRGER", [2]),
        ("a.b", [3]),
        ("100%_(x", [3]),
        ("search\npap", []),
        ("e", [2, 1]),
        ("nothing", []),
        ("\0", []),
    ],
)
async def test_search_looks_into_name_and_description(
    store: JobStore, search: str, found: list[int]
) -> None:
    await store.insert_cluster(cluster(1, cluster_name="Research"))
    await store.insert_cluster(
        cluster(2, cluster_name="papErs", definition=definition(description="Viel Ärger"))
    )
    await store.insert_cluster(cluster(3, cluster_name="a.b 100%_(x"))
    page = await listed(store, search=search)
    assert ids(page.records) == found
    assert page.total == len(found)


async def test_filters_by_status_type_and_collection(store: JobStore) -> None:
    await store.insert_cluster(cluster(1))
    await store.insert_cluster(cluster(2, runs=[run(1, status="failed"), run(2)]))
    await store.insert_cluster(
        cluster(3, runs=[run(3, status="failed")], definition=definition(collection_ids=["b", "c"]))
    )
    await store.insert_cluster(cluster(4, archived=True, runs=[run(4)]))

    everything = await listed(store)
    assert ids(everything.records) == [3, 2, 1]
    assert everything.by_status == {"DRAFT": 1, "FAILED": 1, "PENDING": 1}
    some = await listed(store, statuses=["FAILED", "DRAFT"], limit=1)
    assert (ids(some.records), some.total, some.by_status) == ([3], 2, {"DRAFT": 1, "FAILED": 1})
    assert ids((await listed(store, statuses=["ARCHIVED"])).records) == [4]
    assert ids((await listed(store, include_archived=True)).records) == [4, 3, 2, 1]
    assert ids((await listed(store, collection_ids=["c", "x"])).records) == [3]
    assert ids((await listed(store, cluster_types=["attribute"])).records) == []
    assert ids((await listed(store, cluster_types=["vector"])).records) == [3, 2, 1]


async def test_runs_are_listed_newest_first_with_their_cluster(store: JobStore) -> None:
    one = cluster(1, runs=[run(1, status="completed"), run(4)])
    two = cluster(2, runs=[run(2, status="failed"), run(3, status="processing")], archived=True)
    await store.insert_cluster(one)
    await store.insert_cluster(two)

    page = await store.list_runs(RunQuery(NAMESPACE))
    assert page.rows == [(one, run(4)), (two, two.runs[1]), (two, two.runs[0]), (one, one.runs[0])]
    assert page.total == 4
    assert page.by_status == {"completed": 1, "failed": 1, "pending": 1, "processing": 1}

    page = await store.list_runs(RunQuery(NAMESPACE, limit=2, offset=1))
    assert [r.run_id for _, r in page.rows] == ["run_3", "run_2"]
    page = await store.list_runs(RunQuery(NAMESPACE, cluster_id="clust_1", statuses=["pending"]))
    assert ([r.run_id for _, r in page.rows], page.total) == (["run_4"], 1)
    page = await store.list_runs(RunQuery(NAMESPACE, limit=0))
    assert (page.rows, page.total) == ([], 4)
    assert (await store.list_runs(RunQuery(NAMESPACE, cluster_id="clust_9"))).total == 0


async def test_the_store_tells_its_time(store: JobStore) -> None:
    ahead = await store.clock() - datetime.now(UTC)

    assert abs(ahead.total_seconds()) < 5


async def test_active_runs_are_counted_by_namespace(store: JobStore) -> None:
    done = run(1, status="completed")
    await store.insert_cluster(cluster(1, runs=[done, run(2, status="processing")]))
    await store.insert_cluster(cluster(2, runs=[run(3)]))
    await store.insert_cluster(cluster(3, runs=[run(4, status="canceled")]))
    await store.insert_cluster(cluster(4, runs=[run(5)], namespace_id="ns_b"))
    assert await store.count_active_runs(NAMESPACE) == 2
    assert await store.count_active_by_status() == {"pending": 2, "processing": 1}


async def test_claimable_gives_waiting_and_abandoned_runs(store: JobStore) -> None:
    await store.insert_cluster(cluster(1, runs=[run(9)]))
    await store.insert_cluster(
        cluster(2, runs=[run(3, status="processing", lease_until=after(50))])
    )
    await store.insert_cluster(cluster(3, runs=[run(5)], namespace_id="ns_b"))
    await store.insert_cluster(cluster(4, runs=[run(1), run(2, status="completed")]))
    await store.insert_cluster(cluster(5))

    assert ids(await store.claimable(after(49.999999), 9)) == [1, 3]
    assert ids(await store.claimable(after(50), 9)) == [2, 3, 1]
    assert ids(await store.claimable(after(50), 2)) == [2, 3]
    assert await store.claimable(after(50), 0) == []


async def test_claimable_lets_namespaces_take_turns(store: JobStore) -> None:
    for number, namespace in enumerate("aaabbc"):
        record = cluster(number, runs=[run(number)], namespace_id=f"ns_{namespace}")
        await store.insert_cluster(record)

    assert ids(await store.claimable(after(50), 9)) == [0, 3, 5, 1, 4, 2]
    assert ids(await store.claimable(after(50), 9, "ns_a")) == [3, 5, 0, 4, 1, 2]
    assert ids(await store.claimable(after(50), 2, "ns_b")) == [5, 0]
    assert ids(await store.claimable(after(50), 1, "ns_z")) == [0]


async def test_a_damaged_record_takes_nobodys_turn(store: JobStore) -> None:
    damaged = cluster(1, runs=[run(1)]).model_copy(update={"organization_id": 5})
    with warnings.catch_warnings(action="ignore"):  # Pydantic sees what is being done.
        await store.insert_cluster(damaged)
    await store.insert_cluster(cluster(2, runs=[run(2)]))
    await store.insert_cluster(cluster(3, runs=[run(3)], namespace_id="ns_b"))
    assert ids(await store.claimable(after(50), 1)) == [3]
    assert ids(await store.claimable(after(50), 9)) == [3, 2]


async def test_a_renewed_lease_is_not_claimable(store: JobStore) -> None:
    record = cluster(1, runs=[run(1, status="processing", lease_until=after(10))])
    await store.insert_cluster(record)
    renewed = [run(1, status="processing", lease_until=after(30))]
    record = await store.replace_cluster(record.model_copy(update={"runs": renewed}))
    assert await store.claimable(after(20), 9) == []
    ended = [run(1, status="failed")]
    await store.replace_cluster(record.model_copy(update={"runs": ended}))
    assert await store.claimable(after(99), 9) == []


async def test_what_a_newer_version_wrote_is_refused_and_counted(store: JobStore) -> None:
    await store.insert_cluster(cluster(1, schema_version=SCHEMA_VERSION + 1, runs=[run(1)]))
    await store.insert_cluster(cluster(2, runs=[run(2)]))

    with pytest.raises(StoreVersionError, match="upgrade this server"):
        await store.get_cluster(NAMESPACE, "clust_1")
    page = await listed(store)
    assert (ids(page.records), page.total) == ([2], 1)
    assert page.by_status == {"PENDING": 1, "UNKNOWN": 1}
    assert (await listed(store, statuses=["UNKNOWN"])).by_status == {"UNKNOWN": 1}
    assert (await listed(store, statuses=["PENDING"])).by_status == {"PENDING": 1}
    assert ids(await store.claimable(after(99), 9)) == [2]
    assert [r.run_id for _, r in (await store.list_runs(RunQuery(NAMESPACE))).rows] == ["run_2"]
