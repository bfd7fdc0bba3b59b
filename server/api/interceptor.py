"""What every call shares: its caller, its errors, its line in the log, its numbers and span.

One interceptor for unary and streaming answers. It also reads the request, so that one
that is no protobuf gets an error with details like any other fault.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server import tracing
from server.api.auth import Credentials, Gate, is_open
from server.api.errors import Answer, answer_to, internal_answer, is_ours_to_mend
from server.api.rest.errors import is_from_gateway, rest_answer
from server.errors import InvalidRequestError, ShoalError, Violation
from server.jobs.ids import new_id
from server.metrics import Metrics
from server.tenancy import Caller
from server.tracing import Tracing, trace_id_of

REQUEST_ID_TRAILER = "x-request-id"

RECHECK_S = 10.0
"""Seconds after which an open stream's key is looked up again before anything more is sent."""

Context = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[
    [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
]

_log = logging.getLogger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Admits calls by a gate and ends each with a status that its caller can use."""

    def __init__(
        self,
        gate: Gate,
        *,
        metrics: Metrics | None = None,
        traces: Tracing = tracing.OFF,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._gate = gate
        self._metrics = metrics or Metrics()
        self._tracing = traces
        self._recheck_s = recheck_s

    async def intercept_service(  # type: ignore[override]
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call; open services and unknown methods pass as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or is_open(method):
            return handler
        # Without a deserializer the wrapped handler gets the bytes, and its faults are ours.
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler), None, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler), None, handler.response_serializer
        )

    def _unary(self, method: str, handler: Any) -> Callable[[bytes, Context], Awaitable[Any]]:
        async def serve(raw: bytes, context: Context) -> Any:
            async with self._call(method, context, is_stream=False):
                return await handler.unary_unary(_read(handler, raw), context)

        return serve

    def _streaming(
        self, method: str, handler: Any
    ) -> Callable[[bytes, Context], AsyncIterator[Any]]:
        async def serve(raw: bytes, context: Context) -> AsyncIterator[Any]:
            async with (
                self._call(method, context, is_stream=True) as credentials,
                # A watcher that goes away ends the inner stream now, not when it is collected.
                aclosing(handler.unary_stream(_read(handler, raw), context)) as answers,
            ):
                checked_at_s = time.monotonic()
                async for answer in answers:
                    if time.monotonic() - checked_at_s >= self._recheck_s:
                        # A watch may be open for hours, and its key be revoked meanwhile.
                        try:
                            await self._gate.check_again(method, credentials)
                        except ShoalError as refusal:
                            # The stream may say so in an entry of its own; then it ends.
                            yield await answers.athrow(refusal)
                            raise
                        checked_at_s = time.monotonic()
                    yield answer

        return serve

    @asynccontextmanager
    async def _call(
        self, method: str, context: Context, *, is_stream: bool
    ) -> AsyncIterator[Credentials]:
        line = _LogLine(method)
        context.set_trailing_metadata(line.trailers)
        metadata = context.invocation_metadata() or ()
        credentials = Credentials.of(metadata, context.peer())
        streams = self._metrics.streams.labels(line.name) if is_stream else None

        def end(code: str) -> None:
            line.write(code)
            self._metrics.count_call(line.name, code, None if is_stream else line.elapsed_s)
            if streams is not None:
                streams.dec()

        if streams is not None:
            streams.inc()
        try:
            with self._span(line, metadata):
                line.traceparent = tracing.current()
                line.caller = await self._gate.admit(method, credentials)
                yield credentials
        except (asyncio.CancelledError, GeneratorExit):
            end("CANCELLED")
            raise
        except Exception as error:
            answer = line.answer(error)
            end(answer.code.name)
            rest = rest_answer(answer).trailers if is_from_gateway(metadata) else ()
            trailers = (*line.trailers, *answer.trailers, *rest)
            await context.abort(answer.code, answer.message, trailers)
        else:
            end("OK")

    def _span(self, line: _LogLine, metadata: Any) -> Any:
        headers = {name.lower(): value for name, value in metadata if isinstance(value, str)}
        return self._tracing.span(
            line.method.lstrip("/"),
            parent=headers.get("traceparent"),
            kind="server",
            attributes={
                "rpc.system": "grpc",
                "rpc.method": line.method,
                "shoal.request_id": line.request_id,
            },
        )


class _LogLine:
    """What the log will say about one call. Never a key, a header or a request's content."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.request_id = new_id("req")
        self.caller: Caller | None = None
        self.traceparent: str | None = None
        self._began_s = time.monotonic()

    @property
    def name(self) -> str:
        """The method alone, without its service."""
        return self.method.rpartition("/")[2]

    @property
    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """The request's id, for the caller to quote."""
        return ((REQUEST_ID_TRAILER, self.request_id),)

    def answer(self, error: Exception) -> Answer:
        """Give the answer to an error; a fault of the server is logged in full and hidden."""
        if isinstance(error, ShoalError) and not is_ours_to_mend(error):
            return answer_to(error)
        error_id = new_id("err")
        _log.error(
            "%s failed with %s",
            self.method,
            error_id,
            exc_info=error,
            extra={**self._fields(), "error_id": error_id},
        )
        return internal_answer(error, error_id)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._began_s

    def write(self, code: str) -> None:
        """Write the line."""
        elapsed_ms = self.elapsed_s * 1000
        _log.info(
            "%s %s in %.1f ms",
            self.method,
            code,
            elapsed_ms,
            extra={**self._fields(), "code": code, "elapsed_ms": elapsed_ms},
        )

    def _fields(self) -> dict[str, Any]:
        caller = self.caller
        return {
            "rpc": self.method,
            "request_id": self.request_id,
            "organization_id": caller.organization_id if caller else None,
            "namespace_id": caller.namespace_id if caller else None,
            "trace_id": trace_id_of(self.traceparent),
        }


def _read(handler: Any, raw: bytes) -> Any:
    try:
        return handler.request_deserializer(raw)
    except DecodeError as error:
        raise InvalidRequestError(
            [
                Violation(
                    "request",
                    "cannot be read as this call's protobuf message, or is nested too deep",
                )
            ]
        ) from error
