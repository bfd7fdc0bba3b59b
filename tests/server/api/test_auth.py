"""Who may call what: keys, namespaces and roles."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest
from clusters.gateway.v1.external_check_pb2 import CheckRequest
from clusters.v1 import (
    cluster_requests_pb2,
    cluster_service_pb2,
    task_pb2,
    task_service_pb2,
    watch_pb2,
)
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceServicer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.api.auth import ROLE_OF, Credentials, Gate
from server.api.interceptor import CallInterceptor
from server.api.rest.check import GatewayChecks
from server.api.server import Services, build_grpc_server
from server.api.task_service import TaskService
from server.errors import UnauthenticatedError
from server.metrics import Metrics
from server.tenancy import Tenancy
from tests.server.api.failures import Failure, failure_of
from tests.server.api.world import ORGANIZATION, Caller, World

SERVICES = (
    cluster_service_pb2.DESCRIPTOR.services_by_name["ClusterService"],
    task_service_pb2.DESCRIPTOR.services_by_name["TaskService"],
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES
    for method in service.methods
}
READING = ("Get", "List", "Watch", "Export")


async def list_as(caller: Caller) -> Any:
    return await caller.call(
        caller.clusters.ListClusters, cluster_requests_pb2.ListClustersRequest()
    )


async def refusal(caller: Caller) -> Failure:
    return await failure_of(list_as(caller))


def test_every_rpc_has_a_role_and_no_role_is_left_over() -> None:
    assert ROLE_OF.keys() == METHODS.keys()


@pytest.mark.parametrize("path", sorted(METHODS))
def test_reading_needs_read_and_all_else_write(path: str) -> None:
    reads = METHODS[path].name.startswith(READING)

    assert ROLE_OF[path] == ("read" if reads else "write")


async def test_a_key_works_in_its_namespace_by_name_and_by_id(world: World) -> None:
    by_name = await list_as(world.connect())
    by_id = await list_as(world.connect(namespace=world.namespace.namespace_id))

    assert by_name == by_id


@pytest.mark.parametrize("key", ["", "sk_wrong", "sk_" + "x" * 43])
async def test_no_key_or_a_wrong_one_is_unauthenticated(world: World, key: str) -> None:
    failure = await refusal(world.connect(key=key))

    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    assert failure.reason == "UNAUTHENTICATED"


async def test_another_scheme_is_no_key(world: World) -> None:
    caller = Caller(
        world.served.port, {"authorization": f"Basic {world.key}", "x-namespace": "shop"}
    )
    world.callers.append(caller)

    assert (await refusal(caller)).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_revoked_key_ends_at_once(world: World, caller: Caller) -> None:
    await list_as(caller)
    (record,) = await world.store.list_keys()
    await world.tenancy.revoke_key(record.key_id)

    assert (await refusal(caller)).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("heartbeat_s", "recheck_s"), [(0.02, 0.0)])
async def test_a_revoked_key_ends_its_open_streams(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    request = watch_pb2.WatchExecutionRequest(cluster_id=cluster.cluster_id)
    beats = aiter(caller.call(caller.clusters.WatchExecution, request))
    await anext(beats)
    (record,) = await world.store.list_keys()

    await world.tenancy.revoke_key(record.key_id)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        _ = [beat async for beat in beats]

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_namespace_that_is_not_the_keys_is_forbidden(world: World) -> None:
    await world.tenancy.create_namespace(ORGANIZATION, "other")

    theirs = await refusal(world.connect(namespace="other"))
    nowhere = await refusal(world.connect(namespace="nowhere"))
    unnamed = await refusal(world.connect(namespace=""))

    for failure in (theirs, nowhere, unnamed):
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "FORBIDDEN",
        )


async def test_a_reader_reads_and_writes_nothing(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(body)
    reader = world.connect(key=await world.key_for("read"))

    assert (await reader.get(cluster.cluster_id)).cluster_id == cluster.cluster_id
    for refused in (
        reader.create(body),
        reader.cancel(cluster.cluster_id, cluster.last_run_id),
        reader.call(
            reader.clusters.DeleteCluster,
            cluster_requests_pb2.DeleteClusterRequest(cluster_id=cluster.cluster_id),
        ),
    ):
        failure = await failure_of(refused)
        assert failure.code is grpc.StatusCode.PERMISSION_DENIED
        assert "'read'" in failure.message
    assert (await caller.get(cluster.cluster_id)).status == "PENDING"


async def test_what_lies_in_another_namespace_is_not_found(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create({**body, "cluster_name": "secret plan"})
    await world.tenancy.create_namespace(ORGANIZATION, "other")
    stranger = world.connect(key=await world.key_for("write", "other"), namespace="other")

    for name in (cluster.cluster_id, "secret plan"):
        failure = await failure_of(stranger.get(name))
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "CLUSTER_NOT_FOUND",
        )
    cancel = await failure_of(stranger.cancel(cluster.cluster_id, cluster.last_run_id))
    task = await failure_of(
        stranger.call(
            stranger.tasks.GetTask,
            task_pb2.GetTaskRequest(task_id=cluster.last_execution_task_id),
        )
    )
    listed = await list_as(stranger)

    assert cancel.code is grpc.StatusCode.NOT_FOUND
    assert (task.code, task.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert (list(listed.results), listed.total_count) == ([], 0)


async def test_health_needs_no_key(world: World) -> None:
    caller = Caller(world.served.port, {})
    world.callers.append(caller)
    probe = health_pb2_grpc.HealthStub(caller.channel)

    for name in ("", "clusters.v1.ClusterService", "clusters.v1.TaskService"):
        answer = await probe.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer anything"}])
async def test_with_dev_any_key_or_none_will_do(world: World, headers: dict[str, str]) -> None:
    tenancy = Tenancy(world.store, dev=True)
    served = await build_grpc_server(
        Services(ClusterServiceServicer(), TaskService(world.clusters)),
        listen="127.0.0.1:0",
        interceptors=[CallInterceptor(Gate(tenancy))],
    )
    await served.server.start()
    caller = Caller(served.port, headers)
    world.callers.append(caller)
    answer = await caller.call(caller.tasks.ListTasks, task_pb2.ListTasksRequest())
    await served.server.stop(0)

    assert answer.total_count == 0
    assert await world.store.find_namespace("org_dev", "default") is not None


async def test_a_wrong_key_is_counted_by_whichever_door_it_came(world: World) -> None:
    metrics = Metrics()
    gate = Gate(world.tenancy, metrics=metrics)
    request = CheckRequest()
    request.attributes.request.http.method = "GET"
    request.attributes.request.http.path = "/v1/clusters"
    request.attributes.request.http.headers["authorization"] = "Bearer sk_wrong"

    class Gateway:
        @staticmethod
        def peer() -> str:
            return "ipv4:127.0.0.1:9"

    refused = await GatewayChecks(gate).check(request, cast(Any, Gateway()))
    with pytest.raises(UnauthenticatedError):
        await gate.check(next(iter(METHODS)), Credentials("sk_wrong", None, "ipv4:127.0.0.1:9"))

    assert refused.denied_response.status.code == 401
    assert metrics.registry.get_sample_value("shoal_failed_logins_total") == 2


async def test_open_streams_of_one_key_look_it_up_together(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []
    find_key = world.store.find_key

    async def counted(sha256: str) -> Any:
        looked_up.append(sha256)
        return await find_key(sha256)

    monkeypatch.setattr(world.store, "find_key", counted)
    (record,) = await world.store.list_keys()
    gate, method = Gate(world.tenancy), next(iter(METHODS))
    shown = Credentials.of(caller.metadata, "ipv4:127.0.0.1:9")

    first = [asyncio.create_task(gate.check_again(method, shown)) for _ in range(50)]
    await asyncio.sleep(0)
    first[0].cancel()  # A stream that ends takes nobody's answer along.
    found = await asyncio.gather(*first[1:])
    assert len(looked_up) == 1
    assert {each.role for each in found} == {record.role}

    await world.tenancy.revoke_key(record.key_id)
    monkeypatch.setattr("server.api.auth.SHARED_S", 0.0)
    with pytest.raises(UnauthenticatedError):
        await gate.check_again(method, shown)
