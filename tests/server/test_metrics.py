"""Numbers for Prometheus, from the reports of runs and from the store."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta

import pytest

from server.errors import UnavailableError
from server.jobs.model import RunStatus
from server.jobs.spec import Progress
from server.metrics import Metrics, RunMeter

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_points_are_counted_once_however_often_they_are_told(metrics: Metrics) -> None:
    meter = RunMeter(metrics)
    for processed in (None, 0, 100, 100, 250):
        meter.note(Progress(stage="export", processed=processed, occurred_at=BEGAN))
    meter.note(Progress(stage="write", processed=9, occurred_at=BEGAN))

    assert sample(metrics, "shoal_exported_points_total") == 250


def test_a_stage_takes_what_lies_between_its_first_and_last_report(metrics: Metrics) -> None:
    meter = RunMeter(metrics)
    for share, after_s in ((0.0, 0), (0.5, 1), (1.0, 4), (1.0, 9)):
        told = BEGAN + timedelta(seconds=after_s)
        meter.note(Progress(stage="cluster", share=share, occurred_at=told))

    assert sample(metrics, "shoal_stage_seconds_sum", stage="cluster") == 4
    assert sample(metrics, "shoal_stage_seconds_count", stage="cluster") == 1


def test_device_memory_is_what_the_worker_told_last(metrics: Metrics) -> None:
    meter = RunMeter(metrics)
    for used in (10, 20):
        memory = {"used": used, "total": 100}
        meter.note(Progress(stage="cluster", device_memory=memory, occurred_at=BEGAN))

    assert sample(metrics, "shoal_device_memory_bytes", kind="used") == 20
    assert sample(metrics, "shoal_device_memory_bytes", kind="total") == 100


async def test_the_queue_is_counted_again_after_the_store_was_away(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.metrics.LOOK_S", 0.0)
    answers: list[dict[RunStatus, int] | Exception] = [
        {"pending": 3, "processing": 1},
        UnavailableError("away"),
        {"processing": 2},
    ]
    seen = asyncio.Event()

    async def count() -> dict[RunStatus, int]:
        if not answers:
            seen.set()
            await asyncio.Event().wait()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    following = asyncio.create_task(metrics.follow_store(count))
    await asyncio.wait_for(seen.wait(), 5)
    following.cancel()

    assert sample(metrics, "shoal_queue_depth") == 0
    assert sample(metrics, "shoal_runs_active", status="processing") == 2


def test_two_servers_of_one_process_count_apart_and_stop_serving() -> None:
    one, two = Metrics(), Metrics()
    one.failed_logins.inc()
    stop = one.listen("127.0.0.1:0")
    stop()

    assert sample(two, "shoal_failed_logins_total") == 0


def test_a_taken_address_is_an_error(metrics: Metrics) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            metrics.listen(f"127.0.0.1:{taken.getsockname()[1]}")
