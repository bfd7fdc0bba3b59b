"""Traces: nothing at all when off, and words where the library is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from server import tracing
from server.errors import NotFoundError
from server.tracing import Tracing, TracingNotInstalledError
from tests.server.operations.collector import Collector

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_off_loads_no_opentelemetry_and_makes_no_span() -> None:
    code = (
        "import sys, server.app, server.api.interceptor, server.jobs.pipeline\n"
        "from server.tracing import Tracing, current\n"
        "with Tracing().span('x'): assert current() is None\n"
        "assert Tracing().link() is None\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingNotInstalledError, match=r"shoal\[otel\]"):
        Tracing("http://without-the-extra.invalid:1")  # Endpoints are remembered: one of its own.


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_spans_lie_in_each_other_and_under_what_came_from_outside(collector: Collector) -> None:
    traces = Tracing(collector.endpoint)
    with traces.span("call", parent=PARENT, kind="server"):
        link = traces.link()
        with traces.span("inner", attributes={"n": 1}):
            pass
    with tracing.joined(link) as elsewhere, elsewhere.span("worker"):
        pass

    spans = {span.name: span for span in collector.spans()}
    assert spans["call"].trace_id.hex() == PARENT.split("-")[1]
    assert spans["call"].parent_span_id.hex() == PARENT.split("-")[2]
    assert spans["inner"].parent_span_id == spans["call"].span_id
    assert spans["worker"].parent_span_id == spans["call"].span_id
    assert tracing.current() is None


def test_a_span_tells_the_reason_of_a_failure_and_not_its_words(collector: Collector) -> None:
    traces = Tracing(collector.endpoint)
    with pytest.raises(NotFoundError), traces.span("call"):
        raise NotFoundError("cluster", "secret plan")
    traces.flush()

    (span,) = collector.spans()
    assert "NOT_FOUND" in str(span)
    assert "secret plan" not in str(span)


@pytest.mark.parametrize("header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_parent_that_is_none_begins_a_trace_of_its_own(collector: Collector, header: str) -> None:
    traces = Tracing(collector.endpoint)
    with traces.span("call", parent=header):
        pass
    traces.flush()

    (span,) = collector.spans()
    assert span.parent_span_id == b""


def test_a_collector_that_is_away_costs_no_call_anything() -> None:
    traces = Tracing("http://127.0.0.1:9")
    with traces.span("call"):
        pass
    assert traces.link() is not None
