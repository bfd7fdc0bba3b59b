"""The stages of a run as they are told and measured, one after the other and side by side."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from server.jobs import spec
from server.jobs.spec import StageClock


@pytest.fixture
def told() -> list[tuple[str, Any, Any]]:
    return []


@pytest.fixture
def clock(told: list[tuple[str, Any, Any]]) -> StageClock:
    return StageClock(lambda r: told.append((r["stage"], r["share"], r["processed"])))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clocks say, in seconds."""
    time = [0.0]
    monkeypatch.setattr(spec.time, "perf_counter", lambda: time[0])
    monkeypatch.setattr(spec.time, "monotonic", lambda: time[0])
    return time


def test_work_ahead_is_told_of_once_its_stage_has_come(
    clock: StageClock, told: list[tuple[str, Any, Any]], now: list[float]
) -> None:
    with clock.ahead("write") as early:
        with clock.stage("label"):
            now[0] = 10
            early.count(5, 100)
        with clock.stage("write"):
            now[0] = 20
            early.count(50, 100)

    assert told == [
        ("label", 0.0, None),
        ("label", 1.0, None),
        ("write", 0.0, None),
        ("write", 0.5, 50),
        ("write", 1.0, None),
    ]


def test_seconds_of_a_stage_count_once_however_many_work_on_it(
    clock: StageClock, now: list[float]
) -> None:
    with clock.stage("summarize"):
        now[0] = 2
    now[0] = 5
    with clock.ahead("write"):
        now[0] = 8
        with clock.stage("label"), clock.ahead("summarize"):
            now[0] = 9
        with clock.stage("write"):
            now[0] = 12
        now[0] = 13

    assert clock.timings_s == {"summarize": 3, "label": 1, "write": 8}


def test_the_timeline_counts_from_the_run_s_start(now: list[float]) -> None:
    now[0] = 100
    clock = StageClock(lambda report: None, began_s=2.5)
    now[0] = 101
    with clock.stage("label"), clock.ahead("write"):
        now[0] = 102
    with clock.stage("write"):
        now[0] = 104

    assert clock.timeline == {"write": [[3.5, 4.5], [4.5, 6.5]], "label": [[3.5, 4.5]]}
    assert clock.timings_s == {"write": 3, "label": 1}


def test_threads_do_not_lose_each_other_s_seconds(clock: StageClock) -> None:
    everybody = threading.Barrier(8)

    def work() -> None:
        everybody.wait()
        for _ in range(200):
            with clock.ahead("write"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock._began == {}
    assert clock.timings_s["write"] > 0
