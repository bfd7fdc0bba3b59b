"""What is left of a run when a worker or a server goes: it ends once, and rightly."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from qdrant_client import models

from server.app import App
from server.config import Settings
from server.jobs.events import Heartbeat
from server.jobs.model import ClusterRecord, EventRecord, Stage
from server.qdrant.client import QdrantAddress, connect_async
from server.qdrant.embedded.process import start_embedded
from server.tenancy import Caller

WAIT_S = 90


@pytest.fixture
async def qdrant(tmp_path: Path) -> Any:
    """A Qdrant of its own, so that servers can come and go."""
    embedded = await asyncio.to_thread(start_embedded, tmp_path / "qdrant")
    client = connect_async(embedded.address)
    await client.create_collection(
        "docs", vectors_config=models.VectorParams(size=48, distance=models.Distance.EUCLID)
    )
    rows = np.random.default_rng(5).normal(size=(4000, 48)).tolist()
    await client.upsert(
        "docs", [models.PointStruct(id=n, vector=row) for n, row in enumerate(rows)], wait=True
    )
    yield embedded.address
    await client.close()
    await asyncio.to_thread(embedded.stop)


def settings(tmp_path: Path, qdrant: QdrantAddress) -> Settings:
    return Settings(
        dev=True,
        data_dir=tmp_path / "data",
        qdrant_url=f"http://{qdrant.target}",
        qdrant_api_key=qdrant.api_key,
        device="cpu",
        lease_s=6,
        shutdown_grace_s=0,
        threads=1,
    )


def slow() -> dict[str, Any]:
    """Some seconds of work in native code."""
    return {
        "collection_ids": ["docs"],
        "vector_config": {
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": 400, "n_init": 12, "tol": 0, "max_iter": 60},
        },
    }


async def reached(app: App, caller: Caller, cluster_id: str, stage: Stage) -> None:
    async with asyncio.timeout(WAIT_S):
        async for _, event in app.clusters.follow(caller, cluster_id, None, 0):
            if isinstance(event, EventRecord) and event.stage == stage:
                return


async def ended(app: App, caller: Caller, cluster_id: str) -> tuple[ClusterRecord, list[str]]:
    messages = []
    async with asyncio.timeout(WAIT_S):
        async for _, event in app.clusters.follow(caller, cluster_id, None, 0):
            if not isinstance(event, Heartbeat):
                messages.append(event.message)
    return await app.clusters.get(caller, cluster_id), messages


def worker_pids() -> list[int]:
    """This process's Dask workers: children that were spawned for one."""
    return [
        child.pid
        for child in psutil.Process().children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


async def test_a_killed_worker_costs_one_attempt(tmp_path: Path, qdrant: QdrantAddress) -> None:
    async with App(settings(tmp_path, qdrant)) as app:
        caller = await app.tenancy.authenticate(None, None)
        created = await app.clusters.create(caller, slow())
        await reached(app, caller, created.cluster_id, "cluster")

        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
        cluster, messages = await ended(app, caller, created.cluster_id)

    assert cluster.status == "COMPLETED"
    assert cluster.runs[-1].attempts == 2
    assert any("the worker process died" in message for message in messages)
    assert [message for message in messages if "documents exported" in message] == [
        "4,000 documents exported",
        "4,000 documents exported by an earlier attempt are used: "
        "the files agree with their checksums",
    ]


async def test_a_stopped_server_hands_its_run_to_the_next(
    tmp_path: Path, qdrant: QdrantAddress
) -> None:
    async with App(settings(tmp_path, qdrant)) as first:
        caller = await first.tenancy.authenticate(None, None)
        created = await first.clusters.create(caller, slow())
        await reached(first, caller, created.cluster_id, "cluster")

    async with App(settings(tmp_path, qdrant)) as second:
        cluster, messages = await ended(second, caller, created.cluster_id)

    assert cluster.status == "COMPLETED"
    assert cluster.runs[-1].attempts == 1
    lease = cluster.runs[-1].lease
    assert lease is not None
    assert lease.number == 2
    assert any("the server is stopping" in message for message in messages)
    assert any("exported by an earlier attempt" in message for message in messages)


async def test_two_servers_run_each_job_once(tmp_path: Path, qdrant: QdrantAddress) -> None:
    quick = slow()
    quick["vector_config"]["algorithm_params"] = {"n_clusters": 5}
    async with App(settings(tmp_path, qdrant)) as one, App(settings(tmp_path, qdrant)) as two:
        caller = await one.tenancy.authenticate(None, None)
        created = [await (one, two)[n % 2].clusters.create(caller, quick) for n in range(6)]
        clusters = [(await ended(one, caller, record.cluster_id))[0] for record in created]

    assert [cluster.status for cluster in clusters] == ["COMPLETED"] * 6
    assert [cluster.runs[-1].attempts for cluster in clusters] == [1] * 6
    assert all(cluster.runs[-1].lease.number == 1 for cluster in clusters if cluster.runs[-1].lease)
