"""Whatever is sent, no call ends as a fault of the server's own.

Short by default. `SHOAL_FUZZ_EXAMPLES` sets the tries for each call; `make fuzz` takes many.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_pb2, cluster_requests_pb2, enrichment_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.api.random_requests import FILTERS, damaged, fill_struct, messages
from tests.server.api.test_auth import METHODS
from tests.server.api.world import Caller, World

N_EXAMPLES = int(os.environ.get("SHOAL_FUZZ_EXAMPLES", "15"))
CALL_TIMEOUT_S = 20.0
STREAM_TIMEOUT_S = 0.2
"""A watch of a run that nobody works on is quiet for ever."""

FAULTS = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
CREATE = "/clusters.v1.ClusterService/CreateCluster"
ENRICH = "/clusters.v1.ClusterService/EnrichCollection"

fuzz = settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=N_EXAMPLES < 100,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Wire:
    """Sends bytes as a caller that is let in, and looks at nothing but the status."""

    def __init__(self, channel: grpc.Channel, world: World) -> None:
        self._channel = channel
        self._headers = (("authorization", f"Bearer {world.key}"), ("x-namespace", "shop"))

    def status_of(self, path: str, raw: bytes) -> grpc.StatusCode:
        """Make the call and give how it ended."""
        is_stream = METHODS[path].server_streaming
        if is_stream:
            call = self._channel.unary_stream(path)(
                raw, metadata=self._headers, timeout=STREAM_TIMEOUT_S
            )
            with suppress(grpc.RpcError):
                for _ in call:
                    pass
        else:
            call = self._channel.unary_unary(path).future(
                raw, metadata=self._headers, timeout=CALL_TIMEOUT_S
            )
            call.exception()  # Waits for the end, whatever it is.
        code = call.code()
        assert code not in FAULTS, f"{path} {code.name}: {call.details()}\n{raw!r}"
        assert is_stream or code is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{path}\n{raw!r}"
        return code


@contextmanager
def wired(world: World) -> Iterator[Wire]:
    with grpc.insecure_channel(f"127.0.0.1:{world.served.port}") as channel:
        yield Wire(channel, world)


async def try_all(world: World, attempt: Callable[[Wire], None]) -> None:
    """Run a test of hypothesis in a thread: the server needs this one."""

    def work() -> None:
        with wired(world) as wire:
            attempt(wire)

    await asyncio.to_thread(work)


async def names_of(world: World, caller: Caller, finished: cluster_pb2.Cluster) -> list[str]:
    """Give what exists: a finished cluster with its run, task, output and input."""
    return [
        finished.cluster_id,
        finished.cluster_name,
        finished.last_run_id,
        finished.last_execution_task_id,
        *finished.input_collections,
    ]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", sorted(METHODS))
async def test_no_message_makes_a_fault(
    world: World, caller: Caller, finished: cluster_pb2.Cluster, path: str
) -> None:
    names = await names_of(world, caller, finished)

    @fuzz
    @given(messages(METHODS[path].input_type, names))
    def send(wire: Wire, request: Message) -> None:
        wire.status_of(path, request.SerializeToString())

    await try_all(world, send)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", sorted(METHODS))
async def test_no_bytes_make_a_fault(
    world: World, caller: Caller, finished: cluster_pb2.Cluster, path: str
) -> None:
    names = await names_of(world, caller, finished)
    request = messages(METHODS[path].input_type, names).map(lambda m: m.SerializeToString())

    @fuzz
    @given(st.one_of(st.binary(max_size=200), request.flatmap(damaged)))
    def send(wire: Wire, raw: bytes) -> None:
        wire.status_of(path, raw)

    await try_all(world, send)


@pytest.mark.timeout(3600)
async def test_no_filter_makes_a_fault_when_it_is_stored(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    base = json_format.ParseDict(body, cluster_requests_pb2.CreateClusterRequest())
    base.execute = False
    seen = set()

    @settings(fuzz, max_examples=10 * N_EXAMPLES)
    @given(FILTERS)
    def send(wire: Wire, filters: dict[str, Any]) -> None:
        request = cluster_requests_pb2.CreateClusterRequest()
        request.CopyFrom(base)
        fill_struct(request.filters, filters)
        seen.add(wire.status_of(CREATE, request.SerializeToString()))

    await try_all(world, send)
    # Good ones and bad ones were among them, or nothing was tested.
    assert seen == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


@pytest.mark.timeout(3600)
async def test_no_filter_makes_a_fault_when_documents_are_checked_by_it(
    world: World, caller: Caller, finished: cluster_pb2.Cluster, products: str
) -> None:
    seen = set()

    @settings(fuzz, max_examples=10 * N_EXAMPLES)
    @given(FILTERS)
    def send(wire: Wire, filters: dict[str, Any]) -> None:
        request = enrichment_pb2.EnrichCollectionRequest(
            cluster_id=finished.cluster_id, collection_id=products
        )
        fill_struct(request.filters, filters)
        seen.add(wire.status_of(ENRICH, request.SerializeToString()))

    await try_all(world, send)
    assert grpc.StatusCode.OK in seen


async def test_deep_and_wide_requests_are_refused_in_time(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    deep: dict[str, Any] = {"field": "category", "value": "a"}
    for _ in range(90):
        deep = {"AND": [deep]}
    wide = {"OR": [{"field": "category", "value": str(n)} for n in range(50_000)]}
    nested: Any = "x"
    for _ in range(90):
        nested = [nested]

    def send(wire: Wire) -> None:
        for filters in (deep, wide, {"field": "category", "operator": "in", "value": nested}):
            request = json_format.ParseDict(body, cluster_requests_pb2.CreateClusterRequest())
            fill_struct(request.filters, filters)
            code = wire.status_of(CREATE, request.SerializeToString())
            assert code is grpc.StatusCode.INVALID_ARGUMENT

    await try_all(world, send)
