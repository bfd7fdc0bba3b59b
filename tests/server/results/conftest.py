"""The session's Qdrant, and a small run's results to keep."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest
from qdrant_client import QdrantClient
from qdrant_fixtures import *  # noqa: F403

from server.jobs.model import OutputCollection
from server.qdrant.client import QdrantAddress, channel, connect
from server.results.outputs import remove_outputs


@pytest.fixture
def output(client: QdrantClient) -> Iterator[OutputCollection]:
    """An output collection that nobody else uses; all of it is removed at the end."""
    name = f"out-{uuid.uuid4().hex[:12]}"
    planned = OutputCollection(collection_id=name, name=name, generation=f"{name}.run_1")
    yield planned
    remove_outputs(client, planned)


@dataclass
class Between(grpc.GenericRpcHandler):
    """A real server between client and Qdrant, that stumbles or acts when it is told to.

    Attributes
    ----------
    before, after : dict of str to list of callables
        By method, such as ``/qdrant.Points/UpdateBatch``: each is called once with the
        call's context, before or after Qdrant had the request.
    requests : dict of str to list of bytes
        What was sent, by method.
    """

    upstream: grpc.Channel
    metadata: list[tuple[str, str]]
    before: dict[str, list[Callable[[grpc.ServicerContext], object]]] = field(default_factory=dict)
    after: dict[str, list[Callable[[grpc.ServicerContext], object]]] = field(default_factory=dict)
    requests: dict[str, list[bytes]] = field(default_factory=dict)

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Pass any unary call on as bytes."""
        method = call.method

        def forward(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.requests.setdefault(method, []).append(request)
            self._act(self.before, method, context)
            try:
                answer = self.upstream.unary_unary(method)(request, metadata=self.metadata)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            self._act(self.after, method, context)
            return answer

        return grpc.unary_unary_rpc_method_handler(forward)

    def _act(self, acts, method, context) -> None:
        if acts.get(method):
            acts[method].pop(0)(context)


@pytest.fixture
def between(qdrant_address: QdrantAddress) -> Iterator[Between]:
    """A proxy in front of the session's Qdrant; `client_between` is connected to it."""
    with channel(qdrant_address) as upstream:
        yield Between(upstream, qdrant_address.metadata())


@pytest.fixture
def client_between(between: Between) -> Iterator[QdrantClient]:
    """A client that reaches Qdrant through `between`."""
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([between])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    opened = connect(QdrantAddress("127.0.0.1", grpc_port=port))
    yield opened
    opened.close()
    server.stop(None).wait()
