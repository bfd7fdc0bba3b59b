"""Errors in the form that REST callers get: a JSON body, an HTTP status, and when to try again.

The gateway marks the calls it makes (`GATEWAY_HEADER`). For those a failed call carries its
REST form in headers, and the gateway makes the answer of them as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from server.api.errors import Answer

GATEWAY_HEADER = "x-shoal-gateway"
STATUS_HEADER = "x-rest-status"
BODY_HEADER = "x-rest-body"

HTTP_OF: dict[grpc.StatusCode, tuple[int, str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (422, "ValidationError"),
    grpc.StatusCode.UNAUTHENTICATED: (401, "UnauthorizedError"),
    grpc.StatusCode.PERMISSION_DENIED: (403, "ForbiddenError"),
    grpc.StatusCode.NOT_FOUND: (404, "NotFoundError"),
    grpc.StatusCode.ALREADY_EXISTS: (409, "ConflictError"),
    grpc.StatusCode.ABORTED: (409, "ConflictError"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "ConflictError"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "TooManyRequestsError"),
    grpc.StatusCode.UNAVAILABLE: (503, "ServiceUnavailableError"),
    # No call of ours is unimplemented: this is a path that has others methods than the one sent.
    grpc.StatusCode.UNIMPLEMENTED: (405, "MethodNotAllowedError"),
}
"""HTTP status and `error.type` of each status that callers can do something about."""

_INTERNAL = (500, "InternalError")


@dataclass(frozen=True)
class RestAnswer:
    """A failed REST call.

    Attributes
    ----------
    body : str
        JSON in ASCII, so that it may travel as a header.
    headers : tuple of (str, str)
        Besides content-type.
    """

    status: int
    body: str
    headers: tuple[tuple[str, str], ...]

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """The form in which a failed gRPC call carries this answer to the gateway."""
        return ((STATUS_HEADER, str(self.status)), (BODY_HEADER, self.body), *self.headers)


def is_from_gateway(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Whether a gRPC call was made by the gateway for a REST caller."""
    return any(name == GATEWAY_HEADER for name, _ in metadata)


def rest_answer(answer: Answer) -> RestAnswer:
    """Put an error's status and details into their REST form."""
    status, kind = HTTP_OF.get(answer.code, _INTERNAL)
    info = error_details_pb2.ErrorInfo()
    _unpack(answer.status, info)
    details: dict[str, Any] = dict(info.metadata)
    headers: list[tuple[str, str]] = []
    bad_request = error_details_pb2.BadRequest()
    if _unpack(answer.status, bad_request):
        details["violations"] = [
            {"field": violation.field, "description": violation.description}
            for violation in bad_request.field_violations
        ]
    retry = error_details_pb2.RetryInfo()
    if _unpack(answer.status, retry):
        details["retry_after_s"] = retry.retry_delay.ToMilliseconds() / 1000
        headers.append(("retry-after", str(math.ceil(details["retry_after_s"]))))
    if "allow" in info.metadata:
        headers.append(("allow", info.metadata["allow"]))
    if status == 401:
        headers.append(("www-authenticate", "Bearer"))
    error = {"message": answer.message, "type": kind, "code": info.reason, "details": details}
    body = json.dumps({"success": False, "status": status, "error": error})
    return RestAnswer(status, body, tuple(headers))


def _unpack(status: status_pb2.Status, detail: Message) -> bool:
    """Fill `detail` from the status's detail of that type; whether there is one."""
    return any(packed.Unpack(detail) for packed in status.details)
