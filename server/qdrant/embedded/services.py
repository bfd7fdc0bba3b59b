"""The gRPC server: the services, the key check, and errors turned into statuses."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeAlias

import grpc
from qdrant_client import grpc as pb

from server.qdrant.client import CHANNEL_OPTIONS
from server.qdrant.embedded.collections import CollectionsService, HealthService
from server.qdrant.embedded.errors import RequestRefusedError, from_edge
from server.qdrant.embedded.points import PointsService
from server.qdrant.embedded.storage import Storage

log = logging.getLogger(__name__)

# Calls wait for each other at most at a shard's write lock; a few more than clients have.
WORKER_THREADS = 16

Behavior = Callable[[Any, grpc.ServicerContext], Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallGuard(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Around every call: the key must fit, and exceptions become gRPC statuses."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        behavior: Behavior = _refuse_key
        if self._is_allowed(handler_call_details):
            behavior = _guarded(handler.unary_unary, handler_call_details.method)
        return grpc.unary_unary_rpc_method_handler(
            behavior, handler.request_deserializer, handler.response_serializer
        )

    def _is_allowed(self, details: grpc.HandlerCallDetails) -> bool:
        if self._api_key is None:
            return True
        sent = dict(details.invocation_metadata).get("api-key", "")
        return hmac.compare_digest(str(sent).encode(), self._api_key.encode())


def _refuse_key(request: Any, context: grpc.ServicerContext) -> NoReturn:
    context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "the embedded Qdrant wants the api-key from its address file",
    )


def _guarded(behavior: Behavior, method: str) -> Behavior:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behavior(request, context)
        except RequestRefusedError as error:
            context.abort(error.code, str(error))
        except NotImplementedError:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"{method} is not supported by the embedded Qdrant",
            )
        except BaseException as error:
            # A panic inside Edge is a BaseException; let through, it would leave the caller
            # without an answer until its deadline.
            refused = from_edge(error)
            if refused.code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed", method)
            context.abort(refused.code, str(refused))

    return call


def serve(storage: Storage, *, host: str, port: int, api_key: str | None) -> tuple[Any, int]:
    """Start the server; returns it and the port that it listens on.

    Raises
    ------
    OSError
        If the port cannot be had.
    """
    server = grpc.server(
        ThreadPoolExecutor(WORKER_THREADS, thread_name_prefix="qdrant"),
        interceptors=[CallGuard(api_key)],
        # Two servers on one port would each get a share of the calls.
        options=(*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)),
    )
    pb.add_PointsServicer_to_server(PointsService(storage), server)  # type: ignore[no-untyped-call]
    pb.add_CollectionsServicer_to_server(CollectionsService(storage), server)  # type: ignore[no-untyped-call]
    pb.add_SnapshotsServicer_to_server(pb.SnapshotsServicer(), server)  # type: ignore[no-untyped-call]
    pb.add_QdrantServicer_to_server(HealthService(), server)  # type: ignore[no-untyped-call]
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}") from error
    server.start()
    return server, bound
