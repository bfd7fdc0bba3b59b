"""What goes round a function inside its worker process: its log, its reports, and its end.

Where the scheduler is not ours, a function is watched. Once it is no longer wanted (it was
canceled, its server is gone, or the scheduler is) its next report ends it; one that does not
report, deep in native code, is ended with its process, which its nanny replaces at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from server import logs
from server.logs import LogSettings

WORKER_NICENESS = 5
"""Computing gives way to the server's loop, so that calls are answered while a job runs."""

ENDED: Final = None
"""The report of a watched function that it has ended."""

WATCH_S = 0.2
"""Seconds between looks whether a function is still wanted."""

LAST_WORDS_S = 0.5
"""Seconds that a function which is no longer wanted gets to end by itself."""

EXIT_CODE = 75
"""Of a process that ends with its function."""

log = logging.getLogger(__name__)


class NoLongerWantedError(Exception):
    """Nobody waits for the function any more; so nobody sees this either."""


@dataclass(frozen=True)
class Surroundings:
    """Where a function runs.

    Attributes
    ----------
    key : str
    report : callable
        Sends one report to the server.
    logs : LogSettings or None
        How it logs; None leaves that as it is.
    is_wanted : callable or None
        Asked from another thread; None: the process is ended from outside.
    comes_back : bool
        Whether a process that ends is replaced.
    """

    key: str
    report: Callable[[Any], None]
    logs: LogSettings | None
    is_wanted: Callable[[], bool] | None
    comes_back: bool


def carry_out(
    function: Callable[[Any, Callable[[Any], None]], Any], argument: Any, around: Surroundings
) -> Any:
    """Give way to the server, then do the work and tell about it."""
    if around.logs is not None:
        logs.configure(around.logs)
        logs.bind(run_id=around.key)
    # What goes wrong here is told by the server, once, with the run's name.
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    if os.getpriority(os.PRIO_PROCESS, 0) < WORKER_NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, WORKER_NICENESS)
    try:
        with _watched(around) as report:
            return function(argument, report)
    except Exception as error:
        _leave_causes_behind(error)
        raise


@contextmanager
def _watched(around: Surroundings) -> Iterator[Callable[[Any], None]]:
    """Give the way to report, which ends a function that is no longer wanted."""
    is_wanted = around.is_wanted
    if is_wanted is None:
        yield around.report
        return
    is_over, is_unwanted = threading.Event(), threading.Event()

    def watch() -> None:
        while not is_over.wait(WATCH_S):
            if is_wanted():
                continue
            is_unwanted.set()
            if not is_over.wait(LAST_WORDS_S) and around.comes_back:
                os._exit(EXIT_CODE)  # Native code heeds nothing else.
            return

    def report(message: Any) -> None:
        if is_unwanted.is_set():
            raise NoLongerWantedError(f"nobody waits for {around.key} any more")
        around.report(message)

    threading.Thread(target=watch, name=f"watch {around.key}", daemon=True).start()
    try:
        yield report
    finally:
        is_over.set()
        with contextlib.suppress(OSError):  # The scheduler may be gone.
            around.report(ENDED)


def _leave_causes_behind(error: Exception) -> None:
    """Turn what caused an error into a note: the causes of gRPC and others do not pickle.

    Dask takes them along, and where one cannot go, the error arrives as another that names no
    reason: a Qdrant that is away would look like a fault of ours.
    """
    cause = error.__cause__ or error.__context__
    if cause is not None:
        error.add_note("caused by:\n" + "".join(traceback.format_exception(cause)))
    error.__cause__ = error.__context__ = None
