"""A Qdrant that fails as a test says: a loopback server in front of a real one.

Every call is passed on as bytes, so whatever speaks Qdrant's protocol works through it. A
test names a method and what shall happen to its next calls:

    proxy.next("Scroll", None, refuse(grpc.StatusCode.UNAVAILABLE), None)
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import Any

import grpc
from qdrant_client import grpc as pb

from server.qdrant.client import QdrantAddress, channel

Forward = Callable[[], bytes]
Fault = Callable[[Forward, grpc.ServicerContext], bytes]


def refuse(code: grpc.StatusCode) -> Fault:
    """Answer with a status instead."""

    def fault(_: Forward, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "injected")
        raise AssertionError

    return fault


def hang(forward: Forward, context: grpc.ServicerContext) -> bytes:
    """Say nothing until the caller gives up."""
    given_up = threading.Event()
    if context.add_callback(given_up.set):
        given_up.wait()
    return b""


def slow(seconds: float) -> Fault:
    """Answer rightly, but late."""

    def fault(forward: Forward, _: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        return forward()

    return fault


def lose_answer(forward: Forward, context: grpc.ServicerContext) -> bytes:
    """Let the call take effect and lose its answer."""
    forward()
    context.abort(grpc.StatusCode.UNAVAILABLE, "injected: the answer was lost")
    raise AssertionError


def cut(forward: Forward, _: grpc.ServicerContext) -> bytes:
    """Give the first half of the answer's bytes."""
    answer = forward()
    return answer[: len(answer) // 2]


def short_page(n_points: int) -> Fault:
    """Give fewer points of a page than were asked for, and where to go on."""

    def fault(forward: Forward, _: grpc.ServicerContext) -> bytes:
        page = pb.ScrollResponse.FromString(forward())
        if len(page.result) > n_points:
            page.next_page_offset.CopyFrom(page.result[n_points].id)
            del page.result[n_points:]
        return bytes(page.SerializeToString())

    return fault


class QdrantProxy(grpc.GenericRpcHandler):
    """Stands in front of a Qdrant, on a port of its own that stays when it is stopped."""

    def __init__(self, target: QdrantAddress) -> None:
        self.target = target
        self.calls: dict[str, int] = defaultdict(int)
        self._faults: dict[str, list[Fault | None]] = {}
        self._lock = threading.Lock()
        self._port = 0
        self.start()

    @property
    def address(self) -> QdrantAddress:
        return QdrantAddress("127.0.0.1", self._port)

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._wire = channel(self.target)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(16),
            handlers=[self],
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self) -> None:
        """Go away: connections are cut and new ones refused."""
        self._server.stop(None).wait()
        self._wire.close()

    def next(self, method: str, *faults: Fault | None) -> None:
        """Say what happens to the next calls of a method; None passes one on."""
        with self._lock:
            self._faults[method] = list(faults)

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(partial(self._call, handler_call_details.method))

    def _call(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        method = path.rpartition("/")[2]
        with self._lock:
            self.calls[method] += 1
            faults = self._faults.get(method)
            fault = faults.pop(0) if faults else None
        forward = partial(self._forward, path, request, context)
        return forward() if fault is None else fault(forward, context)

    def _forward(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            answer: bytes = self._wire.unary_unary(path)(
                request, timeout=context.time_remaining(), metadata=self.target.metadata()
            )
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return answer
