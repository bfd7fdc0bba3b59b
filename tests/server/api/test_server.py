"""The server around the services: reflection, health, and its port."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from clusters.v1 import cluster_requests_pb2
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceServicer, ClusterServiceStub
from clusters.v1.task_service_pb2_grpc import TaskServiceServicer
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from server.api.server import ListenError, Services, build_grpc_server
from server.api.service import ClusterService
from server.api.task_service import TaskService
from tests.server.api.failures import failure_of
from tests.server.api.world import World

EMPTY = Services(ClusterServiceServicer(), TaskServiceServicer())


def reflect(port: int) -> tuple[set[str], dict[str, set[str]], set[str]]:
    """Ask a server, as grpcurl does, for its services, their methods and the fields of Cluster."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        names = set(database.get_services())
        methods = {
            name: {method.name for method in pool.FindServiceByName(name).methods}
            for name in names
            if name.startswith("clusters.")
        }
        fields = {field.name for field in pool.FindMessageTypeByName("clusters.v1.Cluster").fields}
    return names, methods, fields


async def test_reflection_lists_and_describes_everything_without_a_key(world: World) -> None:
    names, methods, fields = await asyncio.to_thread(reflect, world.served.port)

    assert names == {
        "clusters.v1.ClusterService",
        "clusters.v1.TaskService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert len(methods["clusters.v1.ClusterService"]) == 17
    assert methods["clusters.v1.TaskService"] == {"GetTask", "ListTasks", "KillTask"}
    assert {"cluster_id", "status", "num_clusters", "filters"} <= fields


async def test_error_details_can_be_described_too(world: World) -> None:
    def find(port: int) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            return str(pool.FindMessageTypeByName("google.rpc.BadRequest").full_name)

    assert await asyncio.to_thread(find, world.served.port) == "google.rpc.BadRequest"


async def test_a_call_is_described_with_its_comments(world: World) -> None:
    def ask(port: int) -> list[bytes]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="clusters.v1.ClusterService.CreateCluster"
            )
            answers = ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
            return list(next(answers).file_descriptor_response.file_descriptor_proto)

    sent = await asyncio.to_thread(ask, world.served.port)
    files = [FileDescriptorProto.FromString(raw) for raw in sent]

    comments = {
        file.name: [place.leading_comments.strip() for place in file.source_code_info.location]
        for file in files
    }
    assert any("queues its first run" in text for text in comments[files[0].name])
    assert "Id of the cluster, clust_…." in comments["clusters/v1/cluster.proto"]


async def test_an_unknown_method_is_unimplemented(world: World) -> None:
    caller = world.connect()
    call = caller.channel.unary_unary("/clusters.v1.ClusterService/Dance")
    failure = await failure_of(call(b"", metadata=caller.metadata, timeout=5))

    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


async def test_health_turns_when_the_server_is_about_to_stop(world: World) -> None:
    probe = health_pb2_grpc.HealthStub(world.connect().channel)
    await world.served.health.enter_graceful_shutdown()

    answer = await probe.Check(health_pb2.HealthCheckRequest(service=""), timeout=5)

    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_taken_port_is_refused_in_words(world: World) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{world.served.port}"):
        await build_grpc_server(EMPTY, listen=f"127.0.0.1:{world.served.port}")


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ListenError, match="not one of this machine's"):
        await build_grpc_server(EMPTY, listen="203.0.113.7:50051")


async def test_every_call_is_ours_and_none_the_generated_stand_in() -> None:
    for ours, generated in (
        (ClusterService, ClusterServiceServicer),
        (TaskService, TaskServiceServicer),
    ):
        for name in vars(generated):
            if not name.startswith("_"):
                assert getattr(ours, name) is not getattr(generated, name), name


async def test_smaller_limits_can_be_set() -> None:
    served = await build_grpc_server(EMPTY, listen="127.0.0.1:0", max_message_bytes=1000)
    await served.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        request = cluster_requests_pb2.GetClusterRequest(cluster_id="x" * 1001)
        failure = await failure_of(ClusterServiceStub(channel).GetCluster(request, timeout=5))
    await served.server.stop(0)

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
