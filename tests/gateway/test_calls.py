"""Every REST path of the contract, over plain HTTP, read by a strictly typed client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from shoal_command import Served

from server.api.rest.routes import Routes
from tests.gateway.command import gateway_command
from tests.gateway.conftest import DOCS
from tests.gateway.models import (
    Cluster,
    Deleted,
    Enriched,
    Event,
    Execution,
    Exported,
    Groups,
    Member,
    Page,
    PageWithStats,
    RenamedGroups,
    Task,
)
from tests.gateway.rest import OPENAPI, Rest
from tests.proto.test_seed import REQUEST

DRAFT = {
    "collection_ids": [DOCS],
    "execute": False,
    "vector_config": {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 2}},
}


@pytest.fixture
def draft(rest: Rest) -> Cluster:
    """A cluster without a run."""
    return rest.get(Cluster, "POST", "/v1/clusters", json=DRAFT)


def path_of(cluster: Cluster, rest_of_it: str = "") -> str:
    """A cluster's path, by its name."""
    return f"/v1/clusters/{quote(cluster.cluster_name, safe='')}{rest_of_it}"


def test_the_document_lists_the_calls_there_are() -> None:
    listed = {(verb.upper(), path) for path, verbs in OPENAPI["paths"].items() for verb in verbs}

    assert listed == {(route.verb, "/" + "/".join(route.segments)) for route in Routes()}


def test_the_pages_own_request_is_taken(rest: Rest) -> None:
    """As the page has it, with only its placeholders filled."""
    body = json.dumps({**REQUEST, "collection_ids": [DOCS], "cluster_name": "from the page"})
    curl = {"Content-Type": "application/json"}

    cluster = rest.get(Cluster, "POST", "/v1/clusters", content=body, headers=curl)

    assert cluster.status in ("PENDING", "IN_PROGRESS", "PROCESSING", "SKIPPED")
    assert cluster.cluster_type == "vector"
    assert cluster.algorithm_params == {"min_cluster_size": 10, "min_samples": 5}
    assert cluster.filters == REQUEST["filters"]
    assert cluster.llm_labeling["labeling_inputs"] == REQUEST["llm_labeling"]["labeling_inputs"]
    assert cluster.output_collection_ids == []
    rest.get(Deleted, "DELETE", path_of(cluster))


def test_a_stored_definition_is_read_changed_and_removed(rest: Rest, draft: Cluster) -> None:
    path = f"/v1/clusters/{draft.cluster_id}"
    name = f"Größe / {draft.cluster_id[-6:]}"

    changed = rest.get(Cluster, "PATCH", path, json={"cluster_name": name, "metadata": {"a": [1]}})
    read = rest.get(Cluster, "GET", path_of(changed))
    cleared = rest.get(Cluster, "PATCH", path, json={"metadata": {}, "description": ""})
    removed = rest.get(Deleted, "DELETE", f"{path}?cascade_output_collections=false")

    assert draft.status == "DRAFT"
    assert (read.cluster_name, read.metadata) == (name, {"a": [1]})
    assert cleared.metadata == {}
    assert removed.cluster_id == draft.cluster_id
    assert removed.deleted_run_ids == []
    assert rest.fail(404, "GET", path).error.code == "CLUSTER_NOT_FOUND"


@pytest.mark.parametrize("name", ["done", "a b", "a/b", "ä:b", "100%", "a+b&c=d", "😀"])
def test_any_name_stands_in_a_path(rest: Rest, name: str) -> None:
    made = rest.get(Cluster, "POST", "/v1/clusters", json={**DRAFT, "cluster_name": name})

    read = rest.get(Cluster, "GET", path_of(made))
    rest.get(Deleted, "DELETE", path_of(made))

    assert (read.cluster_id, read.cluster_name) == (made.cluster_id, name)


LIST_PARAMETERS: list[dict[str, Any]] = [
    {},
    {"limit": 1},
    {"page_size": 2, "page": 1},
    {"limit": 1, "offset": 1},
    {"search": "Möbel & Töpfe"},
    {"include_total": False},
    {"status": "COMPLETED", "cluster_type": "vector"},
]


@pytest.mark.parametrize("sent", LIST_PARAMETERS, ids=str)
def test_lists_take_their_parameters_in_query_and_body(
    rest: Rest, done: Cluster, draft: Cluster, sent: dict[str, Any]
) -> None:
    words = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in sent.items()
    }
    kind = PageWithStats[Cluster]

    by_get = rest.get(kind, "GET", "/v1/clusters", params=words)
    by_body = rest.get(kind, "POST", "/v1/clusters/list", json=sent)
    by_query = rest.get(kind, "POST", "/v1/clusters/list", params=words)

    assert by_get == by_body == by_query
    assert "search" not in sent or [one.cluster_id for one in by_get.results] == [done.cluster_id]
    assert len(by_get.results) <= sent.get("limit", sent.get("page_size", 50))


def test_a_cursor_leads_through_a_list(rest: Rest, done: Cluster, draft: Cluster) -> None:
    kind = PageWithStats[Cluster]
    first = rest.get(kind, "GET", "/v1/clusters?limit=1&sort.field=cluster_name")
    cursor = first.pagination.next_cursor
    second = rest.get(
        kind, "GET", f"/v1/clusters?limit=1&sort.field=cluster_name&cursor={quote(cursor)}"
    )

    assert first.pagination.has_next
    assert first.results[0].cluster_id != second.results[0].cluster_id


def test_empty_lists_print(rest: Rest) -> None:
    answer = rest.send("GET", "/v1/clusters?search=nothing-is-called-so").json()

    assert answer["results"] == []
    assert answer["total_count"] == 0
    assert answer["stats"] == {"total": 0, "by_status": {}}


def test_the_runs_of_a_cluster(rest: Rest, done: Cluster) -> None:
    latest = rest.get(Execution, "GET", path_of(done, "/executions?include_vectors=true"))
    same = rest.get(Execution, "GET", path_of(done, f"/executions/{latest.run_id}"))
    runs = rest.get(PageWithStats[Execution], "POST", path_of(done, "/executions/list"))
    over = rest.get(Execution, "POST", path_of(done, f"/executions/{latest.run_id}/cancel"))

    assert latest.run_id == done.last_run_id
    assert (latest.status, latest.num_clusters) == ("completed", 4)
    assert [len(group.vector) for group in latest.centroids] == [8] * 4
    assert same.centroids[0].vector == []
    assert runs.results[-1].run_id == over.run_id == latest.run_id
    assert over.status == "completed"


def test_what_a_run_found(rest: Rest, done: Cluster) -> None:
    groups = rest.get(Groups, "GET", path_of(done, "/groups?limit=3"))
    members = list(rest.stream(Member, path_of(done, "/groups/cl_0/members?limit=5")))
    exported = rest.get(
        Exported, "GET", path_of(done, f"/executions/{done.last_run_id}/export?format=csv")
    )

    assert (len(groups.groups), groups.total_count) == (3, 4)
    assert [member.rank for member in members] == [1, 2, 3, 4, 5]
    assert {member.cluster_id for member in members} == {"cl_0"}
    assert {Path(file.url).name for file in exported.artifacts} == {
        "members.csv",
        "centroids.csv",
    }


def test_groups_get_other_names(rest: Rest, done: Cluster) -> None:
    path = path_of(done, f"/executions/{done.last_run_id}/labels")
    labels = [{"cluster_id": "cl_1", "label": "Töpfe"}]

    renamed = rest.get(RenamedGroups, "PATCH", path, json={"labels": labels})

    assert [(group.cluster_id, group.label) for group in renamed.groups] == [("cl_1", "Töpfe")]


def test_a_run_is_written_into_its_collection(rest: Rest, done: Cluster) -> None:
    body = {"cluster_id": done.cluster_name, "collection_id": DOCS}

    written = rest.get(Enriched, "POST", "/v1/clusters/enrich", json=body)

    assert (written.processed, written.enriched, written.failed) == (200, 200, 0)


def test_another_run_is_followed_as_task_and_as_stream(rest: Rest, done: Cluster) -> None:
    task = rest.get(Task, "POST", path_of(done, "/execute"))  # No body at all.
    run_id = task.additional_data["run_id"]
    again = rest.fail(409, "POST", path_of(done, "/execute"), json={}).error
    watched = list(rest.stream(Event, path_of(done, f"/watch?run_id={run_id}")))
    events = [event for event in watched if not event.heartbeat]
    missed = list(rest.stream(Event, path_of(done, f"/watch?run_id={run_id}&after_sequence=1")))
    read = rest.get(Task, "GET", f"/v1/tasks/{task.task_id}")
    tasks = rest.get(Page[Task], "POST", "/v1/tasks/list", json={"cluster_id": done.cluster_id})
    killed = rest.get(Task, "DELETE", f"/v1/tasks/{task.task_id}")

    assert again.code == "RUN_ACTIVE"
    assert again.details.model_extra is not None
    assert again.details.model_extra["run_id"] == run_id
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.sequence for event in missed] == [event.sequence for event in events][1:]
    assert [event.cluster is not None for event in events] == [False] * (len(events) - 1) + [True]
    assert (read.status, killed.status) == ("COMPLETED", "COMPLETED")
    assert task.task_id in [one.task_id for one in tasks.results]


def test_a_retry_with_the_same_key_gets_the_first_answer(rest: Rest) -> None:
    sent = {"json": DRAFT, "headers": {"Idempotency-Key": "order-7"}}
    first = rest.get(Cluster, "POST", "/v1/clusters", **sent)
    second = rest.get(Cluster, "POST", "/v1/clusters", **sent)
    other = rest.fail(
        409, "POST", "/v1/clusters", **{**sent, "json": {**DRAFT, "description": "x"}}
    )

    assert first.cluster_id == second.cluster_id
    assert other.error.code == "REQUEST_ID_TAKEN"


def test_the_document_is_served(address: str) -> None:
    """Without a key: tools read it before they have one."""
    answer = httpx.get(f"http://{address}/openapi.json")

    assert answer.json() == OPENAPI
    assert answer.headers["content-type"] == "application/json"


def test_what_shoal_gateway_says_and_does(served: Served) -> None:
    with gateway_command(served.address) as (process, facts):
        answer = httpx.get(f"http://{facts['address']}/v1/clusters")
        process.terminate()
        code = process.wait(20)

    assert re.fullmatch(r"127\.0\.0\.1:\d+", facts["address"])
    assert facts["upstream"] == served.address
    assert answer.status_code == 401
    assert code == 0
