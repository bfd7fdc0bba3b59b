"""What a run needs is gone, full, or silent: it waits, or ends with the reason, by itself."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fleet import (
    BODY,
    Fleet,
    Watcher,
    assert_absent,
    assert_every_event_once,
    assert_whole,
    fill,
    fleet_of,
    until,
)
from mongo_process import mongo_process
from qdrant_client import QdrantClient
from qdrant_proxy import QdrantProxy

from server.qdrant.client import QdrantAddress, connect
from server.qdrant.embedded.process import EmbeddedQdrant, read_address
from tests.server.labeling.chat_server import ChatServer, Response

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

OUTAGE_S = 30.0
"""How long a store is away: many leases of these servers, and longer than any one call waits."""

LOST_WORKER_S = 20.0

Tell = Callable[..., None]
Solo = Callable[..., Fleet]


@pytest.fixture
def solo(embedded: EmbeddedQdrant, tmp_path: Path) -> Iterator[Solo]:
    """One server with settings of its own."""
    fleets: list[Fleet] = []

    def start(address: QdrantAddress | None = embedded.address, **settings: str) -> Fleet:
        fleets.append(fleet_of(address, tmp_path, **settings))
        fleets[-1].ready(1)
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()


def held_at(fleet: Fleet, stage: str, body: dict[str, object] = BODY) -> tuple[Watcher, int]:
    """Begin a run and hold it at the start of a stage; gives its watcher and its worker."""
    gate = fleet.gate(stage)
    watcher = fleet.watch(fleet.create(body).cluster_id)
    worker = gate.reached()
    watcher.see(stage)
    return watcher, worker


def test_sqlite_is_locked(solo: Solo, qdrant: QdrantClient, tell: Tell) -> None:
    fleet = solo()
    watcher, _ = held_at(fleet, "cluster")
    began = time.monotonic()
    with closing(sqlite3.connect(fleet.data_dir / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        fleet.open("cluster")  # The run is at its commit long before the lock goes.
        time.sleep(OUTAGE_S)
        other.execute("ROLLBACK")
    cluster = watcher.end()

    said = watcher.said("the job store was away for")
    tell("SQLite locked 30 s", "cluster", cluster.status, watcher.tries, _since(began), said)
    assert (cluster.status, watcher.tries) == ("COMPLETED", 1), watcher.messages
    assert_every_event_once(watcher)
    assert_whole(fleet, qdrant, cluster)


def test_mongodb_is_silent(solo: Solo, qdrant: QdrantClient, tell: Tell) -> None:
    with mongo_process() as (uri, mongo):
        fleet = solo(SHOAL_MONGODB_URI=uri)
        watcher, _ = held_at(fleet, "cluster")
        began = time.monotonic()
        mongo.send_signal(signal.SIGSTOP)
        fleet.open("cluster")
        time.sleep(OUTAGE_S)
        mongo.send_signal(signal.SIGCONT)
        cluster = watcher.end()
        fleet.close()

    said = watcher.said("the job store was away for")
    tell("MongoDB silent 30 s", "cluster", cluster.status, watcher.tries, _since(began), said)
    assert (cluster.status, watcher.tries) == ("COMPLETED", 1), watcher.messages
    assert watcher.n_connections > 1  # Its stream ended with UNAVAILABLE and was taken up again.
    assert_every_event_once(watcher)
    assert_whole(fleet, qdrant, cluster)


@pytest.mark.parametrize("stage", ["export", "write"])
def test_qdrant_is_gone(
    solo: Solo, embedded: EmbeddedQdrant, qdrant: QdrantClient, tell: Tell, stage: str
) -> None:
    proxy = QdrantProxy(embedded.address)
    fleet = solo(proxy.address)
    watcher, _ = held_at(fleet, stage)
    began = time.monotonic()
    proxy.stop()
    fleet.open(stage)
    time.sleep(OUTAGE_S)
    proxy.start()
    cluster = watcher.end()
    proxy.stop()

    waits = [message for message in watcher.messages if "waits for it" in message]
    said = waits[0] if waits else f"(nothing: the {stage} stage waited by itself)"
    tell("Qdrant gone 30 s", stage, cluster.status, watcher.tries, _since(began), said)
    assert (cluster.status, watcher.tries) == ("COMPLETED", 1), watcher.messages
    assert_every_event_once(watcher)
    assert_whole(fleet, qdrant, cluster)


def test_qdrant_is_silent(
    solo: Solo, embedded: EmbeddedQdrant, qdrant: QdrantClient, tell: Tell
) -> None:
    fleet = solo()
    watcher, _ = held_at(fleet, "write")
    began = time.monotonic()
    assert embedded.process is not None
    embedded.process.send_signal(signal.SIGSTOP)
    fleet.open("write")
    time.sleep(OUTAGE_S)
    embedded.process.send_signal(signal.SIGCONT)
    cluster = watcher.end()

    tell("Qdrant silent 30 s", "write", cluster.status, watcher.tries, _since(began), "")
    assert (cluster.status, watcher.tries) == ("COMPLETED", 1), watcher.messages
    assert_every_event_once(watcher)
    assert_whole(fleet, qdrant, cluster)


def test_the_disk_is_full(solo: Solo, qdrant: QdrantClient, tell: Tell) -> None:
    """The kernel refuses the worker's files beyond 8 KiB; the export needs 40."""
    fleet = solo()
    watcher, worker = held_at(fleet, "export")
    began = time.monotonic()
    before = resource.prlimit(worker, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    fleet.open("export")
    cluster = watcher.end()
    final = watcher.final
    assert final is not None

    tell("disk full", "export", cluster.status, watcher.tries, _since(began), final.error)
    assert (cluster.status, final.error_info.reason) == ("FAILED", "EXPORT_STORAGE")
    assert "bytes are free" in final.error
    assert_every_event_once(watcher)
    assert_absent(fleet, qdrant, cluster)

    resource.prlimit(worker, resource.RLIMIT_FSIZE, before)
    fleet.execute(cluster.cluster_id)
    again = fleet.watch(cluster.cluster_id).end()
    assert again.status == "COMPLETED"
    assert_whole(fleet, qdrant, again)


def test_the_worker_is_killed_for_memory_every_time(
    solo: Solo, qdrant: QdrantClient, tell: Tell
) -> None:
    """SIGKILL in the middle of the fit, as the kernel does it, three times."""
    fleet = solo()
    began = time.monotonic()
    watcher, worker = held_at(fleet, "cluster")
    killed = {worker}
    os.kill(worker, signal.SIGKILL)
    while len(killed) < 3:
        worker = fleet.reached_again("cluster", killed)
        killed.add(worker)
        os.kill(worker, signal.SIGKILL)
    cluster = watcher.end()
    final = watcher.final
    assert final is not None

    tell("out of memory, 3 x", "cluster", cluster.status, watcher.tries, _since(began), final.error)
    assert (cluster.status, final.error_info.reason) == ("FAILED", "WORKER_DIED")
    assert "smaller sample_size" in final.error
    assert_every_event_once(watcher)
    assert_absent(fleet, qdrant, cluster)


def test_a_worker_is_slow_to_come_back(solo: Solo, qdrant: QdrantClient, tell: Tell) -> None:
    """Its process is stopped while it starts, for longer than Dask waits for a lost worker."""
    fleet = solo()
    watcher, worker = held_at(fleet, "cluster")
    began = time.monotonic()
    fleet.open("cluster")
    os.kill(worker, signal.SIGKILL)
    (fresh,) = until(lambda: set(fleet.servers[0].workers()) - {worker}, "a fresh worker")
    os.kill(fresh, signal.SIGSTOP)
    time.sleep(LOST_WORKER_S)
    os.kill(fresh, signal.SIGCONT)
    cluster = watcher.end()

    said = watcher.said("the worker process died")
    tell("slow restart", "cluster", cluster.status, watcher.tries, _since(began), said)
    assert (cluster.status, watcher.tries) == ("COMPLETED", 2), watcher.messages
    assert_every_event_once(watcher)
    assert_whole(fleet, qdrant, cluster)


def test_the_llm_hangs(solo: Solo, qdrant: QdrantClient, tell: Tell) -> None:
    chat = ChatServer()
    chat.answering = lambda request: Response(hang=True)
    fleet = solo(
        SHOAL_LLM_BASE_URL=chat.base_url, SHOAL_LLM_TIMEOUT_S="1", SHOAL_LLM_MAX_ATTEMPTS="1"
    )
    began = time.monotonic()
    labeling = {"enabled": True, "provider": "openai_compatible", "model_name": "m"}
    watcher = fleet.watch(fleet.create(BODY | {"llm_labeling": labeling}).cluster_id)
    cluster = watcher.end()
    chat.close()

    (error, *_) = cluster.llm_labeling_errors
    tell("LLM hangs", "label", cluster.status, watcher.tries, _since(began), error)
    assert cluster.status == "COMPLETED_WITH_ERRORS"
    assert_every_event_once(watcher)
    assert_whole(fleet, qdrant, cluster)


def test_all_is_killed_and_one_server_started_anew(solo: Solo, tell: Tell) -> None:
    """The default set-up: Qdrant is the server's own child, and dies and comes back with it."""
    fleet = solo(None)
    with closing(connect(_address(fleet))) as client:
        fill(client)
    watcher, worker = held_at(fleet, "cluster")
    began = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    fleet.servers[0].kill()
    fleet.open("cluster")
    fleet.ready(1)
    cluster = watcher.end()

    said = watcher.said("the run is taken up again")
    tell("kill -9, restart", "cluster", cluster.status, watcher.tries, _since(began), said)
    assert cluster.status == "COMPLETED"
    assert any("by an earlier attempt" in message for message in watcher.messages)
    assert_every_event_once(watcher)
    with closing(connect(_address(fleet))) as client:
        assert_whole(fleet, client, cluster)


def test_a_server_that_was_silent_changes_nothing_of_the_next_one_s_run(
    replicas: Fleet, qdrant: QdrantClient, tell: Tell
) -> None:
    """Stopped, not killed: its worker goes on, and writes beside that of the new owner."""
    replicas.ready(2)
    began = time.monotonic()
    watcher, worker = held_at(replicas, "write")
    silent = replicas.owner(worker)
    silent.process.send_signal(signal.SIGSTOP)
    replicas.reached_again("write", {worker})
    replicas.open("write")
    cluster = watcher.end()
    silent.process.send_signal(signal.SIGCONT)
    until(lambda: f"run {cluster.last_run_id}" in silent.log.read_text(), "the silent one's word")

    said = watcher.said("the run is taken up again")
    tell("server stopped", "write", cluster.status, watcher.tries, _since(began), said)
    assert (cluster.status, watcher.tries) == ("COMPLETED", 2)
    assert_every_event_once(watcher)
    assert_whole(replicas, qdrant, cluster)


def _since(began: float) -> float:
    return time.monotonic() - began


def _address(fleet: Fleet) -> QdrantAddress:
    found = read_address(fleet.data_dir)
    assert found is not None
    return found
