"""One claimed run: whatever happens to it, it has one end, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from job_fixtures import NAMESPACE, PREPARED, RESULT, WAIT_S, Bench

from gpu.errors import TooFewPointsError
from server.engine.model import WorkerDiedError
from server.errors import NotFoundError
from server.jobs import held, moves, pipeline, running
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, EventRecord
from server.jobs.moves import MAX_ATTEMPTS
from server.jobs.running import RunningRun
from server.qdrant.errors import CollectionNotFoundError, QdrantUnavailableError
from server.stores.sqlite import SqliteStore


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield Bench(store, tmp_path / "artifacts")
    await store.close()


@pytest.fixture
async def pending(bench: Bench) -> ClusterRecord:
    return await bench.pending()


def begun(run: RunningRun) -> asyncio.Task[None]:
    return asyncio.create_task(run.bring_to_end())


async def ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(WAIT_S):
        await task


async def events(bench: Bench, record: ClusterRecord) -> list[EventRecord]:
    return await bench.store.events_after(record.runs[-1].run_id, 0, 1000)


async def test_a_run_is_committed_published_and_finished(
    bench: Bench, pending: ClusterRecord
) -> None:
    task = begun(await bench.claimed(pending))
    await bench.engine.prepared()
    published = await bench.engine.asked(pipeline.publish)
    published.answer.set_result(["two documents were deleted"])
    await ended(task)

    run = (await bench.now()).runs[-1]
    assert published.spec.result == RESULT
    assert (run.status, run.warnings) == ("completed", ["two documents were deleted"])
    assert [event.status for event in await events(bench, pending)] == ["completed"]


async def test_a_cancel_just_before_the_commit_ends_the_run_at_once(
    bench: Bench, pending: ClusterRecord
) -> None:
    folder = bench.stage(pending)
    task = begun(await bench.claimed(pending))
    prepare = await bench.engine.asked(pipeline.prepare)
    run_id = pending.runs[-1].run_id
    await bench.change(lambda cluster: moves.request_cancel(cluster, run_id, utc_now()))
    prepare.answer.set_result(PREPARED)
    await ended(task)

    assert (await bench.now()).status == "CANCELED"
    assert [event.status for event in await events(bench, pending)] == ["canceled"]
    assert not folder.exists()


async def test_a_cancel_by_another_server_is_noticed_without_a_word(
    bench: Bench, pending: ClusterRecord
) -> None:
    task = begun(await bench.claimed(pending))
    await bench.engine.asked(pipeline.prepare)
    run_id = pending.runs[-1].run_id
    async with asyncio.timeout(5):
        await bench.change(lambda cluster: moves.request_cancel(cluster, run_id, utc_now()))
        await task
    assert (await bench.now()).status == "CANCELED"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CollectionNotFoundError("docs"), "COLLECTION_NOT_FOUND"),
        (QdrantUnavailableError("Qdrant does not answer"), "QDRANT_UNAVAILABLE"),
        (TooFewPointsError(n_points=3, needed=8), TooFewPointsError.reason),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "INTERNAL"),
    ],
)
async def test_an_error_before_the_commit_fails_the_run_with_its_reason(
    bench: Bench, pending: ClusterRecord, error: Exception, reason: str
) -> None:
    folder = bench.stage(pending)
    task = begun(await bench.claimed(pending))
    (await bench.engine.asked(pipeline.prepare)).answer.set_exception(error)
    await ended(task)

    run = (await bench.now()).runs[-1]
    assert run.error is not None
    assert (run.status, run.error.reason) == ("failed", reason)
    assert "start byte" not in run.error.message
    assert not folder.exists()


async def test_a_committed_run_that_can_never_be_published_fails(
    bench: Bench, pending: ClusterRecord
) -> None:
    task = begun(await bench.claimed(pending))
    await bench.engine.prepared()
    gone = NotFoundError("artifacts of run", pending.runs[-1].run_id)
    (await bench.engine.asked(pipeline.publish)).answer.set_exception(gone)
    await ended(task)

    run = (await bench.now()).runs[-1]
    assert run.error is not None
    assert (run.status, run.error.reason) == ("failed", "NOT_FOUND")


async def test_a_committed_run_is_published_when_qdrant_is_back(
    bench: Bench, pending: ClusterRecord
) -> None:
    folder = bench.stage(pending)
    task = begun(await bench.claimed(pending))
    await bench.engine.prepared()
    away = QdrantUnavailableError("Qdrant does not answer")
    (await bench.engine.asked(pipeline.publish)).answer.set_exception(away)
    await ended(task)
    waiting = await bench.now()
    assert (waiting.status, waiting.runs[-1].attempts) == ("PROCESSING", 0)
    assert folder.exists()

    task = begun(await bench.claimed(waiting))
    (await bench.engine.asked(pipeline.publish)).answer.set_result([])
    await ended(task)
    assert (await bench.now()).status == "COMPLETED"


async def test_a_qdrant_that_comes_back_costs_the_run_nothing(
    bench: Bench, pending: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "OUTAGE_PAUSE_S", (0.01, 0.01))
    bench.workplace = replace(bench.workplace, outage_s=WAIT_S)
    task = begun(await bench.claimed(pending))
    away = QdrantUnavailableError("Qdrant does not answer")
    (await bench.engine.asked(pipeline.prepare)).answer.set_exception(away)
    (await bench.engine.asked(pipeline.prepare)).answer.set_exception(away)
    await bench.engine.prepared()
    (await bench.engine.asked(pipeline.publish)).answer.set_exception(away)
    (await bench.engine.asked(pipeline.publish)).answer.set_result([])
    await ended(task)

    run = (await bench.now()).runs[-1]
    assert (run.status, run.attempts, run.warnings) == ("completed", 1, [])
    told = [event.message for event in await events(bench, pending)]
    assert told[:-1] == ["Qdrant does not answer; the run waits for it and then goes on"] * 3


async def test_a_run_that_waits_for_qdrant_is_canceled_at_once(
    bench: Bench, pending: ClusterRecord
) -> None:
    bench.workplace = replace(bench.workplace, outage_s=WAIT_S * 9)
    run = await bench.claimed(pending)
    task = begun(run)
    away = QdrantUnavailableError("Qdrant does not answer")
    (await bench.engine.asked(pipeline.prepare)).answer.set_exception(away)
    run_id = pending.runs[-1].run_id
    await bench.change(lambda cluster: moves.request_cancel(cluster, run_id, utc_now()))
    run.interrupt()
    await ended(task)
    assert (await bench.now()).status == "CANCELED"


async def test_a_store_that_is_away_for_longer_than_the_lease_costs_nothing(
    bench: Bench, pending: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "STORE_PAUSE_S", 0.01)
    bench.workplace = replace(bench.workplace, lease_s=0.3)
    run = await bench.claimed(pending)
    task = begun(run)
    prepare = await bench.engine.asked(pipeline.prepare)
    store = bench.store
    await store.close()
    prepare.tell(stage="export", message="told meanwhile")
    prepare.answer.set_result(PREPARED)
    await asyncio.sleep(0.6)  # Twice the lease: nothing can be seen of the run until then.
    assert not task.done()
    await store.open()
    (await bench.engine.asked(pipeline.publish)).answer.set_result([])
    await ended(task)

    assert (await bench.now()).runs[-1].attempts == 1
    told = [event.message for event in await events(bench, pending)]
    assert told[0] == "told meanwhile"
    assert "the job store was away for 1 s; the run went on meanwhile" in told[1:-1]
    assert told[-1] == "2 groups from 10 documents"


async def test_a_run_that_was_claimed_during_the_outage_is_left_to_its_new_owner(
    bench: Bench, pending: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "STORE_PAUSE_S", 0.01)
    task = begun(await bench.claimed(pending))
    prepare = await bench.engine.asked(pipeline.prepare)
    store = bench.store
    await store.close()
    prepare.answer.set_result(PREPARED)
    await store.open()
    taken = await bench.lose_lease()
    await ended(task)

    assert await bench.now() == taken
    assert await events(bench, pending) == []


async def test_a_worker_without_memory_says_so(bench: Bench, pending: ClusterRecord) -> None:
    task = begun(await bench.claimed(pending))
    full = MemoryError("Unable to allocate 96.0 GiB")
    (await bench.engine.asked(pipeline.prepare)).answer.set_exception(full)
    await ended(task)

    error = (await bench.now()).runs[-1].error
    assert error is not None
    assert error.reason == "HOST_MEMORY"
    assert "96.0 GiB" in error.message
    assert "smaller sample_size" in error.message


async def test_who_takes_a_run_up_says_so(bench: Bench, pending: ClusterRecord) -> None:
    task = begun(await bench.claimed(await bench.claimed_and_lost(pending)))
    (await bench.engine.asked(pipeline.prepare)).answer.set_result(PREPARED)
    (await bench.engine.asked(pipeline.publish)).answer.set_result([])
    await ended(task)

    first = (await events(bench, pending))[0]
    assert first.message == "the run is taken up again: attempt 2 of 3"


async def test_a_dead_worker_costs_an_attempt_and_the_third_ends_the_run(
    bench: Bench, pending: ClusterRecord
) -> None:
    record = pending
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert record.runs[-1].status != "failed"
        task = begun(await bench.claimed(record))
        prepare = await bench.engine.asked(pipeline.prepare)
        prepare.answer.set_exception(WorkerDiedError("the worker process died"))
        await ended(task)
        record = await bench.now()
        assert record.runs[-1].attempts == attempt

    error = record.runs[-1].error
    assert error is not None
    assert (record.status, error.reason) == ("FAILED", "WORKER_DIED")


async def test_a_run_whose_servers_died_is_given_up(bench: Bench, pending: ClusterRecord) -> None:
    run = pending.runs[-1].model_copy(update={"attempts": MAX_ATTEMPTS})
    record = await bench.change(lambda cluster: cluster.model_copy(update={"runs": [run]}))
    await ended(begun(await bench.claimed(record)))

    error = (await bench.now()).runs[-1].error
    assert error is not None
    assert error.reason == "GIVEN_UP"


async def test_a_run_ends_even_if_its_leftovers_cannot_be_removed(
    bench: Bench, pending: ClusterRecord
) -> None:
    bench.artifacts.write_text("a file where the folder should be")
    run = await bench.claimed(pending)
    task = begun(run)
    await bench.engine.asked(pipeline.prepare)
    run_id = pending.runs[-1].run_id
    await bench.change(lambda cluster: moves.request_cancel(cluster, run_id, utc_now()))
    run.interrupt()
    await ended(task)
    assert (await bench.now()).status == "CANCELED"


async def test_what_was_staged_is_found_after_a_rename(
    bench: Bench, pending: ClusterRecord
) -> None:
    folder = bench.stage(pending)
    task = begun(await bench.claimed(pending))
    prepare = await bench.engine.asked(pipeline.prepare)
    await bench.change(lambda cluster: cluster.model_copy(update={"cluster_name": "renamed"}))
    prepare.answer.set_exception(CollectionNotFoundError("docs"))
    await ended(task)
    assert not folder.exists()


async def test_every_report_comes_before_the_final_event(
    bench: Bench, pending: ClusterRecord
) -> None:
    told = [f"step {number}" for number in range(30)]
    messages: list[str] = []

    async def watch() -> None:
        run_id = pending.runs[-1].run_id
        async for event in bench.events.follow(NAMESPACE, "clust_1", run_id, 0):
            if isinstance(event, EventRecord):
                messages.append(event.message)

    watchers = [asyncio.create_task(watch()) for _ in range(3)]
    task = begun(await bench.claimed(pending))
    await bench.engine.prepared()
    publish = await bench.engine.asked(pipeline.publish)
    for message in told:
        publish.tell(stage="write", message=message)
    publish.answer.set_result([])
    await ended(task)
    await asyncio.wait_for(asyncio.gather(*watchers), WAIT_S)
    assert sorted(messages) == sorted([*told, "2 groups from 10 documents"] * 3)


async def test_a_report_that_cannot_be_stored_does_not_hold_the_run(
    bench: Bench, pending: ClusterRecord
) -> None:
    task = begun(await bench.claimed(pending))
    prepare = await bench.engine.asked(pipeline.prepare)
    prepare.tell(stage="a stage of a newer worker")
    prepare.tell(stage="export", message="reading")
    prepare.answer.set_exception(CollectionNotFoundError("docs"))
    await ended(task)
    assert [event.status for event in await events(bench, pending)] == ["processing", "failed"]


async def test_a_run_that_is_handed_back_says_so_and_can_be_claimed_at_once(
    bench: Bench, pending: ClusterRecord
) -> None:
    run = await bench.claimed(pending)
    task = begun(run)
    await bench.engine.asked(pipeline.prepare)
    run.hand_back()
    await ended(task)

    record = await bench.now()
    assert record.runs[-1].attempts == 0
    assert [found.cluster_id for found in await bench.store.claimable(utc_now(), 9)] == ["clust_1"]
    assert "the server is stopping" in (await events(bench, pending))[-1].message


async def test_who_lost_the_lease_stops_and_changes_nothing(
    bench: Bench, pending: ClusterRecord
) -> None:
    folder = bench.stage(pending)
    (folder / ".shoal-1-half").mkdir()
    (folder / ".shoal-2-half").mkdir()
    task = begun(await bench.claimed(pending))
    await bench.engine.asked(pipeline.prepare)
    taken = await bench.lose_lease()
    await ended(task)

    assert await bench.now() == taken
    assert await events(bench, pending) == []
    # Its own scratch goes, since its worker was killed; all else is the next attempt's.
    assert sorted(os.listdir(folder)) == [".shoal-2-half", "members.parquet"]


async def test_who_fails_without_knowing_that_the_lease_is_lost_removes_nothing(
    bench: Bench, pending: ClusterRecord
) -> None:
    folder = bench.stage(pending)
    task = begun(await bench.claimed(pending))
    prepare = await bench.engine.asked(pipeline.prepare)
    taken = await bench.lose_lease()
    (folder / ".lease").write_text("2")
    prepare.answer.set_exception(RuntimeError("out of order"))
    await ended(task)

    assert await bench.now() == taken
    assert sorted(os.listdir(folder)) == [".lease", "members.parquet"]


async def test_a_run_of_a_deleted_cluster_is_stopped_and_swept(
    bench: Bench, pending: ClusterRecord
) -> None:
    folder = bench.stage(pending)
    task = begun(await bench.claimed(pending))
    await bench.engine.asked(pipeline.prepare)
    await bench.store.delete_cluster(await bench.now())
    await ended(task)
    assert not folder.exists()
    assert await events(bench, pending) == []
