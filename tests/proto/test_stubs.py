"""The generated stubs in use: a real server on a free port, asked over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from clusters.v1.cluster_pb2 import Cluster
from clusters.v1.cluster_requests_pb2 import CreateClusterRequest, GetClusterRequest
from clusters.v1.cluster_service_pb2 import DESCRIPTOR as SERVICE_FILE
from clusters.v1.cluster_service_pb2_grpc import (
    ClusterServiceServicer,
    ClusterServiceStub,
    add_ClusterServiceServicer_to_server,
)
from clusters.v1.watch_pb2 import ExecutionEvent, WatchExecutionRequest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub


class PartOfTheService(ClusterServiceServicer):
    """Answers two of the calls, as a service does that is still being built."""

    async def CreateCluster(
        self,
        request: CreateClusterRequest,
        context: grpc.aio.ServicerContext[CreateClusterRequest, Cluster],
    ) -> Cluster:
        """Give back the name that was sent."""
        return Cluster(cluster_name=request.cluster_name)

    async def WatchExecution(
        self,
        request: WatchExecutionRequest,
        context: grpc.aio.ServicerContext[WatchExecutionRequest, ExecutionEvent],
    ) -> AsyncIterator[ExecutionEvent]:
        """Send the two events after the one asked for."""
        for sequence in range(request.after_sequence + 1, request.after_sequence + 3):
            yield ExecutionEvent(sequence=sequence)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """Return a channel to a server that runs while the test does."""
    server = grpc.aio.server()
    add_ClusterServiceServicer_to_server(PartOfTheService(), server)
    names = [service.full_name for service in SERVICE_FILE.services_by_name.values()]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


async def test_a_call_and_a_stream_reach_the_servicer(channel: grpc.aio.Channel) -> None:
    stub = ClusterServiceStub(channel)

    answer = await stub.CreateCluster(CreateClusterRequest(cluster_name="articles"), timeout=10)
    watch = stub.WatchExecution(WatchExecutionRequest(after_sequence=7), timeout=10)

    assert answer.cluster_name == "articles"
    assert [event.sequence async for event in watch] == [8, 9]


async def test_a_call_that_is_left_out_answers_unimplemented(channel: grpc.aio.Channel) -> None:
    stub = ClusterServiceStub(channel)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetCluster(GetClusterRequest(cluster_id="clust_1"), timeout=10)

    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "symbol",
    ["clusters.v1.ClusterService", "google.rpc.BadRequest", "google.api.HttpRule"],
)
async def test_reflection_describes_calls_and_error_details(
    channel: grpc.aio.Channel, symbol: str
) -> None:
    ask = ServerReflectionRequest(file_containing_symbol=symbol)

    replies = ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=10)
    found = [reply async for reply in replies]

    described = set()
    for reply in found:
        for content in reply.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(content)
            described |= {f"{file.package}.{message.name}" for message in file.message_type}
            described |= {f"{file.package}.{service.name}" for service in file.service}
    assert symbol in described
