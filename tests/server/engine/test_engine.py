"""The engine with real worker processes: reports, errors, a stop deep in native code, a death."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gpu.errors import TooFewPointsError
from server.engine.engine import Engine
from server.engine.inside import WORKER_NICENESS
from server.engine.model import EngineSettings, StoppedError, WorkerDiedError
from server.qdrant.client import QdrantAddress, connect
from server.qdrant.errors import QdrantUnavailableError
from server.qdrant.schema import describe

STOP_WITHIN_S = 5.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(EngineSettings(workers=1, threads=2))
    await engine.start()
    yield engine
    await engine.close()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def count_up(limit, report):
    for number in range(limit):
        report({"number": number})
    return limit * 2


def raise_too_few(n_points, report):
    raise TooFewPointsError(n_points=n_points, needed=8)


def call_nobody(_, report):
    """Fail as every stage does when Qdrant is away: by gRPC's error, which does not pickle."""
    client = connect(QdrantAddress.from_url("http://127.0.0.1:9"))
    try:
        describe(client, "docs")
    finally:
        client.close()


def tell_process(_, report):
    return os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), os.environ["OPENBLAS_NUM_THREADS"]


def multiply_for_ever(_, report):
    import numpy as np

    report({"pid": os.getpid()})
    square = np.ones((1500, 1500))
    while True:
        square = square @ square
        square /= square.max()


def die(marker, report):
    with Path(marker).open("a") as file:
        file.write("begun\n")
    os.kill(os.getpid(), signal.SIGKILL)


async def test_workers_tell_what_they_do_and_take(engine: Engine):
    begun = asyncio.Event()
    work = asyncio.create_task(
        engine.run("run_busy", multiply_for_ever, None, lambda report: begun.set())
    )
    async with asyncio.timeout(60):
        await begun.wait()
        (busy,) = await engine.workers()
        await engine.stop("run_busy")
        with pytest.raises(StoppedError):
            await work

    assert busy.key == "run_busy"
    assert busy.memory_bytes > 10 << 20
    assert [worker.key for worker in await engine.workers() if worker.key] == []
    assert await Engine().workers() == []


async def test_result_and_reports_come_back(engine: Engine) -> None:
    told: list[dict[str, int]] = []
    all_told = asyncio.Event()

    def listen(report: dict[str, int]) -> None:
        told.append(report)
        if report["number"] == 2:
            all_told.set()

    result = await engine.run("run_a", count_up, 3, listen)

    assert result == 6
    if not all_told.is_set():  # Reports and results travel apart.
        assert [report["number"] for report in told] == list(range(len(told)))


async def test_an_error_arrives_with_its_facts(engine: Engine) -> None:
    with pytest.raises(TooFewPointsError) as raised:
        await engine.run("run_b", raise_too_few, 3, lambda report: None)
    assert raised.value.n_points == 3


async def test_an_error_whose_cause_cannot_travel_arrives_as_itself(engine: Engine) -> None:
    with pytest.raises(QdrantUnavailableError) as raised:
        await engine.run("run_a", call_nobody, None, lambda report: None)
    (note,) = raised.value.__notes__
    assert "StatusCode.UNAVAILABLE" in note


async def test_work_runs_beside_the_server_and_gives_way_to_it(engine: Engine) -> None:
    pid, niceness, threads = await engine.run("run_c", tell_process, None, lambda report: None)
    assert pid != os.getpid()
    assert niceness == max(WORKER_NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
    assert threads == "2"


async def test_stop_ends_native_code_within_seconds(engine: Engine) -> None:
    begun: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(engine.run("run_d", multiply_for_ever, None, begun.set_result))
    pid = (await asyncio.wait_for(begun, 30))["pid"]

    asked_at = time.monotonic()
    await engine.stop("run_d")
    with pytest.raises(StoppedError):
        await asyncio.wait_for(running, 30)
    took_s = time.monotonic() - asked_at

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert took_s < STOP_WITHIN_S
    assert await engine.run("run_e", count_up, 1, lambda report: None) == 2


async def test_a_killed_worker_is_told_and_its_work_not_repeated(
    engine: Engine, tmp_path: Path
) -> None:
    marker = tmp_path / "begun"
    with pytest.raises(WorkerDiedError):
        await engine.run("run_f", die, str(marker), lambda report: None)
    assert marker.read_text() == "begun\n"
    assert await engine.run("run_g", count_up, 1, lambda report: None) == 2


async def test_stopping_what_does_not_run_does_nothing(engine: Engine) -> None:
    await engine.stop("run_unknown")
