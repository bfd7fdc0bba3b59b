"""Where a Qdrant is, and clients connected to it. Only gRPC is spoken, never REST.

An address travels to worker processes, so it is a plain picklable value; every process
opens its own connection from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from server.errors import InvalidRequestError, ShoalError, Violation
from server.qdrant.errors import (
    CollectionNotFoundError,
    QdrantRefusedError,
    QdrantUnavailableError,
)
from server.qdrant.shared import AsyncSharingClient, SharingClient

DEFAULT_GRPC_PORT = 6334
DEFAULT_REST_PORT = 6333

# A scroll page of 2 500 points at 3 072 dimensions is 30 MB; gRPC's own limit is 4 MB.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # gRPC's own waits grow to two minutes: a Qdrant that is back would still seem away.
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

UNAVAILABLE_CODES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # Not by us: a server that stops cancels what it has not answered.
)


@dataclass(frozen=True)
class QdrantAddress:
    """Where a Qdrant answers gRPC, and what it wants to see.

    Attributes
    ----------
    host : str
        Name or IP address.
    grpc_port : int
        Qdrant's gRPC port (not the REST port).
    api_key : str or None
        Sent as `api-key` metadata with every call. Never shown by repr.
    tls : bool
        Whether the connection is encrypted.
    timeout_s : int
        Seconds a call may take.
    """

    host: str
    grpc_port: int = DEFAULT_GRPC_PORT
    api_key: str | None = field(default=None, repr=False)
    tls: bool = False
    timeout_s: int = 60

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: int = 60,
        grpc_port: int | None = None,
    ) -> QdrantAddress:
        """Read an address from a URL such as ``http://host:6334``.

        The port of the URL is the gRPC port. The exception is 6333, Qdrant's REST port,
        which people copy from their dashboards: it stands for the gRPC port beside it,
        6334. No port means 6334. `grpc_port`, when given, wins over the URL.

        Raises
        ------
        InvalidRequestError
            If the scheme is not http, https, grpc or grpcs, or there is no host.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError as error:
            raise _bad_url(f"the port is not a number from 0 to 65535: {error}") from error
        if parts.scheme not in ("http", "https", "grpc", "grpcs"):
            raise _bad_url(f"scheme {parts.scheme!r} is not one of http, https, grpc, grpcs")
        if not parts.hostname:
            raise _bad_url("the URL names no host")
        if port is None or port == DEFAULT_REST_PORT:
            port = DEFAULT_GRPC_PORT
        return cls(
            host=parts.hostname,
            grpc_port=grpc_port or port,
            api_key=api_key,
            tls=parts.scheme in ("https", "grpcs"),
            timeout_s=timeout_s,
        )

    @property
    def target(self) -> str:
        """``host:port`` as gRPC wants it, with brackets around an IPv6 host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.grpc_port}"

    def metadata(self) -> list[tuple[str, str]]:
        """Metadata that every raw gRPC call must carry."""
        return [] if self.api_key is None else [("api-key", self.api_key)]


def _bad_url(description: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("qdrant_url", description)])


def _client_arguments(address: QdrantAddress) -> dict[str, Any]:
    # The key goes in as a header: qdrant-client's own `api_key` argument warns on every
    # plain connection, also on loopback.
    return {
        "host": address.host,
        "port": address.grpc_port,
        "grpc_port": address.grpc_port,
        "prefer_grpc": True,
        "https": address.tls,
        "timeout": address.timeout_s,
        "headers": dict(address.metadata()) or None,
        "grpc_options": dict(CHANNEL_OPTIONS),
        "check_compatibility": False,
        "pool_size": 1,
    }


def connect(address: QdrantAddress) -> SharingClient:
    """Open a blocking client; the connection is made with the first call."""
    return SharingClient(**_client_arguments(address))


def connect_async(address: QdrantAddress) -> AsyncSharingClient:
    """Open an asyncio client; the connection is made with the first call."""
    return AsyncSharingClient(**_client_arguments(address))


def channel(address: QdrantAddress) -> grpc.Channel:
    """Open a raw blocking channel, for calls that read bytes instead of models.

    Calls on it must carry ``metadata=address.metadata()``.
    """
    if address.tls:
        return grpc.secure_channel(
            address.target, grpc.ssl_channel_credentials(), options=CHANNEL_OPTIONS
        )
    return grpc.insecure_channel(address.target, options=CHANNEL_OPTIONS)


def translated(error: Exception, *, collection: str | None = None) -> ShoalError:
    """Turn an exception of a Qdrant call into one of ours.

    Parameters
    ----------
    error : Exception
        From qdrant-client or grpc.
    collection : str or None
        The collection that the call was about, for the message of a NOT_FOUND.
    """
    if isinstance(error, ShoalError):
        return error
    if isinstance(error, grpc.RpcError):
        return _from_status(error, collection)
    if isinstance(error, UnexpectedResponse):
        return QdrantRefusedError(f"Qdrant refused: {error}", code=error.status_code)
    if isinstance(error, (ResponseHandlingException, OSError)):
        return QdrantUnavailableError(f"Qdrant does not answer: {error}")
    return QdrantRefusedError(f"Qdrant call failed: {error}", code=type(error).__name__)


def _from_status(error: grpc.RpcError, collection: str | None) -> ShoalError:
    code = error.code() if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)) else None
    details = error.details() if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)) else None
    if code in UNAVAILABLE_CODES:
        return QdrantUnavailableError(f"Qdrant does not answer: {details or code}")
    # Qdrant says NOT_FOUND for missing points too; its own words tell which.
    is_collection = "collection" in (details or "").lower()
    if code is grpc.StatusCode.NOT_FOUND and collection is not None and is_collection:
        return CollectionNotFoundError(collection)
    name = code.name if code is not None else "UNKNOWN"
    return QdrantRefusedError(f"Qdrant refused ({name}): {details}", code=name)


@contextmanager
def qdrant_errors(collection: str | None = None) -> Iterator[None]:
    """Translate every Qdrant or transport exception raised in the block.

    Also around ``await`` expressions: a plain ``with`` works in coroutines.
    """
    try:
        yield
    except (grpc.RpcError, UnexpectedResponse, ResponseHandlingException) as error:
        raise translated(error, collection=collection) from error
