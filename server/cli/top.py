"""`shoal top`: what runs now, what waits, and what the workers take."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from clusters.v1 import task_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from server.cli.connection import Connection, connect
from server.cli.console import as_json, print_json, printable, stdout, table
from server.cli.faults import EXIT_INTERRUPTED
from server.cli.options import JsonOption, KeyOption, NamespaceOption, ServerOption

ACTIVE = ("IN_PROGRESS", "PROCESSING")
QUEUED = "PENDING"
MOST_SHOWN = 100


def show_top(
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    server: ServerOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show running and waiting runs of the namespace, and the server's workers, until Ctrl-C.

    Where the output is no terminal, and with --json, it looks once.
    """
    with connect(server, key, namespace) as connection:
        if json_output:
            print_json(_as_json(_look(connection)))
        elif once or not sys.stdout.isatty():
            stdout().print(_page(_look(connection)))
        else:
            _keep_looking(connection, every)


def _keep_looking(connection: Connection, every_s: float) -> None:
    try:
        with Live(_page(_look(connection)), console=stdout(), screen=True) as live:
            while True:
                time.sleep(every_s)
                live.update(_page(_look(connection)), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


Seen = tuple[list[task_pb2.Task], list[task_pb2.Task], list[task_pb2.Worker], int]
"""Running and waiting tasks, workers, and how many tasks wait in all."""


def _look(connection: Connection) -> Seen:
    def tasks(status: str, **more: Any) -> Any:
        request = task_pb2.ListTasksRequest(status=status, limit=MOST_SHOWN, **more)
        return connection.call(connection.tasks.ListTasks, request)

    waiting = tasks(QUEUED, include_workers=True)
    running = [task for status in ACTIVE for task in tasks(status).results]
    # The queue takes the oldest first, lists begin with the newest.
    n_newer = waiting.total_count - MOST_SHOWN
    queue = tasks(QUEUED, offset=n_newer).results if n_newer > 0 else waiting.results
    return running, list(reversed(queue)), list(waiting.workers), waiting.total_count


def _as_json(seen: Seen) -> dict[str, Any]:
    running, waiting, workers, n_waiting = seen
    return {
        "running": [as_json(task) for task in running],
        "waiting": [as_json(task) for task in waiting],
        "n_waiting": n_waiting,
        "workers": [as_json(worker) for worker in workers],
    }


def _page(seen: Seen) -> RenderableType:
    running, waiting, workers, n_waiting = seen
    busy = sum(worker.status == "busy" for worker in workers)
    head = f"{len(running)} running, {n_waiting} waiting; {busy} of {len(workers)} workers busy"
    parts: list[RenderableType] = [Text(head, style="bold")]
    if workers:
        parts.append(_workers_table(workers))
    if running:
        rows = [_row(task, task.started_at, _fact(task, "stage")) for task in running]
        parts.append(table(["running", "run", "for", "stage"], rows, right=(2,)))
    if waiting:
        rows = [_row(task, task.created_at, _fact(task, "mode")) for task in waiting]
        parts.append(table(["waiting", "run", "for", "mode"], rows, right=(2,)))
    return Group(*parts)


def _workers_table(workers: Sequence[task_pb2.Worker]) -> RenderableType:
    rows = [
        [
            worker.name,
            f"{worker.memory_bytes / 2**20:,.0f} MiB",
            f"{worker.cpu_percent:.0f} %",
            worker.run_id or worker.status,
        ]
        for worker in workers
    ]
    return table(["worker", "memory", "cpu", "does"], rows, right=(1, 2))


def _row(task: task_pb2.Task, since: Timestamp, last: str) -> list[str]:
    name = printable(_fact(task, "cluster_name"))
    return [name, _fact(task, "run_id"), _elapsed(since), last]


def _fact(task: task_pb2.Task, name: str) -> str:
    return task.additional_data.fields[name].string_value


def _elapsed(since: Timestamp) -> str:
    seconds = max(0, int((datetime.now(UTC) - since.ToDatetime(UTC)).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
