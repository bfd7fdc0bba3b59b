"""A connection to a shoal server: the stubs, the caller's headers, and errors in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc
from clusters.v1 import cluster_service_pb2_grpc, task_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc

from server.api.errors import DETAILS_TRAILER
from server.cli.faults import CallFailedError
from server.config import ClientSettings
from server.errors import InvalidRequestError, Violation

CALL_TIMEOUT_S = 60.0

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    # A watch that lost its server tries again this soon, not after a minute.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Finds a dead peer behind a quiet watch.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

_tls_flags: ContextVar[Mapping[str, Path | None]] = ContextVar("tls_flags", default={})  # noqa: B039  # Never changed.


class Connection:
    """Calls to one server, as one caller."""

    def __init__(self, channel: grpc.Channel, target: str, headers: dict[str, str]) -> None:
        self.clusters: Any = cluster_service_pb2_grpc.ClusterServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)
        self.tasks: Any = task_service_pb2_grpc.TaskServiceStub(channel)
        self.target = target
        self._headers = tuple(headers.items())

    def call(self, method: Any, request: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Make a call and give its answer.

        Raises
        ------
        CallFailedError
            With all that the server said.
        """
        try:
            return method(request, timeout=timeout_s, metadata=self._headers)
        except grpc.RpcError as error:
            failure = self._failure(error)
            if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                failure.message = f"{self.target} did not answer within {timeout_s:g} s"
            raise failure from error

    def stream(self, method: Any, request: Any) -> Iterator[Any]:
        """Make a call and give its answers as they come; leaving the loop ends the call."""
        answers = method(request, metadata=self._headers)
        try:
            yield from answers
        except grpc.RpcError as error:
            raise self._failure(error) from error
        finally:
            answers.cancel()

    def _failure(self, error: Any) -> CallFailedError:
        failure = CallFailedError(error.code(), error.details() or error.code().name)
        for name, value in error.trailing_metadata() or ():
            if name == DETAILS_TRAILER:
                _read_details(status_pb2.Status.FromString(value), failure)
        if failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
            # gRPC's own words; those of a server whose store is away carry a reason.
            failure.message = (
                f"no shoal server answers at {self.target} ({failure.message}); start one with "
                "`shoal serve --dev`, or name another with --server HOST:PORT; one that serves "
                "TLS with https://HOST:PORT, and its authority with --tls-ca"
            )
        return failure


def _read_details(status: status_pb2.Status, failure: CallFailedError) -> None:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            failure.reason = info.reason
        if detail.Unpack(request):
            failure.violations = [
                Violation(found.field, found.description) for found in request.field_violations
            ]
        if detail.Unpack(retry):
            failure.retry_after_s = retry.retry_delay.ToMilliseconds() / 1000


def use_tls(**files: Path | None) -> None:
    """Note the TLS files that the command line names, for every connection of this command."""
    _tls_flags.set(files)


@contextmanager
def connect(server: str | None, key: str | None, namespace: str | None) -> Iterator[Connection]:
    """Open a connection; what is None comes from the environment, then from the defaults."""
    settings = client_settings(server=server, key=key, namespace=namespace)
    headers = {}
    if settings.key is not None:
        headers["authorization"] = f"Bearer {settings.key.get_secret_value()}"
    if settings.namespace is not None:
        headers["x-namespace"] = settings.namespace
    unfit = [name for name, value in headers.items() if not value.isascii()]
    if unfit:
        raise InvalidRequestError([Violation(name, "ASCII only is allowed") for name in unfit])
    with _channel(settings) as channel:
        yield Connection(channel, settings.server, headers)


def client_settings(**flags: str | None) -> ClientSettings:
    """Give the settings of a client command; flags that are not None win."""
    named = {**flags, **_tls_flags.get()}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    return ClientSettings(**given)


def target_of(settings: ClientSettings) -> tuple[str, bool]:
    """Give a server's host:port, and whether it is reached over TLS.

    That is where its address says https://, or an authority is named.

    Raises
    ------
    InvalidRequestError
        If the address or the files do not say where to go, and as whom.
    """
    scheme, _, rest = settings.server.rpartition("://")
    target = rest.rstrip("/")
    if scheme not in ("", "http", "https"):
        raise InvalidRequestError(
            [Violation("--server", f"{settings.server!r} is not HOST:PORT or https://HOST:PORT")]
        )
    is_encrypted = scheme == "https" or (scheme == "" and settings.tls_ca is not None)
    if is_encrypted and (settings.client_cert is None) != (settings.client_key is None):
        raise InvalidRequestError(
            [Violation("--client-cert", "goes together with --client-key; send both or neither")]
        )
    return target, is_encrypted


def _channel(settings: ClientSettings) -> grpc.Channel:
    target, is_encrypted = target_of(settings)
    if not is_encrypted:
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        _pem("--tls-ca", settings.tls_ca),
        _pem("--client-key", settings.client_key),
        _pem("--client-cert", settings.client_cert),
    )
    return grpc.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)


def _pem(option: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        told = f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        raise InvalidRequestError([Violation(option, told)]) from error
