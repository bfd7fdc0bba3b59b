"""Renaming the groups of a run over the wire."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_pb2, execution_pb2, group_pb2

from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World


async def rename(
    caller: Caller, cluster: cluster_pb2.Cluster, *labels: dict[str, Any]
) -> group_pb2.PatchExecutionLabelsResponse:
    request = group_pb2.PatchExecutionLabelsRequest(
        cluster_id=cluster.cluster_id, run_id=cluster.last_run_id, labels=list(labels)
    )
    answer: group_pb2.PatchExecutionLabelsResponse = await caller.call(
        caller.clusters.PatchExecutionLabels, request
    )
    return answer


async def groups_of(caller: Caller, **query: Any) -> list[group_pb2.Group]:
    answer = await caller.call(
        caller.clusters.ListGroups, group_pb2.ListGroupsRequest(cluster_id="done", **query)
    )
    return list(answer.groups)


async def test_every_reader_sees_the_new_names(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    answer = await rename(
        caller,
        finished,
        {"cluster_id": "cl_1", "label": "Blue things", "keywords": ["blue"]},
        {"cluster_id": "cl_0", "summary": ""},
    )

    assert (answer.cluster_id, answer.run_id) == (finished.cluster_id, finished.last_run_id)
    assert [group.cluster_id for group in answer.groups] == ["cl_1", "cl_0"]
    listed = await groups_of(caller)
    assert [group.label for group in listed] == ["Red things", "Blue things"]
    assert not listed[0].HasField("summary")
    assert list(listed[0].keywords) == ["red", "warm"]
    assert [group.cluster_id for group in await groups_of(caller, search="BLUE")] == ["cl_1"]
    members = caller.call(
        caller.clusters.ListMembers,
        group_pb2.ListMembersRequest(cluster_id="done", group_id="cl_1"),
    )
    assert {member.cluster_label async for member in members} == {"Blue things"}
    execution = await caller.call(
        caller.clusters.GetLatestExecution,
        execution_pb2.GetLatestExecutionRequest(cluster_id="done"),
    )
    assert [group.label for group in execution.centroids] == ["Red things", "Blue things"]


async def test_later_names_lie_over_earlier_ones(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    await rename(caller, finished, {"cluster_id": "cl_0", "label": "Warm", "summary": "Of warmth"})
    await rename(caller, finished, {"cluster_id": "cl_0", "label": "Hot"})
    await rename(caller, finished, {"cluster_id": "cl_0", "label": "Hot"})

    first, _ = await groups_of(caller)
    assert (first.label, first.summary) == ("Hot", "Of warmth")


async def test_two_groups_may_swap_names(caller: Caller, finished: cluster_pb2.Cluster) -> None:
    await rename(
        caller,
        finished,
        {"cluster_id": "cl_0", "label": "Cluster 1"},
        {"cluster_id": "cl_1", "label": "Red things"},
    )

    assert [group.label for group in await groups_of(caller)] == ["Cluster 1", "Red things"]


async def test_all_faults_are_told_at_once_and_nothing_changes(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    failure = await failure_of(
        rename(
            caller,
            finished,
            {"cluster_id": "cl_9", "label": "x"},
            {"cluster_id": "cl_0", "label": " "},
            {"cluster_id": "cl_1", "label": "Fine"},
            {"cluster_id": "cl_1", "label": "a" * 81},
            {"cluster_id": "cl_noise", "label": "NOISE"},
            {"cluster_id": "cl_0"},
            {"cluster_id": "cl_0", "keywords": ["ok", "bad\u202etext"]},
        )
    )

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert failure.violations.keys() == {
        "labels[0].cluster_id", "labels[1].label", "labels[3].cluster_id", "labels[3].label",
        "labels[4].cluster_id", "labels[4].label", "labels[5]", "labels[5].cluster_id",
        "labels[6].cluster_id", "labels[6].keywords[1]",
    }  # fmt: skip
    assert "cl_0, cl_1" in failure.violations["labels[0].cluster_id"]
    assert [group.label for group in await groups_of(caller)] == ["Red things", "Cluster 1"]


async def test_a_label_of_another_group_is_refused_in_any_case(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    failure = await failure_of(
        rename(caller, finished, {"cluster_id": "cl_1", "label": "red THINGS"})
    )

    assert "label of cl_0" in failure.violations["labels[0].label"]


async def test_what_is_missing_is_said(caller: Caller) -> None:
    failure = await failure_of(
        caller.call(caller.clusters.PatchExecutionLabels, group_pb2.PatchExecutionLabelsRequest())
    )

    assert failure.violations.keys() == {"cluster_id", "run_id", "labels"}


async def test_a_run_that_has_not_finished_has_no_names(
    caller: Caller, body: dict[str, Any]
) -> None:
    pending = await caller.create({**body, "cluster_name": "done"})

    failure = await failure_of(rename(caller, pending, {"cluster_id": "cl_0", "label": "x"}))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_RESULTS")


@pytest.mark.parametrize("role", ["read"])
async def test_readers_may_not_rename(
    world: World, finished: cluster_pb2.Cluster, role: str
) -> None:
    reader = world.connect(key=await world.key_for(role))

    failure = await failure_of(rename(reader, finished, {"cluster_id": "cl_0", "label": "x"}))

    assert failure.code is grpc.StatusCode.PERMISSION_DENIED
