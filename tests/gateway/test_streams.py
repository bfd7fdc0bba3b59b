"""Streams over HTTP/1.1, and errors of the server, before a server that the test moves by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from clusters.v1 import cluster_pb2

from server.errors import (
    ConflictError,
    ForbiddenError,
    PreconditionError,
    QuotaError,
    ShoalError,
    UnavailableError,
)
from server.jobs import findings
from server.results.artifacts import RunFolder
from server.results.maps import write_map
from tests.gateway.models import Event, Member, Visualization
from tests.gateway.rest import check_form, error_of, events_of
from tests.server.api.conftest import FOUND
from tests.server.api.world import Caller, World


def once(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Let a method work once; from then on Qdrant is away."""
    calls: list[Any] = []

    async def limited(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > 1:
            raise UnavailableError("Qdrant is away")
        return await method(*args)

    return limited


async def test_events_come_as_they_happen(
    world: World, world_rest: httpx.AsyncClient, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    run = await world.begin(cluster.cluster_id)
    async with world_rest.stream("GET", f"/v1/clusters/{cluster.cluster_id}/watch") as answer:
        events = events_of(Event, answer)
        async with asyncio.timeout(10):  # The run waits for each to be seen.
            first = await anext(events)
            await world.say(run, message="half is done")
            second = await anext(events)
            await world.complete(cluster.cluster_id, FOUND)
            (final,) = [event async for event in events]

    assert (first.sequence, first.status, first.stage_progress) == (1, "processing", 0.5)
    assert (second.sequence, second.message) == (2, "half is done")
    assert final.cluster is not None
    assert (final.status, final.cluster.status) == ("completed", "COMPLETED")


@pytest.mark.parametrize("heartbeat_s", [0.1])
async def test_a_quiet_stream_shows_that_it_lives(
    world: World, world_rest: httpx.AsyncClient, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    await world.begin(cluster.cluster_id)
    async with world_rest.stream("GET", f"/v1/clusters/{cluster.cluster_id}/watch") as answer:
        events = events_of(Event, answer)
        async with asyncio.timeout(10):
            shown = [await anext(events) for _ in range(3)]

    assert [event.heartbeat for event in shown] == [False, True, True]
    assert [event.sequence for event in shown] == [1, 1, 1]


async def test_a_stream_that_breaks_ends_with_the_reason(
    world: World,
    world_rest: httpx.AsyncClient,
    caller: Caller,
    body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the store is away")

    cluster = await caller.create(body)
    begun = await world.begin(cluster.cluster_id)
    async with world_rest.stream("GET", f"/v1/clusters/{cluster.cluster_id}/watch") as answer:
        events = events_of(Event, answer)
        async with asyncio.timeout(10):
            await anext(events)
            monkeypatch.setattr(world.store, "get_cluster", away)
            world.events.ring(begun.run_id)
            (last,) = [event async for event in events]

    assert answer.status_code == 200
    assert last.error == "the store is away"
    assert last.error_info.reason == "UNAVAILABLE"
    assert last.sequence == 1  # From which a watcher can go on.


@pytest.mark.parametrize(("heartbeat_s", "recheck_s"), [(0.05, 0.0)])
async def test_a_key_that_is_revoked_ends_its_stream_with_the_reason(
    world: World, world_rest: httpx.AsyncClient, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    async with world_rest.stream("GET", f"/v1/clusters/{cluster.cluster_id}/watch") as answer:
        events = events_of(Event, answer)
        async with asyncio.timeout(10):
            await anext(events)
            for key in await world.store.list_keys():
                await world.tenancy.revoke_key(key.key_id)
            *_, last = [event async for event in events]

    assert last.error_info.reason == "UNAUTHENTICATED"


async def test_members_that_break_off_end_with_the_reason(
    world: World,
    world_rest: httpx.AsyncClient,
    finished: cluster_pb2.Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "/v1/clusters/done/groups/cl_0/members?include_payload=true"
    whole = [one async for one in events_of(Member, await world_rest.get(path))]
    monkeypatch.setattr(findings, "MEMBERS_AT_ONCE", 4)
    monkeypatch.setattr(findings.Findings, "payloads", once(findings.Findings.payloads))
    *some, last = [one async for one in events_of(Member, await world_rest.get(path))]
    none = await world_rest.get(path)

    assert [one.rank for one in whole] == list(range(1, 11))
    assert {one.error for one in whole} == {""}
    assert [one.rank for one in some] == [1, 2, 3, 4]
    assert (last.rank, last.error) == (0, "Qdrant is away")
    assert last.error_info.reason == "UNAVAILABLE"
    assert error_of(none).status == 503  # Before the first entry a status can still be said.


async def test_the_map_of_a_run(
    world: World, world_rest: httpx.AsyncClient, finished: cluster_pb2.Cluster
) -> None:
    names = (world.namespace.namespace_id, finished.cluster_id, finished.last_run_id)
    folder = RunFolder(str(world.artifacts), *names)
    write_map(folder, folder.read_members(), np.ones((20, 2), np.float32))

    answer = await world_rest.get("/v1/clusters/done/visualization?max_points=5")
    bare = await world_rest.get("/v1/clusters/done/visualization?centroids_only=true")
    page = await world_rest.get("/v1/clusters/done/visualization?format=html")

    check_form("GET", "/v1/clusters/done/visualization", answer)
    shown = Visualization.model_validate_json(answer.content)
    assert (len(shown.points), shown.total_points, shown.dimensions) == (5, 20, 2)
    assert Visualization.model_validate_json(bare.content).points == []
    check_form("GET", "/v1/clusters/done/visualization", page)
    html = Visualization.model_validate_json(page.content).html
    assert html is not None
    assert html.rstrip().endswith("</html>")


@pytest.mark.parametrize(
    "errors",
    [
        {
            ForbiddenError("not yours"): (403, "ForbiddenError", "FORBIDDEN"),
            PreconditionError("no", run_id="run_1"): (409, "ConflictError", "FAILED_PRECONDITION"),
            ConflictError("again"): (409, "ConflictError", "CONFLICT"),
            QuotaError("full", retry_after_s=2.5): (429, "TooManyRequestsError", "QUOTA_EXCEEDED"),
            UnavailableError("away"): (503, "ServiceUnavailableError", "UNAVAILABLE"),
            RuntimeError("password=hunter2"): (500, "InternalError", "INTERNAL"),
            ShoalError("\u00e4\n\u2028" * 4_000): (500, "InternalError", "INTERNAL"),
        }
    ],
)
async def test_errors_of_the_server_pass_as_they_are(
    world: World,
    world_rest: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    errors: dict[Exception, tuple[int, str, str]],
) -> None:
    for error, (status, kind, code) in errors.items():

        async def broken(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(world.store, "get_cluster", broken)
        answer = await world_rest.get("/v1/clusters/any")
        told = error_of(answer)

        check_form("GET", "/v1/clusters/any", answer)
        assert (answer.status_code, told.error.type, told.error.code) == (status, kind, code)
        assert answer.headers["x-request-id"].startswith("req_")
        assert "hunter2" not in answer.text
        if status == 500:
            assert told.error.details.model_extra is not None
            assert told.error.details.model_extra["error_id"] in told.error.message
        if isinstance(error, QuotaError):
            assert answer.headers["retry-after"] == "3"
            assert told.error.details.retry_after_s == 2.5


async def test_a_caller_that_speaks_grpc_gets_the_server_as_it_is(
    world: World, world_rest: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    import grpc

    gate = Caller(world_rest.base_url.port or 0, dict(world.connect().metadata))
    try:
        created = await gate.create(body)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await gate.get("nope")
    finally:
        await gate.channel.close()

    assert created.status == "PENDING"
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    trailers = [name for name, _ in failed.value.trailing_metadata() or ()]
    assert "grpc-status-details-bin" in trailers
    assert "x-rest-body" not in trailers
