"""What the gateway asks before it translates a REST request: shall it go on?

Envoy calls this with the request as it was sent (its filter ``ext_authz``). So the key is
checked first, and then every name in path, query and body, of which the call itself will see
only those that the protos know. A refusal carries the answer that the REST caller gets.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

import grpc
from clusters.gateway.v1 import external_check_pb2 as pb

from server.api.auth import Credentials, Gate
from server.api.convert.requests import IDEMPOTENCY_HEADER
from server.api.errors import Answer, answer_to, internal_answer, is_ours_to_mend
from server.api.rest.errors import rest_answer
from server.api.rest.requests import check_request
from server.api.rest.routes import Routes
from server.errors import InvalidRequestError, ShoalError, Violation
from server.jobs.ids import new_id

SERVICE = "envoy.service.auth.v3.Authorization"
"""The name under which Envoy calls; its messages are Envoy's in part (see the proto)."""

SMALL_BODY_BYTES = 64 * 1024
"""Above it a body is read in a thread: other calls go on meanwhile."""

READ_HEADERS = ("authorization", "x-namespace", IDEMPOTENCY_HEADER)
"""Headers that calls read."""

_METADATA_NAME = re.compile(r"[0-9a-z_.-]+(?<!-bin)")
_METADATA_VALUE = re.compile(r"[ -~]*")

Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


class GatewayChecks:
    """Answers Envoy, for calls that the gate admits."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._routes = Routes()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """Give what a gRPC server is to serve."""
        check = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=pb.CheckRequest.FromString,
            response_serializer=pb.CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check})

    async def check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        """Let a request go on, or say what its caller gets instead."""
        http = request.attributes.request.http
        try:
            await self._check(http, context.peer())
        except Exception as error:
            return _denied(_answer(error))
        response = pb.CheckResponse()
        response.ok_response.headers_to_remove.extend(
            name for name, value in http.headers.items() if not is_metadata(name, value)
        )
        return response

    async def _check(self, http: pb.AttributeContext.HttpRequest, peer: str) -> None:
        path, _, query = http.path.partition("?")
        route = self._routes.find(http.method, path)
        # The peer is the gateway: what the request says of its sender anybody could write.
        await self._gate.check(route.rpc, Credentials.of(http.headers.items(), peer))
        _require_metadata(http.headers)
        if len(http.raw_body) > SMALL_BODY_BYTES:
            await asyncio.to_thread(check_request, route, path, query, http.raw_body)
        else:
            check_request(route, path, query, http.raw_body)


def is_metadata(name: str, value: str) -> bool:
    """Whether a header can go on as gRPC metadata, which would end the call if it cannot."""
    if name.startswith(":"):
        return True
    return bool(_METADATA_NAME.fullmatch(name)) and bool(_METADATA_VALUE.fullmatch(value))


def _require_metadata(headers: Mapping[str, str]) -> None:
    """Refuse a header that the call would miss; others that cannot go on are left out."""
    for name in READ_HEADERS:
        if name in headers and not is_metadata(name, headers[name]):
            raise InvalidRequestError(
                [Violation(name, f"sent {headers[name]!r}; printable ASCII is allowed")]
            )


def _answer(error: Exception) -> Answer:
    if isinstance(error, ShoalError) and not is_ours_to_mend(error):
        return answer_to(error)
    error_id = new_id("err")
    _log.error("a REST request's check failed with %s", error_id, exc_info=error)
    return internal_answer(error, error_id)


def _denied(answer: Answer) -> pb.CheckResponse:
    rest = rest_answer(answer)
    response = pb.CheckResponse()
    response.status.code = answer.status.code
    response.denied_response.status.code = rest.status
    response.denied_response.body = rest.body
    for name, value in rest.headers:
        response.denied_response.headers.add(header=pb.HeaderValue(key=name, value=value))
    return response
