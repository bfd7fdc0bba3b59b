"""The run queue: it claims, survives what goes wrong, and stops without leaving a lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from job_fixtures import OWNER, WAIT_S, Bench

from server.jobs import pipeline
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord
from server.jobs.queue import QueueSettings, RunQueue
from server.jobs.running import RunningRun
from server.stores.sqlite import SqliteStore


class UnsteadyStore(SqliteStore):
    """A real store whose answers can be held back or spoiled."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.faults: list[Exception] = []
        self.looks = 0
        self.written = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def claimable(
        self, now: datetime, limit: int, after_namespace: str = ""
    ) -> list[ClusterRecord]:
        self.looks += 1
        if self.faults:
            raise self.faults.pop()
        return await super().claimable(now, limit, after_namespace)

    async def replace_cluster(self, record: ClusterRecord) -> ClusterRecord:
        stored = await super().replace_cluster(record)
        self.written.set()
        await self.may_answer.wait()
        return stored


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[UnsteadyStore]:
    store = UnsteadyStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def bench(store: UnsteadyStore, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path / "artifacts")


def queue(bench: Bench, *, slots: int = 1, lease_s: float = 30.0) -> RunQueue:
    return RunQueue(
        bench.store,
        lambda cluster: RunningRun(bench.workplace, cluster),
        QueueSettings(OWNER, lease_s=lease_s, poll_s=0.02),
        slots=lambda: slots,
    )


async def until_final(bench: Bench, record: ClusterRecord) -> ClusterRecord:
    async with asyncio.timeout(WAIT_S):
        run_id = record.runs[-1].run_id
        async for _ in bench.events.follow(record.namespace_id, record.cluster_id, run_id, 0):
            pass
    return await bench.store.get_cluster(record.namespace_id, record.cluster_id)


async def test_runs_are_taken_oldest_first_as_slots_allow(bench: Bench) -> None:
    records = [await bench.pending(f"clust_{number}") for number in range(3)]
    runs = queue(bench)
    runs.start()
    for record in records:
        prepare = await bench.engine.asked(pipeline.prepare)
        assert prepare.spec.cluster_id == record.cluster_id
        prepare.answer.set_exception(RuntimeError("enough"))
    assert (await until_final(bench, records[-1])).status == "FAILED"
    await runs.close()


async def test_namespaces_take_turns_and_each_keeps_its_order(bench: Bench) -> None:
    many = [await bench.pending(f"clust_a{n}", namespace_id="ns_a") for n in range(5)]
    few = [await bench.pending(f"clust_b{n}", namespace_id="ns_b") for n in range(2)]
    last = await bench.pending("clust_c0", namespace_id="ns_c")
    runs = queue(bench)
    runs.start()
    order = []
    for _ in range(len(many) + len(few) + 1):
        prepare = await bench.engine.asked(pipeline.prepare)
        order.append(prepare.spec.cluster_id.removeprefix("clust_"))
        prepare.answer.set_exception(RuntimeError("enough"))
    await until_final(bench, last)
    await runs.close()

    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]


async def test_the_queue_goes_on_after_an_error_that_nobody_foresaw(
    bench: Bench, store: UnsteadyStore
) -> None:
    store.faults = [ValueError("a record of another planet")]
    record = await bench.pending()
    runs = queue(bench)
    runs.start()
    (await bench.engine.asked(pipeline.prepare)).answer.set_exception(RuntimeError("enough"))
    assert (await until_final(bench, record)).status == "FAILED"
    await runs.close()


async def test_a_claim_under_way_at_the_stop_is_given_back(
    bench: Bench, store: UnsteadyStore
) -> None:
    await bench.pending()
    store.may_answer.clear()
    runs = queue(bench)
    runs.start()
    async with asyncio.timeout(WAIT_S):
        await store.written.wait()
        closing = asyncio.create_task(runs.close())
        await asyncio.sleep(0)  # The stop begins while the claim waits for its answer.
        store.may_answer.set()
        await closing

    record = await bench.now()
    assert record.runs[-1].attempts == 0
    assert len(await store.claimable(utc_now(), 9)) == 1


async def test_a_run_in_hand_is_not_begun_again_when_its_heartbeat_is_late(
    bench: Bench, store: UnsteadyStore
) -> None:
    record = await bench.pending()
    runs = queue(bench, slots=2, lease_s=0.01)
    runs.start()
    prepare = await bench.engine.asked(pipeline.prepare)
    async with asyncio.timeout(WAIT_S):
        looks = store.looks
        while store.looks < looks + 5:  # noqa: ASYNC110 - the queue's own polling is counted.
            await asyncio.sleep(0.01)
    lease = (await bench.now()).runs[-1].lease
    assert lease is not None
    assert lease.number == 1
    prepare.answer.set_exception(RuntimeError("enough"))
    await until_final(bench, record)
    await runs.close()
