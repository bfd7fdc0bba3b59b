"""List calls: windows, cursors, search, filters and order."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_requests_pb2, execution_pb2, task_pb2
from google.protobuf import json_format

from server.jobs import moves
from server.jobs.ledger import utc_now
from server.jobs.model import RunResult
from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World

FOUND = RunResult(algorithm="kmeans", num_clusters=3, num_documents=20)


async def clusters_of(caller: Caller, **query: Any) -> cluster_requests_pb2.ListClustersResponse:
    request = json_format.ParseDict(query, cluster_requests_pb2.ListClustersRequest())
    answer: cluster_requests_pb2.ListClustersResponse = await caller.call(
        caller.clusters.ListClusters, request
    )
    return answer


def names(answer: cluster_requests_pb2.ListClustersResponse) -> list[str]:
    return [cluster.cluster_name for cluster in answer.results]


@pytest.fixture
async def seven(caller: Caller, body: dict[str, Any]) -> list[str]:
    """Seven drafts, named in the order in which they were made."""
    made = [f"cluster {letter}" for letter in "abcdefg"]
    for name in made:
        await caller.create(
            {**body, "cluster_name": name, "execute": False, "description": f"about {name[-1]}"}
        )
    return made


ORDERED = {"sort": {"field": "cluster_name", "direction": "asc"}}


async def test_an_empty_list_has_all_its_parts(caller: Caller) -> None:
    answer = await clusters_of(caller)

    assert list(answer.results) == []
    assert (answer.total_count, answer.stats.total) == (0, 0)
    page = answer.pagination
    assert (page.total, page.page, page.page_size, page.total_pages) == (0, 1, 50, 0)
    assert (page.has_next, page.HasField("next_cursor")) == (False, False)


async def test_the_newest_come_first(caller: Caller, seven: list[str]) -> None:
    answer = await clusters_of(caller, limit=1)

    assert names(answer) == [seven[-1]]
    assert dict(answer.stats.by_status) == {"DRAFT": 7}


async def test_a_cursor_walks_the_whole_list_once(caller: Caller, seven: list[str]) -> None:
    seen: list[str] = []
    pages = []
    cursor: dict[str, str] = {}
    while True:
        answer = await clusters_of(caller, limit=3, **ORDERED, **cursor)
        seen += names(answer)
        pages.append((answer.pagination.page, answer.pagination.has_next, len(answer.results)))
        if not answer.pagination.HasField("next_cursor"):
            break
        cursor = {"cursor": answer.pagination.next_cursor}

    assert seen == seven
    assert pages == [(1, True, 3), (2, True, 3), (3, False, 1)]


async def test_a_cursor_goes_on_where_it_was_although_rows_came_in_front(
    caller: Caller, seven: list[str], body: dict[str, Any]
) -> None:
    first = await clusters_of(caller, limit=3)
    await caller.create({**body, "cluster_name": "newcomer", "execute": False})
    second = await clusters_of(caller, limit=3, cursor=first.pagination.next_cursor)

    assert names(second) == ["cluster d", "cluster c", "cluster b"]


async def test_pages_and_offsets_count_alike(caller: Caller, seven: list[str]) -> None:
    by_page = await clusters_of(caller, page_size=2, page=3, **ORDERED)
    by_offset = await clusters_of(caller, limit=2, offset=4, **ORDERED)

    assert names(by_page) == names(by_offset) == seven[4:6]
    assert (by_page.pagination.page, by_page.pagination.total_pages) == (3, 4)


async def test_what_wins_when_more_is_sent(caller: Caller, seven: list[str]) -> None:
    start = await clusters_of(caller, limit=2, **ORDERED)
    cursor = start.pagination.next_cursor

    both_limits = await clusters_of(caller, limit=1, page_size=5, **ORDERED)
    page_and_offset = await clusters_of(caller, limit=2, page=2, offset=6, **ORDERED)
    cursor_and_page = await clusters_of(caller, limit=2, cursor=cursor, page=4, **ORDERED)

    assert names(both_limits) == seven[:1]
    assert names(page_and_offset) == seven[2:4]
    assert names(cursor_and_page) == seven[2:4]


async def test_a_list_beyond_its_end_is_empty(caller: Caller, seven: list[str]) -> None:
    answer = await clusters_of(caller, offset=100)

    assert names(answer) == []
    assert answer.total_count == 7


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"page_size": 4_000_000_000}, "page_size"),
        ({"page": 0}, "page"),
        ({"offset": 2_000_000}, "offset"),
        ({"page": 4_000_000_000}, "page"),
        ({"cursor": "not a cursor"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"search": "x" * 257}, "search"),
        ({"sort": {"field": "colour"}}, "sort.field"),
        ({"sort": {"field": "status", "direction": "up"}}, "sort.direction"),
        ({"status": "DONE"}, "status"),
        ({"cluster_type": "round"}, "cluster_type"),
        ({"filters": {"colour": "x"}}, "filters.colour"),
        ({"filters": {"NOT": [{"status": "DONE"}]}}, "filters.status"),
        ({"filters": {"status": "DONE"}}, "filters.status"),
        ({"filters": {"AND": [{"field": "status", "operator": "about", "value": 1}]}}, None),
    ],
)
async def test_what_a_list_cannot_do_is_refused(
    caller: Caller, query: dict[str, Any], path: str | None
) -> None:
    failure = await failure_of(clusters_of(caller, **query))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    if path is not None:
        assert list(failure.violations) == [path]


async def test_all_faults_of_a_list_are_told_at_once(caller: Caller) -> None:
    failure = await failure_of(
        clusters_of(caller, limit=0, page=0, status="DONE", sort={"field": "colour"})
    )

    assert failure.violations.keys() == {"limit", "page", "status", "sort.field"}


async def test_a_tampered_cursor_or_one_of_another_query_is_refused(
    caller: Caller, seven: list[str]
) -> None:
    cursor = (await clusters_of(caller, limit=2)).pagination.next_cursor
    middle = len(cursor) // 2
    tampered = cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]

    changed = await failure_of(clusters_of(caller, limit=2, cursor=tampered))
    elsewhere = await failure_of(clusters_of(caller, limit=2, cursor=cursor, search="a"))

    assert "not one of this server's cursors" in changed.violations["cursor"]
    assert "belongs to another query" in elsewhere.violations["cursor"]


async def test_search_looks_at_name_and_description_in_any_case(
    caller: Caller, seven: list[str]
) -> None:
    assert names(await clusters_of(caller, search="CLUSTER B")) == ["cluster b"]
    assert names(await clusters_of(caller, search="About C")) == ["cluster c"]
    nothing = await clusters_of(caller, search="zebra")
    assert (names(nothing), nothing.total_count) == ([], 0)


async def test_the_total_is_left_out_on_demand(caller: Caller, seven: list[str]) -> None:
    answer = await clusters_of(caller, limit=2, include_total=False)

    assert answer.total_count == 0
    assert not answer.pagination.HasField("total")
    assert not answer.pagination.HasField("total_pages")
    assert answer.pagination.has_next


async def test_filters_narrow_by_status_type_and_collection(
    world: World, caller: Caller, seven: list[str], body: dict[str, Any], products: str
) -> None:
    await caller.create({**body, "cluster_name": "running"})

    for query in (
        {"status": "PENDING"},
        {"filters": {"status": "PENDING"}},
        {
            "filters": {
                "AND": [{"field": "status", "operator": "in", "value": ["PENDING", "FAILED"]}]
            }
        },
        {"status": "PENDING", "filters": {"cluster_type": "vector", "input_collections": products}},
    ):
        assert names(await clusters_of(caller, **query)) == ["running"], query
    assert names(await clusters_of(caller, filters={"input_collections": "another"})) == []
    assert names(await clusters_of(caller, cluster_type="attribute")) == []


async def test_filters_look_at_every_field_by_every_operator(
    caller: Caller, seven: list[str], body: dict[str, Any]
) -> None:
    await caller.create({**body, "cluster_name": "running", "metadata": {"owner": {"team": "a"}}})

    def where(field: str, operator: str, value: Any) -> dict[str, Any]:
        return {"field": field, "operator": operator, "value": value}

    for filters, found in (
        ({"metadata.owner.team": "a"}, ["running"]),
        ({"AND": [where("status", "regex", "^PEND")]}, ["running"]),
        ({"NOT": [where("status", "eq", "DRAFT")]}, ["running"]),
        ({"AND": [where("metadata", "exists", False)]}, seven),
        ({"OR": [where("cluster_name", "ends_with", " a"), {"status": "PENDING"}]},
         ["cluster a", "running"]),
        ({"AND": [where("created_at", "lt", "2000-01-01T00:00:00Z")]}, []),
    ):  # fmt: skip
        answer = await clusters_of(caller, filters=filters, **ORDERED)
        assert names(answer) == found, filters
        assert answer.total_count == len(found)
        assert sum(answer.stats.by_status.values()) == len(found)


async def test_a_filter_that_the_store_cannot_answer_is_paged_all_the_same(
    caller: Caller, seven: list[str]
) -> None:
    filters = {"NOT": [{"cluster_name": "cluster c"}]}
    found, cursor = [], ""
    for _ in seven:
        answer = await clusters_of(caller, filters=filters, limit=2, cursor=cursor, **ORDERED)
        found.append(names(answer))
        cursor = answer.pagination.next_cursor
        if not answer.pagination.has_next:
            break

    rest = [name for name in seven if name != "cluster c"]
    assert found == [rest[:2], rest[2:4], rest[4:]]


async def test_archived_clusters_show_only_when_asked_for(caller: Caller, seven: list[str]) -> None:
    request = cluster_requests_pb2.PatchClusterRequest(cluster_id="cluster a", archived=True)
    patched = await caller.call(caller.clusters.PatchCluster, request)

    assert patched.status == "ARCHIVED"
    assert names(await clusters_of(caller, **ORDERED)) == seven[1:]
    assert names(await clusters_of(caller, status="ARCHIVED")) == ["cluster a"]


async def runs_of(caller: Caller, **query: Any) -> execution_pb2.ListExecutionsResponse:
    request = execution_pb2.ListExecutionsRequest(**query)
    answer: execution_pb2.ListExecutionsResponse = await caller.call(
        caller.clusters.ListExecutions, request
    )
    return answer


async def tasks_of(caller: Caller, **query: Any) -> task_pb2.ListTasksResponse:
    answer: task_pb2.ListTasksResponse = await caller.call(
        caller.tasks.ListTasks, task_pb2.ListTasksRequest(**query)
    )
    return answer


@pytest.fixture
async def three_runs(world: World, caller: Caller, body: dict[str, Any]) -> list[str]:
    """A cluster's runs, oldest first: completed, failed, pending."""
    cluster = await caller.create({**body, "cluster_name": "thrice"})
    await world.begin(cluster.cluster_id)
    runs = [await world.complete(cluster.cluster_id, FOUND)]
    for _ in range(2):
        runs.append(
            await world.move(
                cluster.cluster_id, lambda c: moves.queue_run(c, c.definition, utc_now())
            )
        )
        if len(runs) == 2:
            await world.begin(cluster.cluster_id)
            await world.fail(cluster.cluster_id, "TOO_FEW", "only Two documents")
    return [run.run_id for run in runs]


async def test_runs_come_newest_first_in_pages(caller: Caller, three_runs: list[str]) -> None:
    first = await runs_of(caller, cluster_id="thrice", limit=2)
    rest = await runs_of(caller, cluster_id="thrice", limit=2, cursor=first.pagination.next_cursor)

    assert [run.run_id for run in (*first.results, *rest.results)] == three_runs[::-1]
    assert dict(first.stats.by_status) == {"completed": 1, "failed": 1, "pending": 1}
    assert (first.total_count, rest.pagination.has_next) == (3, False)


async def test_runs_are_found_by_status_and_text(caller: Caller, three_runs: list[str]) -> None:
    by_status = await runs_of(caller, cluster_id="thrice", status="completed")
    by_error = await runs_of(caller, cluster_id="thrice", search="ONLY two")
    failure = await failure_of(runs_of(caller, cluster_id="thrice", status="COMPLETED", limit=0))

    assert [run.run_id for run in by_status.results] == [three_runs[0]]
    assert [run.run_id for run in by_error.results] == [three_runs[1]]
    assert failure.violations.keys() == {"status", "limit"}
    assert "completed" in failure.violations["status"]


async def test_tasks_are_found_by_word_cluster_and_text(
    caller: Caller, three_runs: list[str], body: dict[str, Any]
) -> None:
    other = await caller.create({**body, "cluster_name": "other"})

    every = await tasks_of(caller)
    ended = await tasks_of(caller, status="COMPLETED")
    pending = await tasks_of(caller, status="PENDING", limit=1)
    of_one = await tasks_of(caller, cluster_id="other")
    by_name = await tasks_of(caller, search="THRI", limit=2)

    assert every.total_count == 4
    assert every.results[0].task_id == other.last_execution_task_id
    assert {task.task_type for task in every.results} == {"engine_cluster_build"}
    assert [task.additional_data["run_id"] for task in ended.results] == [three_runs[0]]
    assert (pending.total_count, pending.pagination.has_next) == (2, True)
    assert [task.task_id for task in of_one.results] == [other.last_execution_task_id]
    assert (len(by_name.results), by_name.total_count) == (2, 3)


async def test_tasks_of_an_unknown_word_type_or_cluster_are_refused(caller: Caller) -> None:
    words = await failure_of(tasks_of(caller, status="DRAFT", task_type="cooking"))
    unknown = await failure_of(tasks_of(caller, cluster_id="nobody"))

    assert words.violations.keys() == {"status", "task_type"}
    assert unknown.reason == "CLUSTER_NOT_FOUND"
