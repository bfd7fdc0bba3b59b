"""The gRPC server: its services, limits and connections. What they do is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import grpc
from clusters.v1 import (
    cluster_service_pb2,
    cluster_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server.api.reflection import CommentedPool
from server.errors import PreconditionError

MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_KEEPALIVE_OPTIONS: tuple[tuple[str, int], ...] = (
    # A watch may be quiet for 15 s at a time and open for hours: find dead peers, and let
    # clients ask whether we live without being cut off for it.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class ListenError(PreconditionError):
    """The address cannot be listened on: it is taken, or not one of this machine's."""

    reason = "LISTEN_FAILED"


@dataclass(frozen=True)
class Services:
    """What the server serves beside health and reflection."""

    clusters: cluster_service_pb2_grpc.ClusterServiceServicer
    tasks: task_service_pb2_grpc.TaskServiceServicer


class Probes(Protocol):
    """What the health service is told (the packaged stubs lack its async form)."""

    async def set(self, service: str, status: Any) -> None:
        """Say how a service is."""

    async def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING for every service from now on, whatever else is set."""


class GrpcServer(NamedTuple):
    """A server that listens on `port` and is not started yet.

    Before `server.stop(grace)`, `health.enter_graceful_shutdown()` tells probes and
    balancers to send no more calls.
    """

    server: grpc.aio.Server
    port: int
    health: Probes


def service_names() -> tuple[str, ...]:
    """Give the full names of our own services."""
    return tuple(
        pb.DESCRIPTOR.services_by_name[name].full_name
        for pb, name in (
            (cluster_service_pb2, "ClusterService"),
            (task_service_pb2, "TaskService"),
        )
    )


async def build_grpc_server(
    services: Services,
    *,
    listen: str,
    credentials: grpc.ServerCredentials | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    interceptors: Sequence[Any] = (),
    more: Sequence[grpc.GenericRpcHandler[Any, Any]] = (),
) -> GrpcServer:
    """Build the server and take its port; call `start` on it.

    Parameters
    ----------
    listen : str
        ``host:port``; port 0 takes a free one.
    credentials : grpc.ServerCredentials, optional
        The server's TLS identity (`api/tls.py`); without one nothing is encrypted.
    max_message_bytes : int
        Largest request; above it gRPC itself answers RESOURCE_EXHAUSTED.
    more : sequence of grpc.GenericRpcHandler
        Served beside the services, without being listed by reflection.

    Raises
    ------
    ListenError
        If the address cannot be listened on.
    """
    server = grpc.aio.server(
        interceptors=interceptors,
        options=(
            ("grpc.max_receive_message_length", max_message_bytes),
            # Else Linux lets a second server share the port and take half of the calls.
            ("grpc.so_reuseport", 0),
            *_KEEPALIVE_OPTIONS,
        ),
    )
    cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(services.clusters, server)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(services.tasks, server)
    probes: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(probes, server)
    server.add_generic_rpc_handlers(tuple(more))
    names = (*service_names(), health.SERVICE_NAME)
    pool: Any = CommentedPool()
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server, pool=pool)
    port = _bind(server, listen, credentials)
    for name in (health.OVERALL_HEALTH, *names):
        await probes.set(name, health_pb2.HealthCheckResponse.SERVING)
    return GrpcServer(server, port, probes)


def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise _cannot_listen(listen) from error
    if port == 0:
        raise _cannot_listen(listen)
    return port


def _cannot_listen(listen: str) -> ListenError:
    return ListenError(
        f"cannot listen on {listen}: the port is taken, or the address is not one of this "
        "machine's; choose another with --listen HOST:PORT",
        listen=listen,
    )
