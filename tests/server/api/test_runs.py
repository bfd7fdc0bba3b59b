"""Clusters, executions and tasks while runs go by, and the calls that change them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_pb2, cluster_requests_pb2, execution_pb2, task_pb2
from google.protobuf import json_format
from google.rpc import error_details_pb2

from server.jobs import moves
from server.jobs.admission import Limits
from server.jobs.ledger import utc_now
from server.jobs.model import OutputCollection, RunResult
from tests.server.api.failures import failure_of
from tests.server.api.world import MULTIMODAL, Caller, World

FOUND = RunResult(
    algorithm="kmeans",
    num_clusters=3,
    num_documents=20,
    num_noise=2,
    device="cpu",
    device_reason="no GPU answers",
    effective_params={"n_clusters": 3, "random_state": 42},
    feature_uris=[MULTIMODAL],
    quality_metrics={"silhouette": 0.25, "davies_bouldin": float("nan")},
    timings_s={"export": 0.5, "cluster": 0.25},
    timeline={"export": [[0.0, 0.5]], "cluster": [[0.5, 0.625], [0.75, 0.875]]},
    outputs=[OutputCollection(collection_id="out", name="mine-abc", generation="out__1")],
    source_bucket_ids=["b1", "b2"],
    labeling_errors=[],
)


def as_json(message: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return parsed


async def execution(caller: Caller, cluster_id: str, run_id: str = "") -> execution_pb2.Execution:
    answer: execution_pb2.Execution
    if run_id:
        request = execution_pb2.GetExecutionRequest(cluster_id=cluster_id, run_id=run_id)
        answer = await caller.call(caller.clusters.GetExecution, request)
    else:
        latest = execution_pb2.GetLatestExecutionRequest(cluster_id=cluster_id)
        answer = await caller.call(caller.clusters.GetLatestExecution, latest)
    return answer


async def task(caller: Caller, task_id: str) -> task_pb2.Task:
    answer: task_pb2.Task = await caller.call(
        caller.tasks.GetTask, task_pb2.GetTaskRequest(task_id=task_id)
    )
    return answer


async def execute(caller: Caller, **fields: Any) -> task_pb2.Task:
    request = json_format.ParseDict(fields, execution_pb2.ExecuteClusterRequest())
    answer: task_pb2.Task = await caller.call(caller.clusters.ExecuteCluster, request)
    return answer


async def patch(caller: Caller, **fields: Any) -> Any:
    request = json_format.ParseDict(fields, cluster_requests_pb2.PatchClusterRequest())
    return await caller.call(caller.clusters.PatchCluster, request)


async def test_states_follow_the_run(world: World, caller: Caller, body: dict[str, Any]) -> None:
    cluster = await caller.create(body)

    async def words() -> tuple[str, str, str]:
        return (
            (await caller.get(cluster.cluster_id)).status,
            (await execution(caller, cluster.cluster_id)).status,
            (await task(caller, cluster.last_execution_task_id)).status,
        )

    assert await words() == ("PENDING", "pending", "PENDING")
    run = await world.begin(cluster.cluster_id)
    assert await words() == ("IN_PROGRESS", "processing", "IN_PROGRESS")
    await world.move(
        cluster.cluster_id, lambda c: moves.enter_stage(c, run.run_id, 1, "cluster", utc_now())
    )
    assert await words() == ("PROCESSING", "processing", "PROCESSING")
    assert (await execution(caller, cluster.cluster_id)).stage == "cluster"
    await world.complete(cluster.cluster_id, FOUND)
    assert await words() == ("COMPLETED", "completed", "COMPLETED")


async def test_a_completed_run_fills_cluster_execution_and_task(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    run = await world.complete(cluster.cluster_id, FOUND, "left one out")

    got = await caller.get(cluster.cluster_id)
    ran = await execution(caller, cluster.cluster_id, run.run_id)
    done = await task(caller, run.task_id)

    assert (got.num_clusters, got.num_documents_clustered) == (3, 20)
    assert got.execution_time_seconds >= 1.5
    assert list(got.output_collection_ids) == ["out"]
    assert list(got.output_collection_names) == ["mine-abc"]
    assert list(got.source_bucket_ids) == ["b1", "b2"]
    assert list(got.warnings) == ["left one out"]
    assert got.last_executed_at.ToMilliseconds() < got.completed_at.ToMilliseconds()
    assert as_json(got.quality_metrics) == {"silhouette": 0.25, "davies_bouldin": None}
    assert (ran.n_noise, ran.num_documents, ran.device, ran.device_reason) == (
        2,
        20,
        "cpu",
        "no GPU answers",
    )
    assert as_json(ran.effective_params) == {"n_clusters": 3.0, "random_state": 42.0}
    timings = as_json(ran.timings)
    assert 0 <= timings.pop("publish") < ran.execution_time_seconds
    assert timings == {"export": 0.5, "cluster": 0.25}
    timeline = as_json(ran.timeline)
    [[begin, end]] = timeline.pop("publish")
    assert 0 < begin < end == pytest.approx(ran.execution_time_seconds)
    assert timeline == {"export": [[0, 0.5]], "cluster": [[0.5, 0.625], [0.75, 0.875]]}
    assert ran.finished_at == got.completed_at
    assert ran.execution_time_seconds == got.execution_time_seconds
    assert (done.task_type, list(done.outputs)) == ("engine_cluster_build", ["out"])
    assert list(done.inputs) == body["collection_ids"]
    assert done.additional_data["cluster_id"] == cluster.cluster_id
    assert done.additional_data["stage"] == "write"
    assert done.completed_at == got.completed_at


async def test_counts_stay_those_of_the_newest_success_when_a_later_run_fails(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    good = await world.complete(cluster.cluster_id, FOUND)
    again = await execute(caller, cluster_id=cluster.cluster_id)
    await world.begin(cluster.cluster_id)
    bad = await world.fail(cluster.cluster_id, "TOO_FEW", "2 documents are left")

    got = await caller.get(cluster.cluster_id)

    assert got.status == "FAILED"
    assert got.error == "2 documents are left"
    assert (got.last_run_id, got.last_execution_task_id) == (bad.run_id, again.task_id)
    assert got.num_clusters == 3
    assert list(got.output_collection_ids) == ["out"]
    assert got.completed_at.ToMilliseconds() == round(good.finished_at.timestamp() * 1000)  # type: ignore[union-attr]
    ran = await execution(caller, cluster.cluster_id, bad.run_id)
    assert (ran.error, ran.error_info.reason) == ("2 documents are left", "TOO_FEW")
    assert not ran.HasField("num_clusters")


async def test_a_skipped_run_says_why(world: World, caller: Caller, body: dict[str, Any]) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    reason = "the filter leaves 1 document, 2 are needed"
    skipped = FOUND.model_copy(
        update={"num_clusters": 0, "num_documents": 0, "outputs": [], "skipped_reason": reason}
    )
    run = await world.complete(cluster.cluster_id, skipped)

    assert (await caller.get(cluster.cluster_id)).status == "SKIPPED"
    ran = await execution(caller, cluster.cluster_id)
    assert (ran.status, ran.num_clusters, list(ran.warnings)) == ("completed", 0, [reason])
    assert (await task(caller, run.task_id)).status == "SKIPPED"


async def test_an_enriching_cluster_names_no_outputs(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create({**body, "enrich_source_collection": True})
    await world.begin(cluster.cluster_id)
    await world.complete(cluster.cluster_id, FOUND.model_copy(update={"outputs": []}))

    got = await caller.get(cluster.cluster_id)

    assert got.enrich_source
    assert list(got.output_collection_ids) == list(got.output_collection_names) == []


async def test_a_pending_run_is_canceled_at_once_and_only_once(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)

    first = await caller.cancel(cluster.cluster_id, cluster.last_run_id)
    again = await caller.cancel(cluster.cluster_id, cluster.last_run_id)

    assert (first.status, again.status) == ("canceled", "canceled")
    assert (await caller.get(cluster.cluster_id)).status == "CANCELED"
    assert cluster.last_run_id in world.interrupted


async def test_a_running_run_is_asked_to_stop(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    run = await world.begin(cluster.cluster_id)

    killed = await caller.call(caller.tasks.KillTask, task_pb2.KillTaskRequest(task_id=run.task_id))

    assert killed.status == "IN_PROGRESS"  # It ends when its worker has stopped.
    assert world.interrupted == [run.run_id]


async def test_canceling_what_is_not_there_is_not_found(
    caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)

    no_run = await failure_of(caller.cancel(cluster.cluster_id, "run_nothing"))
    no_cluster = await failure_of(caller.cancel("nothing", "run_nothing"))
    no_task = await failure_of(
        caller.call(caller.tasks.KillTask, task_pb2.KillTaskRequest(task_id="task_nothing"))
    )
    empty = await failure_of(caller.cancel("", ""))

    assert (no_run.code, no_run.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    assert no_cluster.reason == "CLUSTER_NOT_FOUND"
    assert no_task.reason == "TASK_NOT_FOUND"
    assert empty.violations == {"cluster_id": "required", "run_id": "required"}


async def test_a_second_run_waits_for_the_first(caller: Caller, body: dict[str, Any]) -> None:
    cluster = await caller.create(body)

    failure = await failure_of(execute(caller, cluster_id=cluster.cluster_id))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_ACTIVE")
    assert cluster.last_run_id in failure.message


async def test_a_namespace_has_so_many_active_runs_and_no_more(
    world: World, caller: Caller, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.clusters._admission, "_limits", Limits(active_runs=2))
    first, _ = await caller.create(body), await caller.create(body)

    refused = await failure_of(caller.create(body))
    draft = await caller.create({**body, "execute": False})
    await caller.cancel(first.cluster_id, first.last_run_id)
    after = await caller.create(body)

    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA_EXCEEDED",
    )
    assert refused.detail(error_details_pb2.RetryInfo).retry_delay.seconds > 0
    assert (draft.status, after.status) == ("DRAFT", "PENDING")


async def test_overrides_hold_for_one_run(caller: Caller, body: dict[str, Any]) -> None:
    draft = await caller.create({**body, "execute": False})

    queued = await execute(
        caller, cluster_id=draft.cluster_id, sample_size=7, filters={"category": "a"}
    )
    ran = await execution(caller, draft.cluster_id)
    kept = await caller.get(draft.cluster_id)

    assert queued.status == "PENDING"
    assert queued.additional_data["run_id"] == ran.run_id
    assert ran.sample_size == 7
    assert as_json(ran.filters) == {"category": "a"}
    assert not kept.HasField("filters")
    assert not kept.vector_config.HasField("sample_size")


async def test_a_mode_and_what_does_not_go_with_it_are_refused(
    caller: Caller, body: dict[str, Any]
) -> None:
    draft = await caller.create({**body, "execute": False})

    unknown = await failure_of(
        execute(caller, cluster_id=draft.cluster_id, mode="half", assignment_threshold=1.5)
    )
    idle = await failure_of(
        execute(
            caller,
            cluster_id=draft.cluster_id,
            mode="assign",
            assignment_threshold="NaN",
            sample_size=5,
            llm_labeling={},
        )
    )

    assert unknown.code is grpc.StatusCode.INVALID_ARGUMENT
    assert unknown.violations.keys() == {"mode", "assignment_threshold"}
    assert "full, assign" in unknown.violations["mode"]
    assert idle.violations.keys() == {"assignment_threshold", "sample_size", "llm_labeling"}


async def test_nothing_can_be_assigned_before_a_run_found_groups(
    caller: Caller, body: dict[str, Any]
) -> None:
    draft = await caller.create({**body, "execute": False})

    failure = await failure_of(execute(caller, cluster_id=draft.cluster_id, mode="assign"))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NOTHING_TO_ASSIGN_TO",
    )
    assert "DRAFT" in failure.message


async def test_assigning_is_queued_after_a_success(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    task = await execute(caller, cluster_id="done", mode="assign", assignment_threshold=0.8)
    ran = await execution(caller, finished.cluster_id)

    assert task.additional_data["mode"] == ran.mode == "assign"
    assert ran.status == "pending"


async def test_a_repeated_request_queues_one_run(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    tasks = await asyncio.gather(
        *(execute(caller, cluster_id="done", request_id="once") for _ in range(4))
    )
    failure = await failure_of(execute(caller, cluster_id="done", request_id="once", sample_size=7))
    other = await failure_of(execute(caller, cluster_id="done", request_id="another"))

    assert len({task.task_id for task in tasks}) == 1
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_TAKEN",
    )
    assert other.reason == "RUN_ACTIVE"


async def test_patch_changes_what_was_sent_and_nothing_else(
    caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(
        {**body, "execute": False, "description": "old", "metadata": {"a": 1}}
    )

    renamed = await patch(caller, cluster_id=cluster.cluster_id, cluster_name="new name")
    cleared = await patch(caller, cluster_id="new name", description="", metadata={})
    tuned = await patch(
        caller, cluster_id="new name", algorithm_params={"n_clusters": 5}, sample_size=9
    )

    assert (renamed.cluster_name, renamed.description) == ("new name", "old")
    assert as_json(renamed.metadata) == {"a": 1.0}
    assert not cleared.HasField("description")
    assert not cleared.HasField("metadata")
    assert as_json(tuned.algorithm_params) == {"n_clusters": 5.0}
    assert tuned.vector_config.sample_size == 9
    assert tuned.vector_config.feature_uri == MULTIMODAL


async def test_a_patch_is_checked_like_a_new_definition(
    caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create({**body, "execute": False})

    failure = await failure_of(
        patch(caller, cluster_id=cluster.cluster_id, algorithm_params={"n_clusters": 0})
    )

    assert failure.violations.keys() == {"vector_config.algorithm_params.n_clusters"}
