"""From our errors to gRPC: the one table of statuses, and the details that go with them.

The details travel as `google.rpc.Status` in the trailer ``grpc-status-details-bin``, where
every gRPC client library and the gateway look for them. Clients refuse trailers above
8 KiB, so a long list of violations is cut and says how many were left out.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from server.api.convert.values import DOMAIN
from server.api.rest.routes import MethodNotAllowedError
from server.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    QuotaError,
    RunFailure,
    ShoalError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from server.jobs.moves import LeaseLostError
from server.results.failures import ArtifactError
from server.stores.documents import UnreadableRecordError

DETAILS_TRAILER = "grpc-status-details-bin"
MAX_MESSAGE_BYTES = 1_000
"""Of the percent-encoded text that travels as ``grpc-message``."""
MAX_VIOLATIONS_BYTES = 2_400
"""Of the violations; with base64, message and facts the trailers stay below 8 KiB."""
MAX_DESCRIPTION_BYTES = 400
MAX_FACT_BYTES = 100
MAX_FACTS = 8
_PLAIN = string.printable.replace("%", "")


STATUS_OF: dict[type[ShoalError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    QuotaError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    ConflictError: grpc.StatusCode.ABORTED,
    MethodNotAllowedError: grpc.StatusCode.UNIMPLEMENTED,
    LeaseLostError: grpc.StatusCode.ABORTED,
    # Nothing the caller sent is wrong, and nothing the caller does will mend it.
    UnreadableRecordError: grpc.StatusCode.INTERNAL,
    ArtifactError: grpc.StatusCode.INTERNAL,
    # These end runs, not calls: a call that meets one has a fault of ours.
    RunFailure: grpc.StatusCode.INTERNAL,
}
"""The status of each class and of those derived from it, unless they have their own row."""


@dataclass(frozen=True)
class Answer:
    """How a failed call ends."""

    code: grpc.StatusCode
    status: status_pb2.Status

    @property
    def message(self) -> str:
        """What happened, for people."""
        return str(self.status.message)

    @property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """What ``context.abort`` sends along: the serialized `google.rpc.Status`."""
        return ((DETAILS_TRAILER, self.status.SerializeToString()),)


def status_of(kind: type[ShoalError]) -> grpc.StatusCode:
    """Look a class up in the table, then its bases from the nearest on.

    Raises
    ------
    LookupError
        If neither it nor a base has a row.
    """
    for base in kind.__mro__:
        if base in STATUS_OF:
            return STATUS_OF[base]
    raise LookupError(f"{kind.__qualname__} has no gRPC status; add it to STATUS_OF")


def answer_to(error: ShoalError) -> Answer:
    """Give the status, message and details that a caller gets for one of our errors."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={
            name: _cut(value, MAX_FACT_BYTES)
            for name, value in islice(error.metadata.items(), MAX_FACTS)
        },
    )
    return _answer(status_of(type(error)), error.message, [info, *_details(error)])


def is_ours_to_mend(error: Exception) -> bool:
    """Whether a call failed by a fault of the server, whose inside no caller shall see."""
    if not isinstance(error, ShoalError):
        return True
    try:
        return status_of(type(error)) is grpc.StatusCode.INTERNAL
    except LookupError:
        return True


def shown_message(error: Exception, instead: str) -> str:
    """Say why a stream breaks off, or something else where that is nobody's business."""
    if isinstance(error, ShoalError) and not is_ours_to_mend(error):
        return error.message
    return instead


def shown_info(error: Exception) -> error_details_pb2.ErrorInfo:
    """Say the same for programs."""
    reason = error.reason if isinstance(error, ShoalError) else ShoalError.reason
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)


def internal_answer(error: Exception, error_id: str) -> Answer:
    """Give the answer to a fault of ours: its reason, and an id that the log has too."""
    reason = error.reason if isinstance(error, ShoalError) else ShoalError.reason
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={"error_id": error_id}
    )
    return _answer(
        grpc.StatusCode.INTERNAL,
        f"internal error {error_id}; the server's log has the details under this id",
        [info],
    )


def _answer(code: grpc.StatusCode, message: str, details: Sequence[Message]) -> Answer:
    text = _shortened(message)
    # A status code's value is its number and its name.
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return Answer(code, status)


def _details(error: ShoalError) -> Iterator[Message]:
    if isinstance(error, InvalidRequestError):
        yield _bad_request(error.violations)
    if isinstance(error, NotFoundError):
        yield error_details_pb2.ResourceInfo(
            resource_type=error.kind,
            resource_name=_cut(error.name, MAX_FACT_BYTES),
            description=_cut(error.message, MAX_DESCRIPTION_BYTES),
        )
    if isinstance(error, QuotaError | UnavailableError):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        yield retry
    if isinstance(error, PreconditionError):
        state = error.metadata.get("status") or error.metadata.get("state") or "unknown"
        subject = error.metadata.get("run_id") or error.metadata.get("cluster_id") or ""
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(
                    type=error.reason, subject=subject, description=f"state: {state}"
                )
            ]
        )


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    found = error_details_pb2.BadRequest()
    for position, violation in enumerate(violations):
        field = found.field_violations.add(
            field=_cut(violation.field, MAX_FACT_BYTES),
            description=_cut(violation.description, MAX_DESCRIPTION_BYTES),
        )
        if found.ByteSize() > MAX_VIOLATIONS_BYTES and position:
            field.field = "request"
            field.description = f"and {len(violations) - position} more"
            break
    return found


def _cut(text: str, max_bytes: int) -> str:
    """Cut a text to so many bytes of UTF-8."""
    raw = text[: max_bytes + 1].encode()
    if len(raw) <= max_bytes:
        return text
    return raw[: max_bytes - 3].decode(errors="ignore") + "..."


def _shortened(text: str) -> str:
    """Cut a text so that its percent-encoded form stays within `MAX_MESSAGE_BYTES`."""
    kept = _cut(text, MAX_MESSAGE_BYTES)
    while len(quote(kept, safe=_PLAIN)) > MAX_MESSAGE_BYTES:
        # A byte takes three at most, so a few rounds do.
        kept = _cut(kept, len(kept.encode()) * 3 // 4)
    return kept
