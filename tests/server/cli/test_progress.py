"""A run on the screen: the panel of a terminal."""

from __future__ import annotations

import io

from clusters.v1 import watch_pb2
from rich.console import Console

from server.cli.progress import StagePanel


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def event(**fields: object) -> watch_pb2.ExecutionEvent:
    return watch_pb2.ExecutionEvent(run_id="run_1", status="processing", **fields)


def terminal() -> Console:
    """A console as commands have it, on a terminal without colours."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=150, color_system=None, markup=False
    )


def screen(console: Console, panel: StagePanel) -> str:
    with console.capture() as captured:
        console.print(panel.live.renderable)
    return captured.get()


def test_the_panel_tells_rate_time_left_and_device():
    clock = Clock()
    console = terminal()
    panel = StagePanel(console, clock)

    for second in range(1, 5):
        clock.now_s += 1
        panel.show(event(stage="export", processed=1000 * second, total=10_000))
    panel.show(event(stage="export", device="cpu", device_reason="no [GPU] answers"))
    exporting = screen(console, panel)
    clock.now_s += 1
    panel.show(event(stage="cluster", stage_progress=0.25, message="hdbscan [b]on[/b] 10"))
    clustering = screen(console, panel)

    assert "4,000/10,000" in exporting  # News of something else takes no count away.
    assert "run_1" in exporting.splitlines()[0]
    assert "device: cpu (no [GPU] answers)" in exporting.splitlines()[-1]
    clustered = [line for line in clustering.splitlines() if "cluster " in line]
    assert "25 %" in clustered[0]
    assert "hdbscan [b]on[/b] 10" in clustered[0]
    assert "10,000/10,000" in clustering  # The next stage has begun: this one is whole.


def test_a_counted_stage_tells_how_long_it_still_takes():
    clock = Clock()
    console = terminal()
    panel = StagePanel(console, clock)

    panel.show(event(stage="export", processed=0, total=10_000))
    for second in range(1, 5):
        clock.now_s += 1
        panel.show(event(stage="export", processed=1000 * second, total=10_000))
    (line,) = [line for line in screen(console, panel).splitlines() if "export" in line]

    assert "4,000/10,000" in line
    assert "1,000/s" in line
    assert "0:00:06 left" in line


def test_a_run_that_fails_says_why_above_the_panel():
    console = terminal()
    panel = StagePanel(console)

    panel.show(
        watch_pb2.ExecutionEvent(run_id="run_1", status="failed", error="[red]no[/red] room")
    )

    assert "failed: [red]no[/red] room" in console.file.getvalue()


def test_stages_to_come_are_blank():
    panel = StagePanel(console := terminal())

    panel.show(event(stage="load"))
    lines = [line.strip("│ ") for line in screen(console, panel).splitlines()]

    assert lines[1].startswith("✓ export")
    assert "write" in lines
