"""WatchExecution over the wire: stored events first, live ones next, and always an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from clusters.v1 import watch_pb2

from server.jobs.model import RunResult
from tests.server.api.failures import failure_of, read_failure
from tests.server.api.world import Caller, World

FOUND = RunResult(algorithm="kmeans", num_clusters=3, num_documents=20)


def watch(caller: Caller, cluster_id: str, **more: Any) -> Any:
    request = watch_pb2.WatchExecutionRequest(cluster_id=cluster_id, **more)
    return caller.call(caller.clusters.WatchExecution, request)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task does, for five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


async def test_a_watcher_sees_the_run_to_its_end(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    run = await world.begin(cluster.cluster_id)
    events = aiter(watch(caller, cluster.cluster_id))

    first = await anext(events)  # The stream is open before the run moves on.
    await world.complete(cluster.cluster_id, FOUND, "one row was left out")
    rest = [event async for event in events]

    assert (first.sequence, first.status, first.stage) == (1, "processing", "export")
    assert (first.stage_progress, first.processed, first.total) == (0.5, 10, 20)
    assert first.run_id == run.run_id
    assert first.occurred_at.ToMilliseconds() > 0
    assert not first.HasField("cluster")
    (final,) = rest
    assert (final.sequence, final.status) == (2, "completed")
    assert list(final.warnings) == ["one row was left out"]
    assert final.cluster.cluster_id == cluster.cluster_id
    assert final.cluster.status == "COMPLETED"
    assert final.cluster.num_clusters == 3


async def test_a_watcher_that_comes_back_sees_only_what_it_missed(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    run = await world.begin(cluster.cluster_id)
    await world.say(run, message="second")
    await world.complete(cluster.cluster_id, FOUND)

    all_of_it = [event.sequence async for event in watch(caller, cluster.cluster_id)]
    missed = [event.sequence async for event in watch(caller, cluster.cluster_id, after_sequence=1)]
    none = [event.sequence async for event in watch(caller, cluster.cluster_id, after_sequence=3)]

    assert all_of_it == [1, 2, 3]
    assert missed == [2, 3]
    assert none == []


async def test_watchers_do_not_take_events_from_each_other(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    streams = [aiter(watch(caller, cluster.cluster_id)) for _ in range(4)]
    for stream in streams:
        assert (await anext(stream)).sequence == 1

    await world.complete(cluster.cluster_id, FOUND)
    ends = [[event.sequence async for event in stream] for stream in streams]

    assert ends == [[2]] * 4


async def test_a_watcher_that_goes_away_leaves_nothing(
    world: World, caller: Caller, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    call = watch(caller, cluster.cluster_id)
    await anext(aiter(call))
    assert world.events.watched_runs == 1

    with caplog.at_level(logging.INFO, logger="server.api"):
        call.cancel()
        await until(lambda: not world.events.watched_runs and bool(caplog.records))

    assert [vars(record)["code"] for record in caplog.records] == ["CANCELLED"]


async def test_a_failed_run_ends_the_stream_with_its_reason(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    await world.fail(cluster.cluster_id, "TOO_FEW_DOCUMENTS", "2 documents, 3 groups asked for")

    *_, final = [event async for event in watch(caller, cluster.cluster_id)]

    assert (final.status, final.error) == ("failed", "2 documents, 3 groups asked for")
    assert final.error_info.reason == "TOO_FEW_DOCUMENTS"
    assert final.cluster.status == "FAILED"
    assert final.cluster.error == "2 documents, 3 groups asked for"


async def test_a_canceled_pending_run_ends_the_stream(caller: Caller, body: dict[str, Any]) -> None:
    cluster = await caller.create(body)
    await caller.cancel(cluster.cluster_id, cluster.last_run_id)

    events = [event async for event in watch(caller, cluster.cluster_id)]

    assert [event.status for event in events] == ["canceled"]


@pytest.mark.parametrize("heartbeat_s", [0.02])
async def test_a_quiet_run_gets_heartbeats_that_repeat_the_sequence(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    events = aiter(watch(caller, cluster.cluster_id))

    first, beat = await anext(events), await anext(events)
    await world.complete(cluster.cluster_id, FOUND)
    rest = [event async for event in events]

    assert not first.heartbeat
    assert (beat.heartbeat, beat.sequence, beat.status, beat.stage) == (
        True,
        1,
        "processing",
        "export",
    )
    assert rest[-1].sequence == 2
    assert not rest[-1].heartbeat


async def test_a_cluster_deleted_under_its_watcher_says_so_in_an_event(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    events = aiter(watch(caller, cluster.cluster_id))
    await anext(events)

    record = await world.store.get_cluster(world.namespace.namespace_id, cluster.cluster_id)
    await world.store.delete_cluster(record)
    last = await anext(events)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(events)

    assert last.error_info.reason == "CLUSTER_NOT_FOUND"
    assert (last.sequence, last.status) == (1, "processing")
    failure = read_failure(caught.value)
    assert failure.code is grpc.StatusCode.NOT_FOUND
    assert failure.reason == "CLUSTER_NOT_FOUND"


async def test_a_fault_of_ours_in_the_middle_is_an_event_too_and_hides_its_inside(
    world: World, caller: Caller, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("password=hunter2")

    cluster = await caller.create(body)
    run = await world.begin(cluster.cluster_id)
    events = aiter(watch(caller, cluster.cluster_id))
    await anext(events)

    monkeypatch.setattr(world.store, "get_cluster", broken)
    world.events.ring(run.run_id)
    last = await anext(events)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(events)

    assert last.error == "internal error; watch again after this sequence"
    assert (last.sequence, last.error_info.reason) == (1, "INTERNAL")
    assert read_failure(caught.value).code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in f"{last}{caught.value}"


async def test_a_cluster_without_runs_or_an_unknown_one_cannot_be_watched(
    caller: Caller, body: dict[str, Any]
) -> None:
    draft = await caller.create({**body, "execute": False})

    no_run = await failure_of(anext(aiter(watch(caller, draft.cluster_id))))
    unknown = await failure_of(anext(aiter(watch(caller, "nothing"))))
    unnamed = await failure_of(anext(aiter(watch(caller, ""))))

    assert (no_run.code, no_run.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "CLUSTER_NOT_FOUND")
    assert unnamed.violations == {"cluster_id": "required"}
