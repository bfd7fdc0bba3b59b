"""The `shoal` command with gates, so that a fault hits a run exactly where a test wants it.

A run waits before a point whose file lies in the folder that SHOAL_TEST_GATES names, and says
so by a file `<point>.reached` with its process id. Points: ``<stage>`` and ``<stage>.end``,
``half an export`` (rows are written, none is in view) and ``publish`` (committed, not shown).

Workers are spawned, and a spawned process loads its parent's main file: so they have them too.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.export.writer import PartWriter
from server.jobs import pipeline
from server.jobs.spec import Progress, StageClock

PR_SET_PDEATHSIG = 1
"""Asks the kernel to kill this process when the one that started it is gone."""

GATES = Path(os.environ["SHOAL_TEST_GATES"])


def wait_at(point: str) -> None:
    gate = GATES / point
    if not gate.exists():
        return
    (GATES / f"{point}.reached").write_text(str(os.getpid()))
    while gate.exists():
        time.sleep(0.01)


def gated(function: Callable[..., Any], point: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def waits_first(*arguments: Any) -> Any:
        wait_at(point)
        return function(*arguments)

    return waits_first


tell = StageClock.tell


def tell_and_wait(clock: StageClock, progress: Progress) -> None:
    tell(clock, progress)
    if progress.share in (0.0, 1.0) and progress.stage is not None:
        wait_at(progress.stage if progress.share == 0.0 else f"{progress.stage}.end")


StageClock.tell = tell_and_wait  # type: ignore[method-assign]
PartWriter.finish = gated(PartWriter.finish, "half an export")  # type: ignore[method-assign]
pipeline.publish = gated(pipeline.publish, "publish")

if __name__ == "__main__":
    # Here, not by whoever starts this: gRPC's threads there do not bear a fork.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    from server.cli.main import app

    sys.argv[0] = "shoal"
    app()
