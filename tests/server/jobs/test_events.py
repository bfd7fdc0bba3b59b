"""Watching a run: every watcher sees every event once, the final one last, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from job_fixtures import NAMESPACE, OWNER, RESULT, WAIT_S, Bench

from server.errors import ClusterNotFoundError
from server.jobs import moves
from server.jobs.events import BATCH, EventLog, Heartbeat, final_event
from server.jobs.ledger import utc_now
from server.jobs.model import EventRecord, RunError, RunRecord
from server.stores.sqlite import SqliteStore


class CountingStore(SqliteStore):
    """Counts how often events are read."""

    reads = 0

    async def events_after(self, run_id: str, sequence: int, limit: int) -> list[EventRecord]:
        self.reads += 1
        return await super().events_after(run_id, sequence, limit)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield Bench(store, tmp_path / "artifacts")
    await store.close()


@pytest.fixture
async def run(bench: Bench) -> RunRecord:
    """A claimed run, at work."""
    record = await bench.pending()
    await bench.change(lambda cluster: moves.claim(cluster, OWNER, utc_now(), 30))
    return record.runs[-1]


def event(run: RunRecord, message: str, **changes: Any) -> EventRecord:
    values = {"status": "processing", "stage": "export", **changes}
    return EventRecord(run_id=run.run_id, occurred_at=utc_now(), message=message, **values)


async def finish(bench: Bench, run: RunRecord, **changes: Any) -> RunRecord:
    """End the run in its record, and say nothing of it."""
    record = await bench.change(
        lambda cluster: moves.finish(
            cluster, run.run_id, 1, changes.pop("status", "canceled"), utc_now(), **changes
        )
    )
    return record.runs[-1]


async def watch(log: EventLog, run: RunRecord, after: int = 0) -> list[EventRecord]:
    async with asyncio.timeout(WAIT_S):
        return [
            found
            async for found in log.follow(NAMESPACE, "clust_1", run.run_id, after)
            if isinstance(found, EventRecord)
        ]


async def test_every_watcher_sees_every_event_once_and_in_order(
    bench: Bench, run: RunRecord
) -> None:
    log = EventLog(bench.store, poll_s=WAIT_S)  # Only the bell can be in time.
    await log.append(event(run, "before anybody watched"))
    watchers = [asyncio.create_task(watch(log, run)) for _ in range(5)]
    for number in range(20):
        await log.append(event(run, f"live {number}"))
    ended = await finish(bench, run)
    await log.append(final_event(ended))

    for found in await asyncio.gather(*watchers):
        assert [each.sequence for each in found] == list(range(1, 23))
        assert [each.is_final for each in found] == [False] * 21 + [True]
    assert log.watched_runs == 0


async def test_events_of_another_server_are_found_without_a_bell(
    bench: Bench, run: RunRecord
) -> None:
    there = EventLog(bench.store)
    task = asyncio.create_task(watch(bench.events, run))
    await there.append(event(run, "from there"))
    await there.append(final_event(await finish(bench, run)))
    assert [found.message for found in await task] == ["from there", "the run was canceled"]


@pytest.mark.parametrize("told", ["here", "elsewhere"])
async def test_many_watchers_cost_the_store_no_more_reads_than_one(
    tmp_path: Path, bench: Bench, run: RunRecord, told: str
) -> None:
    store = CountingStore(tmp_path / "jobs.sqlite")
    await store.open()
    log = EventLog(store, poll_s=0.02)
    teller = log if told == "here" else bench.events
    watchers = [asyncio.create_task(watch(log, run)) for _ in range(40)]
    async with asyncio.timeout(WAIT_S):
        while store.reads < 40:  # noqa: ASYNC110 - each reads what there was before it came.
            await asyncio.sleep(0.01)
        before = store.reads
        for number in range(30):
            await teller.append(event(run, f"live {number}"))
        await teller.append(final_event(await finish(bench, run)))
        found = await asyncio.gather(*watchers)
    await store.close()
    assert [len(events) for events in found] == [31] * 40
    assert store.reads - before < 200  # Not 1 200.


async def test_more_events_than_one_read_are_all_sent(bench: Bench, run: RunRecord) -> None:
    for number in range(BATCH + 3):
        await bench.store.append_event(event(run, str(number)))
    await finish(bench, run)
    found = await watch(bench.events, run)
    assert [each.sequence for each in found] == list(range(1, BATCH + 5))


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2, 3]), (2, [3]), (3, []), (99, [])])
async def test_a_watcher_resumes_where_it_was(
    bench: Bench, run: RunRecord, after: int, expected: list[int]
) -> None:
    await bench.events.append(event(run, "one"))
    await bench.events.append(event(run, "two"))
    await bench.events.append(final_event(await finish(bench, run)))
    assert [found.sequence for found in await watch(bench.events, run, after)] == expected


async def test_a_final_event_comes_even_if_nobody_stored_one(bench: Bench, run: RunRecord) -> None:
    """The server died between the record and the event: whoever watches first mends it."""
    error = RunError(reason="OUT_OF_WORDS", message="no words left")
    await finish(bench, run, status="failed", error=error)
    watchers = await asyncio.gather(*(watch(bench.events, run) for _ in range(3)))
    assert [[each.status for each in found] for found in watchers] == [["failed"]] * 3
    assert watchers[0][0].error == error
    stored = await bench.store.events_after(run.run_id, 0, 10)
    assert [each.status for each in stored] == ["failed"]


async def test_a_quiet_run_sends_heartbeats_with_its_present_state(
    bench: Bench, run: RunRecord
) -> None:
    log = EventLog(bench.store, poll_s=0.01, heartbeat_s=0.03)
    async with (
        asyncio.timeout(WAIT_S),
        aclosing(log.follow(NAMESPACE, "clust_1", run.run_id, 0)) as followed,
    ):
        first, second = await anext(followed), await anext(followed)
    assert isinstance(first, Heartbeat)
    assert isinstance(second, Heartbeat)
    assert first.run.status == "processing"
    assert await bench.store.events_after(run.run_id, 0, 10) == []


@pytest.mark.parametrize("how", ["closed", "canceled"])
async def test_a_watcher_that_goes_leaves_the_others_alone(
    bench: Bench, run: RunRecord, how: str
) -> None:
    log = EventLog(bench.store, poll_s=WAIT_S)
    await log.append(event(run, "one"))
    stays = asyncio.create_task(watch(log, run))
    if how == "closed":
        goes = log.follow(NAMESPACE, "clust_1", run.run_id, 0)
        await anext(goes)
        assert log.watched_runs == 1
        await goes.aclose()
    else:
        gone = asyncio.create_task(watch(log, run))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled()
    await log.append(final_event(await finish(bench, run)))
    assert len(await stays) == 2
    assert log.watched_runs == 0


async def test_a_watch_of_a_deleted_cluster_ends_with_not_found(
    bench: Bench, run: RunRecord
) -> None:
    task = asyncio.create_task(watch(bench.events, run))
    await bench.store.delete_cluster(await bench.now())
    with pytest.raises(ClusterNotFoundError):
        await task
    assert bench.events.watched_runs == 0


async def test_the_final_event_tells_what_was_found(bench: Bench, run: RunRecord) -> None:
    found = RESULT.model_copy(update={"num_noise": 3, "device": "gpu", "device_reason": "it fits"})
    done = run.model_copy(update={"status": "completed", "result": found, "warnings": ["careful"]})
    told = final_event(done)
    assert told.message == "2 groups from 10 documents, 3 of them noise"
    assert (told.device, told.device_reason) == ("gpu", "it fits")
    assert told.warnings == ["careful"]

    skipped = RESULT.model_copy(update={"skipped_reason": "the filter leaves 3 documents"})
    done = done.model_copy(update={"result": skipped})
    assert final_event(done).message == "the filter leaves 3 documents"
