"""A clock that jumps may cost a server its lease, never a run its one result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from job_fixtures import PREPARED, WAIT_S, Bench

from server.jobs import held, ledger, pipeline, reports, running
from server.jobs.ledger import utc_now
from server.stores.sqlite import SqliteStore

HOUR = timedelta(hours=1)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield Bench(store, tmp_path / "artifacts", lease_s=0.6)
    await store.close()


def jump(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Set the clock of the server that works on the run; others keep theirs."""

    def jumped() -> datetime:
        return ledger.utc_now() + by

    for module in (running, held, reports):
        monkeypatch.setattr(module, "utc_now", jumped)


async def until_renewed(bench: Bench) -> None:
    """Wait for a heartbeat by the clock that jumped."""
    lease = (await bench.now()).runs[-1].lease
    async with asyncio.timeout(WAIT_S):
        while (await bench.now()).runs[-1].lease == lease:  # noqa: ASYNC110 - the store rings no bell.
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", [HOUR, -HOUR], ids=["forward", "back"])
async def test_the_run_goes_on_where_nobody_else_wants_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by: timedelta
) -> None:
    task = asyncio.create_task((await bench.claimed(await bench.pending())).bring_to_end())
    prepare = await bench.engine.asked(pipeline.prepare)
    jump(monkeypatch, by)
    await until_renewed(bench)
    prepare.answer.set_result(PREPARED)
    (await bench.engine.asked(pipeline.publish)).answer.set_result([])
    await asyncio.wait_for(task, WAIT_S)

    run = (await bench.now()).runs[-1]
    assert (run.status, run.attempts) == ("completed", 1)
    events = await bench.store.events_after(run.run_id, 0, 99)
    assert [event.status for event in events] == ["completed"]


async def test_a_server_whose_clock_fell_back_loses_its_run_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeats end in the past of the others, who take the run: one of them commits."""
    task = asyncio.create_task((await bench.claimed(await bench.pending())).bring_to_end())
    prepare = await bench.engine.asked(pipeline.prepare)
    jump(monkeypatch, -HOUR)
    await until_renewed(bench)
    (abandoned,) = await bench.store.claimable(utc_now(), 9)
    taken = await bench.claimed(abandoned)
    prepare.answer.set_result(PREPARED)
    await asyncio.wait_for(task, WAIT_S)
    assert (await bench.now()).runs[-1].committed_at is None

    monkeypatch.undo()
    task = asyncio.create_task(taken.bring_to_end())
    await bench.engine.prepared()
    (await bench.engine.asked(pipeline.publish)).answer.set_result([])
    await asyncio.wait_for(task, WAIT_S)
    run = (await bench.now()).runs[-1]
    assert (run.status, run.attempts) == ("completed", 2)
