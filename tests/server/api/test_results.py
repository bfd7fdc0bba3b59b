"""Groups, members and removal over the wire, read from a run's real artifacts."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from clusters.v1 import (
    cluster_pb2,
    cluster_requests_pb2,
    execution_pb2,
    group_pb2,
)

from server.results.artifacts import RunFolder
from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World


async def groups_of(caller: Caller, **query: Any) -> group_pb2.ListGroupsResponse:
    request = group_pb2.ListGroupsRequest(cluster_id="done", **query)
    answer: group_pb2.ListGroupsResponse = await caller.call(caller.clusters.ListGroups, request)
    return answer


async def members_of(caller: Caller, **query: Any) -> list[group_pb2.Member]:
    request = group_pb2.ListMembersRequest(**{"cluster_id": "done", "group_id": "cl_0", **query})
    return [member async for member in caller.call(caller.clusters.ListMembers, request)]


async def test_groups_come_largest_first_without_vectors(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    answer = await groups_of(caller)

    red, other = answer.groups
    assert (red.cluster_id, red.label, red.member_count) == ("cl_0", "Red things", 10)
    assert (red.summary, list(red.keywords)) == ("What is red", ["red", "warm"])
    assert (other.label, other.HasField("summary")) == ("Cluster 1", False)
    assert list(red.vector) == []
    assert (answer.run_id, answer.total_count) == (finished.last_run_id, 2)


async def test_groups_are_paged_and_searched(caller: Caller, finished: cluster_pb2.Cluster) -> None:
    first = await groups_of(caller, limit=1)
    second = await groups_of(caller, limit=1, cursor=first.pagination.next_cursor)
    warm = await groups_of(caller, search="WARM")

    assert [group.cluster_id for group in (*first.groups, *second.groups)] == ["cl_0", "cl_1"]
    assert not second.pagination.has_next
    assert [group.cluster_id for group in warm.groups] == ["cl_0"]


async def test_an_execution_carries_its_centroids(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    plain = await caller.call(
        caller.clusters.GetLatestExecution,
        execution_pb2.GetLatestExecutionRequest(cluster_id="done"),
    )
    full = await caller.call(
        caller.clusters.GetExecution,
        execution_pb2.GetExecutionRequest(
            cluster_id="done", run_id=finished.last_run_id, include_vectors=True
        ),
    )

    assert [(group.cluster_id, list(group.vector)) for group in plain.centroids] == [
        ("cl_0", []),
        ("cl_1", []),
    ]
    assert [list(group.vector) for group in full.centroids] == [[0, 1, 2, 3], [1, 2, 3, 4]]


async def test_an_execution_outlives_its_artifacts(
    world: World, caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    RunFolder(
        str(world.artifacts),
        world.namespace.namespace_id,
        finished.cluster_id,
        finished.last_run_id,
    ).delete()

    ran = await caller.call(
        caller.clusters.GetLatestExecution,
        execution_pb2.GetLatestExecutionRequest(cluster_id="done"),
    )
    failure = await failure_of(groups_of(caller))

    assert (ran.status, list(ran.centroids)) == ("completed", [])
    assert failure.code is grpc.StatusCode.NOT_FOUND


async def test_members_come_nearest_first(
    caller: Caller, finished: cluster_pb2.Cluster, products: str
) -> None:
    members = await members_of(caller)

    assert [member.rank for member in members] == list(range(1, 11))
    distances = [member.distance_to_centroid for member in members]
    assert distances == sorted(distances)
    first = members[0]
    assert (first.cluster_id, first.cluster_label) == ("cl_0", "Red things")
    assert (first.source_collection_id, first.source_document_id) == (products, "9")
    assert not first.HasField("x")
    noise = await members_of(caller, group_id="cl_noise")
    assert len(noise) == 4
    assert not noise[0].HasField("distance_to_centroid")


@pytest.mark.parametrize(
    ("query", "ranks"),
    [
        ({"limit": 3}, [1, 2, 3]),
        ({"page_size": 4, "page": 3}, [9, 10]),
        ({"offset": 8}, [9, 10]),
        ({"limit": 2, "page_size": 9, "cursor": "5"}, [6, 7]),
        ({"cursor": "10"}, []),
        ({"cursor": "9" * 30}, []),
        ({"search": "7"}, [3]),
        ({"search": "7", "cursor": "3"}, []),
        ({"search": "", "limit": 500}, list(range(1, 11))),
    ],
)
async def test_a_part_of_the_members_can_be_asked_for(
    caller: Caller, finished: cluster_pb2.Cluster, query: dict[str, Any], ranks: list[int]
) -> None:
    assert [member.rank for member in await members_of(caller, **query)] == ranks


async def test_members_can_bring_their_payload(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    (first,) = await members_of(caller, limit=1, include_payload=True)
    (plain,) = await members_of(caller, limit=1)

    assert first.payload["category"] == "b"
    assert not plain.HasField("payload")


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"limit": 0, "page": 0}, {"limit", "page"}),
        ({"page": 2}, {"page"}),
        ({"cursor": "-1"}, {"cursor"}),
        ({"group_id": ""}, {"group_id"}),
    ],
)
async def test_what_members_cannot_do_is_refused(
    caller: Caller, finished: cluster_pb2.Cluster, query: dict[str, Any], paths: set[str]
) -> None:
    failure = await failure_of(members_of(caller, **query))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations.keys() == paths


async def test_an_unknown_group_is_not_found(caller: Caller, finished: cluster_pb2.Cluster) -> None:
    failure = await failure_of(members_of(caller, group_id="cl_99"))

    assert failure.code is grpc.StatusCode.NOT_FOUND
    assert "cl_99" in failure.message


async def test_a_cluster_without_results_says_its_state(
    caller: Caller, body: dict[str, Any]
) -> None:
    await caller.create({**body, "cluster_name": "done"})

    failure = await failure_of(groups_of(caller))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_RESULTS")
    assert "PENDING" in failure.message


async def test_a_deleted_cluster_is_gone_with_its_artifacts(
    world: World, caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    removed = await caller.call(
        caller.clusters.DeleteCluster, cluster_requests_pb2.DeleteClusterRequest(cluster_id="done")
    )

    assert removed.cluster_id == finished.cluster_id
    assert list(removed.deleted_run_ids) == [finished.last_run_id]
    assert removed.artifacts_deleted
    assert not removed.HasField("canceled_run_id")
    assert not list(world.artifacts.rglob("*.parquet"))
    assert (await failure_of(caller.get("done"))).code is grpc.StatusCode.NOT_FOUND


async def test_a_delete_cancels_the_pending_run_and_may_keep_artifacts(
    world: World, caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    await caller.call(
        caller.clusters.ExecuteCluster, execution_pb2.ExecuteClusterRequest(cluster_id="done")
    )
    pending = (await caller.get("done")).last_run_id

    removed = await caller.call(
        caller.clusters.DeleteCluster,
        cluster_requests_pb2.DeleteClusterRequest(
            cluster_id="done", cascade_output_collections=False
        ),
    )

    assert removed.canceled_run_id == pending
    assert list(removed.deleted_run_ids) == [finished.last_run_id, pending]
    assert not removed.artifacts_deleted
    assert list(world.artifacts.rglob("*.parquet"))
