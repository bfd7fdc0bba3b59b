"""OpenTelemetry traces, where an endpoint is set: from the call to the run to its stages.

The one file that imports OpenTelemetry, and only once tracing is on: off, a span is nothing
and costs nothing. What travels (in the run's record, and to the worker) is the W3C
``traceparent``, a plain string, so a run claimed by another server, days later, is still
part of the trace of the call that asked for it.

Spans carry names, ids and reasons, never messages or requests: those can hold callers' data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from server.errors import PreconditionError, ShoalError

FLUSH_TIMEOUT_MS = 2_000
"""How long the end of a process waits for a collector that does not answer."""

Attribute = str | int | float | bool
Kind = Literal["internal", "server"]

_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


class TracingNotInstalledError(PreconditionError):
    """SHOAL_OTEL_ENDPOINT is set, but the extra `otel` is not installed."""

    reason = "TRACING_NOT_INSTALLED"


@dataclass(frozen=True)
class TraceLink:
    """What a worker needs to go on with a trace: where spans are sent, and the span above."""

    endpoint: str
    traceparent: str | None


class Tracing:
    """Makes spans, or nothing at all when it is off."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint
        self._spans = None if endpoint is None else _provider(endpoint)

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: Kind = "internal",
        attributes: Mapping[str, Attribute] | None = None,
    ) -> AbstractContextManager[None]:
        """Cover a block by a span, under `parent` or else the span around it."""
        if self._spans is None:
            return nullcontext()
        return _span(self._spans, name, parent or current(), kind, attributes or {})

    def link(self) -> TraceLink | None:
        """Give what a worker needs to put its spans under the present one."""
        return None if self._endpoint is None else TraceLink(self._endpoint, current())

    def flush(self) -> None:
        """Send what is waiting to be sent."""
        if self._spans is not None:
            self._spans.force_flush(FLUSH_TIMEOUT_MS)


OFF = Tracing()


@contextmanager
def joined(link: TraceLink | None) -> Iterator[Tracing]:
    """Go on with a trace in a worker process; spans are sent before the block is left."""
    if link is None:
        yield OFF
        return
    tracing = Tracing(link.endpoint)
    token = _traceparent.set(link.traceparent)
    try:
        yield tracing
    finally:
        _traceparent.reset(token)
        tracing.flush()


def current() -> str | None:
    """Give the ``traceparent`` of the span around the caller, if there is one."""
    return _traceparent.get()


def trace_id_of(traceparent: str | None) -> str | None:
    """Give the id that all spans of a trace share."""
    return None if traceparent is None else traceparent.split("-")[1]


@cache
def _provider(endpoint: str) -> Any:
    """Make the sender of spans to an OTLP endpoint; one per process."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingNotInstalledError(
            "SHOAL_OTEL_ENDPOINT is set, but OpenTelemetry is not installed; "
            "pip install 'shoal[otel]', or unset it"
        ) from error
    resource = Resource.create({"service.name": "shoal", "service.version": version("shoal")})
    provider = TracerProvider(resource=resource)
    is_plain = not endpoint.startswith("https://")
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=is_plain, timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@contextmanager
def _span(
    provider: Any, name: str, parent: str | None, kind: Kind, attributes: Mapping[str, Attribute]
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    context = propagator.extract({"traceparent": parent} if parent else {})
    with provider.get_tracer("shoal").start_as_current_span(
        name,
        context=context,
        kind=SpanKind.SERVER if kind == "server" else SpanKind.INTERNAL,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        before = _traceparent.get()
        _traceparent.set(carrier.get("traceparent"))
        try:
            yield
        except BaseException as error:
            reason = error.reason if isinstance(error, ShoalError) else type(error).__name__
            span.set_attribute("error.type", reason)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            # Not by its token: a stream's generator may be closed in another context.
            _traceparent.set(before)
