"""What the embedded server refuses, each with the gRPC status that Qdrant would send."""

from __future__ import annotations

from typing import ClassVar

import grpc


class RequestRefusedError(Exception):
    """Base: an error that ends one call, with the status it ends with."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL


class BadRequestError(RequestRefusedError):
    """The request is wrong: sizes, names, ids, filters."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class MissingError(RequestRefusedError):
    """What the request names is not there."""

    code = grpc.StatusCode.NOT_FOUND


class TakenError(RequestRefusedError):
    """The name is in use."""

    code = grpc.StatusCode.ALREADY_EXISTS


class UnsupportedError(RequestRefusedError):
    """Real Qdrant can do this, the embedded one cannot; named, never ignored."""

    code = grpc.StatusCode.UNIMPLEMENTED


class EngineError(RequestRefusedError):
    """Edge failed in a way that is not the caller's doing."""


def missing_collection(name: str) -> MissingError:
    """Qdrant's own words for a collection that is not there."""
    return MissingError(f"Not found: Collection `{name}` doesn't exist!")


def from_edge(error: BaseException) -> RequestRefusedError:
    """Sort an Edge exception: plain `Exception` or ValueError, told apart by their text only.

    Anything else is a fault of this server, or a panic of Edge's.
    """
    text = str(error)
    if type(error) is not Exception and not isinstance(error, ValueError):
        return EngineError(f"Service internal error: {type(error).__name__}: {text}")
    if text.startswith("No point with id"):
        return MissingError(f"Not found: {text} found")
    if text.startswith("Service "):
        return EngineError(text)
    return BadRequestError(f"Wrong input: {text}")
