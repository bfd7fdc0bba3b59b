"""What `benchmarks/device.py` measures with: points on the device, times, rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from machine import Timing, timed

PATIENCE_S = 40.0
"""No further repeat of one thing is begun after so long, so that a part ends within minutes."""

Run = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table; `value` is in `unit`, and `met` tells whether `target` is reached."""

    what: str
    who: str
    n_points: int
    n_dims: int
    median_s: float | None = None
    best_s: float | None = None
    repeats: int = 0
    value: float | None = None
    unit: str = ""
    target: str = ""
    met: bool | None = None
    outcome: str = ""
    part: str = ""


@dataclass(frozen=True)
class Sizes:
    """What the command line asked for."""

    points: int
    dims: int
    clusters: int
    exact_points: int
    parity_points: int
    repeats: int
    with_cpu: bool


def mixture(n_points: int, n_dims: int, n_groups: int, apart: float = 1.0) -> Any:
    """Draw points around centres on the device, block by block; the default ones overlap."""
    import cupy

    rng = cupy.random.default_rng(0)
    centres = rng.standard_normal((n_groups, n_dims), dtype=cupy.float32)
    centres *= cupy.float32(apart)
    points = cupy.empty((n_points, n_dims), dtype=cupy.float32)
    for start in range(0, n_points, 1 << 16):
        rows = slice(start, min(start + (1 << 16), n_points))
        size = rows.stop - start
        points[rows] = rng.standard_normal((size, n_dims), dtype=cupy.float32)
        points[rows] += centres[rng.integers(0, n_groups, size)]
    return points


def synchronized(run: Run) -> Run:
    """Wait for the device after a call that only starts work on it."""
    import cupy

    def waited() -> Any:
        result = run()
        cupy.cuda.Device().synchronize()
        return result

    return waited


def outcome_of(result: Any) -> str:
    """Say in words what a fit found."""
    details = getattr(result, "details", {})
    if "inertia" in details:
        return f"inertia {details['inertia']:.6g}, {details['n_iter']} iterations"
    if hasattr(result, "inertia_"):
        return f"inertia {float(result.inertia_):.6g}, {int(result.n_iter_)} iterations"
    return f"{result.n_clusters} groups" if hasattr(result, "n_clusters") else ""


def row(
    what: str, who: str, points: Any, run: Run, repeats: int, most_s: float | None = None
) -> Row:
    """Time one thing, which has run before; `most_s` is the target."""
    result, first = timed(run, repeats=1)
    if repeats > 1 and first.best_s < PATIENCE_S:
        result, first = timed(run, repeats=min(repeats, 1 + int(PATIENCE_S / first.best_s)))
    return timed_row(what, who, points, first, outcome_of(result), most_s)


def timed_row(
    what: str, who: str, points: Any, timing: Timing, outcome: str, most_s: float | None = None
) -> Row:
    """Put times into a row."""
    return Row(
        what=what,
        who=who,
        n_points=points.shape[0],
        n_dims=points.shape[1],
        median_s=round(timing.median_s, 4),
        best_s=round(timing.best_s, 4),
        repeats=timing.repeats,
        target="" if most_s is None else f"at most {most_s:g} s",
        met=None if most_s is None else timing.median_s <= most_s,
        outcome=outcome,
    )


def overhead(ours: Row, alone: Row) -> Row:
    """Say how much longer ours took than cuML alone; less than nothing where it was faster."""
    assert ours.median_s is not None
    assert alone.median_s is not None
    share = 100 * (ours.median_s / alone.median_s - 1)
    return Row(
        what=ours.what,
        who="shoal over cuML alone",
        n_points=ours.n_points,
        n_dims=ours.n_dims,
        value=round(share, 1),
        unit="%",
        target="at most 5 %",
        met=share <= 5,
    )
