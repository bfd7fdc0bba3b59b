"""Where a run's time went: when each stage began, how long it took, and what went side by side."""

from __future__ import annotations

from typing import TypeAlias

from clusters.v1 import execution_pb2
from rich.table import Table

from server.cli.console import as_json, table
from server.jobs.model import PUBLISH, STAGES

BAR_WIDTH = 40
"""Columns of the whole run."""

Span: TypeAlias = tuple[float, float]


def timings_table(execution: execution_pb2.Execution) -> Table:
    """Lay out the stages in their order, each with a bar where it was at work."""
    took = as_json(execution.timings)
    timeline: dict[str, list[Span]] = as_json(execution.timeline)
    ends = [end for spans in timeline.values() for _, end in spans]
    whole = max([execution.execution_time_seconds, *ends])
    rows = [
        [stage, _began(spans), f"{took[stage]:.2f} s", bar(spans, whole)]
        for stage in (*STAGES, PUBLISH)
        if stage in took
        for spans in [timeline.get(stage, [])]
    ]
    return table(["stage", "began", "took", f"0 to {whole:.2f} s"], rows, right=(1, 2))


def _began(spans: list[Span]) -> str:
    """Tell the first begin; a run of a version that did not note it has none."""
    return f"{spans[0][0]:.2f} s" if spans else ""


def bar(spans: list[Span], whole: float, width: int = BAR_WIDTH) -> str:
    """Draw when something was at work; however short, it has one column.

    Parameters
    ----------
    spans : list of (begin, end)
        In seconds, within 0 and `whole`.
    """
    columns = [" "] * width
    for begin, end in spans:
        first = min(int(begin / whole * width), width - 1) if whole else 0
        last = max(first + 1, round(end / whole * width)) if whole else 1
        columns[first:last] = "━" * (min(last, width) - first)
    return "".join(columns).rstrip()
