"""The progress of a run: a panel of bars by stage, or plain lines where there is no screen."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from clusters.v1 import watch_pb2
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from server.cli.console import as_json as message_as_json
from server.cli.console import print_json, printable, say, shortened, stdout
from server.jobs.model import FINAL_STATUSES, STAGES

WIDE = 110
"""Columns of a terminal that has room for long bars."""

LEAST_RATED_S = 0.5
"""Seconds that a stage has to take for its rate to mean anything."""

OTHER_COLUMNS = 52
"""Columns of the panel beside its bars and notes."""


class View(Protocol):
    """Shows the events of one run."""

    def show(self, event: watch_pb2.ExecutionEvent) -> None:
        """Take in one event."""


@contextmanager
def progress_view(*, as_json: bool = False) -> Iterator[View]:
    """Give the view that fits: JSON lines, bars on a terminal, else plain lines."""
    if as_json:
        yield JsonLines()
    elif sys.stdout.isatty():
        panel = StagePanel(stdout())
        with panel.live:
            yield panel
    else:
        yield PlainLines()


@contextmanager
def no_view() -> Iterator[View]:
    """Give a view that shows nothing, for commands whose JSON comes at the end."""
    yield Silence()


class Silence:
    """Shows nothing."""

    def show(self, event: watch_pb2.ExecutionEvent) -> None:
        """Take in one event."""


class JsonLines:
    """Shows each event as one line of JSON."""

    def show(self, event: watch_pb2.ExecutionEvent) -> None:
        """Take in one event."""
        print_json(message_as_json(event), indent=None)


class PlainLines:
    """Shows a line when a stage begins or has news in words; never a line per percent."""

    def __init__(self) -> None:
        self._stage = ""
        self._line = ""
        self._device = ""

    def show(self, event: watch_pb2.ExecutionEvent) -> None:
        """Take in one event."""
        where = event.stage if event.HasField("stage") else event.status
        line = f"{where}: {printable(event.message)}" if event.message else where
        if event.status in FINAL_STATUSES:
            line = f"{event.status}" + (f": {printable(event.error)}" if event.error else "")
        is_news = where != self._stage or line != where
        if is_news and line != self._line:
            say(line)
            self._stage, self._line = where, line
        if event.HasField("device") and event.device != self._device:
            self._device = event.device
            say(_device_line(event))
        for warning in event.warnings:
            say(f"warning: {printable(warning)}")


class StagePanel:
    """Shows one bar for each stage, all of them from the start, and where the run computes."""

    def __init__(self, console: Console, get_time: Callable[[], float] | None = None) -> None:
        bar_width = 24 if console.width >= WIDE else 8
        self._note_width = max(16, console.width - bar_width - OTHER_COLUMNS)
        self._progress = _bars(console, get_time, bar_width)
        self._panel = Panel.fit(self._progress, title_align="left", subtitle_align="left")
        self.live = Live(self._panel, console=console)
        self._device = ""
        self._bars: dict[str, TaskID] = {
            stage: self._progress.add_task(stage, total=1, start=False, note="") for stage in STAGES
        }

    def show(self, event: watch_pb2.ExecutionEvent) -> None:
        """Take in one event."""
        print_line = self._progress.console.print
        self._panel.title = Text(event.run_id)
        self._show_device(event)
        for warning in event.warnings:
            print_line(f"warning: {printable(warning)}", style="yellow")
        is_final = event.status in FINAL_STATUSES
        if event.HasField("stage"):
            self._fill_before(event.stage)
            self._advance(event)
        if not is_final:
            return
        if event.status == "completed":
            self._fill_before(None)
        else:
            print_line(f"{event.status}: {printable(event.error)}".rstrip(": "), style="red")

    def _show_device(self, event: watch_pb2.ExecutionEvent) -> None:
        if event.HasField("device") and event.device != self._device:
            self._device = event.device
            self._panel.subtitle = Text(_device_line(event))

    def _fill_before(self, stage: str | None) -> None:
        """Fill the bars of the stages before one; None fills them all."""
        for earlier, bar in self._bars.items():
            if earlier == stage:
                return
            task = self._task(bar)
            if not task.finished:
                self._progress.start_task(bar)
                self._progress.update(bar, total=task.total or 1, completed=task.total or 1)

    def _advance(self, event: watch_pb2.ExecutionEvent) -> None:
        bar = self._bars.get(event.stage)
        if bar is None:  # A stage that a newer server has and this client does not know.
            bar = self._bars[event.stage] = self._progress.add_task(event.stage, note="")
        if self._task(bar).start_time is None:
            self._progress.start_task(bar)
        if event.HasField("total") and event.total:
            self._progress.update(bar, total=event.total, completed=event.processed)
        elif event.HasField("stage_progress"):
            self._progress.update(bar, total=1, completed=event.stage_progress)
        elif not self._task(bar).completed:
            self._progress.update(bar, total=None)  # A pulse: it runs, nobody knows how far.
        if event.message:
            self._progress.update(bar, note=shortened(event.message, self._note_width))

    def _task(self, bar: TaskID) -> Task:
        return next(task for task in self._progress.tasks if task.id == bar)


class _CountColumn(ProgressColumn):
    """Done and in all where the stage counts something, else the share."""

    def render(self, task: Task) -> Text:
        """Draw it for one bar."""
        if task.total is None or not task.started:
            return Text("")
        if task.total > 1:
            return Text(f"{task.completed:,.0f}/{task.total:,.0f}")
        return Text(f"{task.percentage:.0f} %")


class _RateColumn(ProgressColumn):
    """How many a second, where the stage counts something."""

    def render(self, task: Task) -> Text:
        """Draw it for one bar."""
        speed = task.finished_speed or task.speed
        if speed is None or task.total is None or task.total <= 1:
            return Text("")
        if (task.elapsed or 0) < LEAST_RATED_S:  # Past events come all at once.
            return Text("")
        return Text(f"{speed:,.0f}/s")


class _LeftColumn(ProgressColumn):
    """How long the stage will still take at its present rate."""

    def render(self, task: Task) -> Text:
        """Draw it for one bar."""
        left_s = task.time_remaining
        if task.finished or not left_s:
            return Text("")
        return Text(f"{timedelta(seconds=math.ceil(left_s))} left")


class _Begun(ProgressColumn):
    """Another column that stays empty until the stage begins."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__(column.get_table_column())
        self._column = column

    def render(self, task: Task) -> RenderableType:
        """Draw it for one bar."""
        return self._column(task) if task.started else Text("")


def _bars(console: Console, get_time: Callable[[], float] | None, bar_width: int) -> Progress:
    return Progress(
        _Begun(SpinnerColumn(finished_text="✓")),
        TextColumn("{task.description:<10}"),
        _Begun(BarColumn(bar_width=bar_width)),
        _CountColumn(),
        _RateColumn(),
        _Begun(TimeElapsedColumn()),
        _LeftColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        get_time=get_time,
    )


def _device_line(event: watch_pb2.ExecutionEvent) -> str:
    why = f" ({printable(event.device_reason)})" if event.device_reason else ""
    return f"device: {event.device}{why}"
