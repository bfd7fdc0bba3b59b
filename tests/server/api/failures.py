"""Reads the details of a failed call."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Failure:
    """How a call failed, as its caller sees it."""

    code: grpc.StatusCode
    message: str
    status: status_pb2.Status

    def detail(self, kind: type[M]) -> M:
        """Unpack the one detail of a type."""
        found = [detail for detail in self.status.details if detail.Is(kind.DESCRIPTOR)]
        assert len(found) == 1, f"{len(found)} details are {kind.DESCRIPTOR.full_name}"
        unpacked = kind()
        found[0].Unpack(unpacked)
        return unpacked

    @property
    def reason(self) -> str:
        """The stable reason of the ErrorInfo."""
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "shoal"
        return info.reason

    @property
    def violations(self) -> dict[str, str]:
        """Description by path."""
        found = self.detail(error_details_pb2.BadRequest).field_violations
        return {violation.field: violation.description for violation in found}


def read_failure(error: grpc.aio.AioRpcError) -> Failure:
    """Read the status and its details from what a client raised."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status()
    status.ParseFromString(trailers.get("grpc-status-details-bin", b""))
    return Failure(error.code(), error.details() or "", status)


async def failure_of(call: Awaitable[Any]) -> Failure:
    """Await a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_failure(caught.value)
