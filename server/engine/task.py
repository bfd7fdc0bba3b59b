"""A function as a task of Dask: what happens in the worker that runs it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from dask.distributed import Client, Event, get_client, get_worker

from server.engine import inside
from server.engine.model import Argument, Result, WorkerFunction
from server.logs import LogSettings


class BegunBeforeError(Exception):
    """The scheduler repeats a function by itself, after its worker's death. The engine sees it."""


def cluster_client() -> Client:
    """Give, inside a function that runs in a worker, the client of that worker's cluster."""
    return get_client()


def call(
    function: WorkerFunction[Argument, Result],
    argument: Argument,
    topic: str,
    key: str,
    log_settings: LogSettings | None,
    is_abroad: bool,
) -> Result:
    """Run a function with what `inside` puts round it; its reports go to a topic, with its key.

    Raises
    ------
    BegunBeforeError
        If a worker of a cluster of others began this task and is gone.
    """
    worker = get_worker()
    task = worker.get_current_task()
    if is_abroad and not _is_first(task):
        raise BegunBeforeError(f"{key} was begun before, by a worker that is gone")
    around = inside.Surroundings(
        key=key,
        report=lambda report: worker.log_event(topic, (key, report)),
        logs=log_settings,
        is_wanted=(lambda: _is_wanted(worker, task)) if is_abroad else None,
        comes_back=worker.nanny is not None,
    )
    result: Result = inside.carry_out(function, argument, around)
    return result


async def call_aside(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Call a short function in a thread of its own, so that the worker's loop goes on."""
    return await asyncio.to_thread(function, argument)


async def forget(client: Client, task: str) -> None:
    """Take the mark of a task that has ended off the scheduler, which may be away."""
    if client.status == "running":
        with contextlib.suppress(OSError):
            await Event(_mark(task), client=client).clear()


def _is_first(task: str) -> bool:
    """Mark a task as begun; False if it was before: its scheduler repeats it by itself."""
    begun = Event(_mark(task), client=get_client())
    if begun.is_set():
        return False
    begun.set()
    return True


def _mark(task: str) -> str:
    return f"begun-{task}"


def _is_wanted(worker: Any, task: str) -> bool:
    """Tell whether the scheduler still wants a task of this worker, and there is one."""
    state = worker.state.tasks.get(task)
    return (
        worker.status.name in ("running", "paused")
        and state is not None
        and state.state in ("executing", "long-running")
    )
