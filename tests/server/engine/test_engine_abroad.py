"""The engine on a Dask cluster that others keep: a scheduler and three workers, each a process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import pytest_asyncio
from certificates import Authority
from dask_processes import DaskProcesses, dask_processes

from server.engine.engine import Engine
from server.engine.model import (
    ClusterAwayError,
    EngineSettings,
    NoWorkerError,
    StoppedError,
    WorkerDiedError,
)

WITHIN_S = 60.0
STOP_WITHIN_S = 5.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 3) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(processes: DaskProcesses) -> AsyncIterator[Engine]:
    engine = await connected(processes)
    yield engine
    await engine.close()


async def connected(processes: DaskProcesses, n_workers: int = 3, **settings: Any) -> Engine:
    """Connect once so many workers have come."""
    engine = Engine(EngineSettings(address=processes.address, **settings))
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                await engine.start()
                break
            except NoWorkerError as error:
                if "has no workers" not in error.message:
                    raise
                await asyncio.sleep(0.1)
        await has_slots(engine, n_workers)
    return engine


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what only other processes bring about."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def until_workers(engine: Engine, n_workers: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    for _ in iter(lambda: time.monotonic() < deadline, False):
        if len(await engine.workers()) == n_workers:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the workers did not come")


async def has_slots(engine: Engine, n_slots: int) -> None:
    await until(lambda: engine.slots == n_slots)


def meet(folder: str, report):
    """Come to where the others are, and tell how many met."""
    place = Path(folder)
    (place / str(os.getpid())).touch()
    deadline = time.monotonic() + 30
    while len(list(place.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(list(place.iterdir()))


def multiply_for_ever(_, report):
    import numpy as np

    report(os.getpid())
    square = np.ones((1000, 1000))
    while True:
        square = square @ square
        square /= square.max()


def report_for_ever(_, report):
    while True:
        report(os.getpid())
        time.sleep(0.05)


def die_once(marker: str, report):
    with Path(marker).open("a") as file:
        file.write("begun\n")
    os.kill(os.getpid(), signal.SIGKILL)


def tell_process(_, report):
    return os.getpid()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def is_gone(pid: int) -> None:
    """Wait until a process is gone; its nanny sees to that a moment after its end."""
    await until(lambda: not is_alive(pid))


async def begun(engine: Engine, key: str, function) -> tuple[asyncio.Task[Any], int]:
    """Start a function, and wait until it tells its process."""
    pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        engine.run(key, function, None, lambda told: pid.done() or pid.set_result(told))
    )
    return task, await asyncio.wait_for(pid, WITHIN_S)


async def test_as_many_functions_run_at_once_as_there_are_workers(
    engine: Engine, tmp_path: Path
) -> None:
    met = await asyncio.gather(
        *(engine.run(f"run_{n}", meet, str(tmp_path), lambda report: None) for n in range(3))
    )
    assert met == [3, 3, 3]
    assert len(await engine.workers()) == 3


@pytest.mark.parametrize("function", [multiply_for_ever, report_for_ever])
async def test_a_stop_ends_the_process_and_no_other(engine: Engine, function) -> None:
    neighbour, neighbours_pid = await begun(engine, "run_neighbour", report_for_ever)
    stopped, pid = await begun(engine, "run_stopped", function)

    asked_at = time.monotonic()
    await engine.stop("run_stopped")
    with pytest.raises(StoppedError):
        await asyncio.wait_for(stopped, WITHIN_S)
    took_s = time.monotonic() - asked_at

    assert took_s < STOP_WITHIN_S
    if function is multiply_for_ever:  # The other one ends by itself.
        await is_gone(pid)
    assert not neighbour.done()
    assert is_alive(neighbours_pid)
    await engine.stop("run_neighbour")
    with pytest.raises(StoppedError):
        await neighbour
    await has_slots(engine, 3)


async def test_a_stop_before_the_start_is_heeded(engine: Engine, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    async with engine._workers._connecting:  # It looks at the cluster first, and waits for this.
        early = engine.run("run_early", die_once, str(marker), lambda report: None)
        task = asyncio.create_task(early)
        await asyncio.sleep(0)
        await engine.stop("run_early")
    with pytest.raises(StoppedError):
        await asyncio.wait_for(task, WITHIN_S)
    await engine.run("run_later", tell_process, None, lambda report: None)
    assert not marker.exists()


async def test_work_of_a_server_that_is_gone_ends(processes: DaskProcesses) -> None:
    lonely = await connected(processes)
    task, pid = await begun(lonely, "run_lonely", multiply_for_ever)
    await lonely._workers.close()  # As when its process is killed: nothing is stopped.
    with pytest.raises(ClusterAwayError):
        await task
    await is_gone(pid)
    await lonely.close()


async def test_a_killed_worker_is_told_and_its_work_not_repeated(
    engine: Engine, tmp_path: Path
) -> None:
    marker = tmp_path / "begun"
    with pytest.raises(WorkerDiedError):
        await engine.run("run_dies", die_once, str(marker), lambda report: None)
    await engine.run("run_after", tell_process, None, lambda report: None)

    assert marker.read_text() == "begun\n"
    await has_slots(engine, 3)


async def test_every_worker_is_asked(engine: Engine) -> None:
    answers = await engine.everywhere(os.path.exists, "/")
    assert list(answers.values()) == [True, True, True]


async def test_no_worker_with_a_gpu_is_told(processes: DaskProcesses) -> None:
    with pytest.raises(NoWorkerError, match=r"no worker that offers the resource GPU"):
        await Engine(EngineSettings(address=processes.address, device="gpu")).start()


async def test_no_scheduler_is_told() -> None:
    with pytest.raises(NoWorkerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        await Engine(EngineSettings(address="tcp://127.0.0.1:9")).start()


class TestOfItsOwn:
    """Clusters that a test breaks."""

    async def test_gpus_are_taken_one_function_each(self, tmp_path: Path) -> None:
        with dask_processes(tmp_path, 1, "--resources", "GPU=1") as processes:
            engine = await connected(processes, n_workers=1)
            try:
                processes.start_worker()
                await until_workers(engine, 2)
                first, pid = await begun(engine, "run_first", report_for_ever)
                second = asyncio.create_task(
                    engine.run("run_second", tell_process, None, lambda report: None)
                )
                await engine.stop("run_first")
                with pytest.raises(StoppedError):
                    await first
                # The other worker was free all the time, and has no GPU.
                assert await asyncio.wait_for(second, WITHIN_S) == pid
            finally:
                await engine.close()

    async def test_other_versions_are_told(self, tmp_path: Path) -> None:
        # Another shoal before ours on the worker's path, as an old image has it.
        metadata = tmp_path / "old" / "shoal-0.0.9.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text("Metadata-Version: 2.1\nName: shoal\nVersion: 0.0.9\n")
        with dask_processes(tmp_path, 0) as processes:
            processes.start_worker(python_path=str(tmp_path / "old"))
            with pytest.raises(NoWorkerError, match=r"worker tcp://\S+ has shoal 0\.0\.9 \(here "):
                await connected(processes)

    async def test_tls_is_what_dasks_own_settings_say(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path / "tls")
        one = authority.sign("127.0.0.1", to="cluster")
        files = {"ca-file": str(authority.certificate)}
        for role in ("scheduler", "worker", "client"):
            files[f"{role}.cert"], files[f"{role}.key"] = (
                str(one.certificate), str(one.private_key)
            )  # fmt: skip
        prefix = "DASK_DISTRIBUTED__COMM__TLS__"
        variables = {
            prefix + name.upper().replace(".", "__").replace("-", "_"): file
            for name, file in files.items()
        }
        with dask_processes(tmp_path, 1, tls=variables) as processes:
            with pytest.raises(NoWorkerError, match="no Dask scheduler answers at tls://"):
                await Engine(EngineSettings(address=processes.address)).start()
            # As the same variables do in a server's process.
            with dask.config.set({f"distributed.comm.tls.{name}": f for name, f in files.items()}):
                engine = await connected(processes, n_workers=1)
                try:
                    pid = await engine.run("run_tls", tell_process, None, lambda report: None)
                    assert pid != os.getpid()
                finally:
                    await engine.close()

    async def test_a_scheduler_that_went_is_told_and_found_again(self, tmp_path: Path) -> None:
        with dask_processes(tmp_path, 1) as processes:
            engine = await connected(processes, n_workers=1)
            try:
                task, pid = await begun(engine, "run_cut_off", multiply_for_ever)
                processes.kill_scheduler()
                with pytest.raises(ClusterAwayError, match="no Dask scheduler answers"):
                    await asyncio.wait_for(task, WITHIN_S)
                with pytest.raises(ClusterAwayError, match="no Dask scheduler answers"):
                    await engine.run("run_early", tell_process, None, lambda report: None)
                await has_slots(engine, 0)
                await is_gone(pid)

                processes.stop_workers()
                processes.start_scheduler()
                processes.start_worker()
                await has_slots(engine, 1)
                other = await engine.run("run_late", tell_process, None, lambda report: None)
                assert other != pid
            finally:
                await engine.close()
