"""Whole runs on a Dask cluster of others: scheduler and workers are processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from dask.distributed import Client
from dask_processes import DaskProcesses, dask_processes
from gpu_mixtures import mixture

from gpu.backend import Backend
from gpu.kmeans import kmeans
from gpu.params import KMeansParams
from server.app import App
from server.config import Settings
from server.engine.reach import OutOfReachError
from server.jobs.events import Heartbeat
from server.jobs.model import ClusterRecord, EventRecord
from server.jobs.stages.loading import ID_COLUMNS
from server.qdrant.client import connect
from server.qdrant.importer import import_parquet
from server.results.artifacts import RunFolder
from server.tenancy import Caller

COLLECTIONS = ["docs_a", "docs_b", "docs_c"]  # Each is a file of the export, and so a part.
N_DOCUMENTS, N_DIMS, N_GROUPS = 6_000, 24, 40
WITHIN_S = 120

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 3) as started:
        with Client(started.address, set_as_default=False, timeout=WITHIN_S) as client:
            client.wait_for_workers(3, timeout=WITHIN_S)
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(
    processes: DaskProcesses, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[App]:
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(
        dev=True, data_dir=folder / "data", device="cpu", shutdown_grace_s=0,
        dask_address=processes.address, spread_mib=0.125,
    )  # fmt: skip
    async with App(settings) as app:
        await asyncio.to_thread(import_documents, app, folder)
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caller(app: App) -> Caller:
    return await app.tenancy.authenticate(None, None)


def import_documents(app: App, folder: Path) -> None:
    points, _ = mixture(N_DOCUMENTS, N_DIMS, n_groups=N_GROUPS, spread=2.0, seed=3)
    client = connect(app.qdrant_address)
    try:
        for name, rows in zip(COLLECTIONS, np.array_split(points, len(COLLECTIONS)), strict=True):
            lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), N_DIMS)
            file = folder / f"{name}.parquet"
            pq.write_table(pa.table({"text": lists}), file)
            import_parquet(client, name, [file], distance="Euclid")
    finally:
        client.close()


def job(**params: Any) -> dict[str, Any]:
    params = {"n_clusters": N_GROUPS, **params}
    return {
        "collection_ids": COLLECTIONS,
        "vector_config": {"clustering_method": "kmeans", "algorithm_params": params},
    }


async def finished(
    app: App, caller: Caller, cluster_id: str
) -> tuple[ClusterRecord, list[EventRecord]]:
    """Watch the newest run to its end, which may come after a pause of half a minute."""
    events = []
    async with asyncio.timeout(WITHIN_S):
        async for _, event in app.clusters.follow(caller, cluster_id, None, 0):
            if not isinstance(event, Heartbeat):
                events.append(event)
    return await app.clusters.get(caller, cluster_id), events


async def until_told(app: App, caller: Caller, cluster_id: str, words: str) -> EventRecord:
    """Follow the newest run until an event says this."""
    async with asyncio.timeout(WITHIN_S):
        async for _, event in app.clusters.follow(caller, cluster_id, None, 0):
            if not isinstance(event, Heartbeat) and words in event.message:
                return event
    raise AssertionError(f"no event said {words!r}")


def pid_of(processes: DaskProcesses, run_id: str) -> int:
    """Find the process that has a run."""
    with Client(processes.address, set_as_default=False, timeout=WITHIN_S) as client:
        (address,) = (
            address
            for address, keys in client.processing().items()
            if any(str(key).startswith(run_id) for key in keys)
        )
        return int(client.run(os.getpid, workers=[address])[address])


def said(events: list[EventRecord]) -> str:
    return "\n".join(event.message for event in events)


def keys_of(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(*(table[name].to_pylist() for name in ID_COLUMNS), strict=True))


def inertia_of(app: App, cluster: ClusterRecord) -> tuple[float, np.ndarray]:
    """Measure what a run found by its own files; gives the vectors in their order too."""
    run = cluster.runs[-1]
    assert run.result is not None
    folder = RunFolder(
        app._settings.artifacts, cluster.namespace_id, cluster.cluster_id, run.run_id
    )
    members = folder.read_members(columns=[*ID_COLUMNS, "cluster_id"])
    group_of = dict(zip(keys_of(members), members["cluster_id"].to_pylist(), strict=True))
    files = sorted(Path(folder.root).glob("export/*.parquet"))
    exported = pa.concat_tables([pq.read_table(file) for file in files])
    vectors = np.array(exported["vector"].combine_chunks().flatten()).reshape(-1, N_DIMS)
    labels = np.array([group_of[key] for key in keys_of(exported)])
    inertia = 0.0
    for group in np.unique(labels):
        rows = vectors[labels == group].astype(np.float64)
        inertia += float(np.square(rows - rows.mean(axis=0)).sum())
    return inertia, vectors


async def test_k_means_takes_all_free_workers_and_finds_what_one_machine_finds(
    app: App, caller: Caller
) -> None:
    created = await app.clusters.create(caller, job())
    cluster, events = await finished(app, caller, created.cluster_id)

    assert cluster.status == "COMPLETED", said(events)
    assert (
        f"k-means spreads: {N_DOCUMENTS:,} x {N_DIMS} vectors take 1 MiB, more than "
        "SHOAL_SPREAD_MIB = 0.125"
    ) in said(events)
    assert "k-means in 3 parts on 3 workers" in said(events)
    result = cluster.runs[-1].result
    assert result is not None
    assert result.device_reason == "spread over 3 workers of the Dask cluster"
    found, vectors = inertia_of(app, cluster)
    alone = kmeans(vectors, KMeansParams(n_clusters=N_GROUPS), backend=Backend("cpu", ""))
    assert found == pytest.approx(alone.details["inertia"], rel=1e-3)


async def test_runs_go_side_by_side(app: App, caller: Caller) -> None:
    created = [await app.clusters.create(caller, job(n_init=3)) for _ in range(3)]
    ended = [await finished(app, caller, one.cluster_id) for one in created]
    runs = [cluster.runs[-1] for cluster, _ in ended]
    assert [cluster.status for cluster, _ in ended] == ["COMPLETED"] * 3
    starts, ends = [run.started_at for run in runs], [run.finished_at for run in runs]
    assert max(start for start in starts if start) < min(end for end in ends if end)
    assert runs[0].result is not None
    assert runs[0].result.quality_metrics == runs[1].result.quality_metrics  # type: ignore[union-attr]


async def test_a_run_whose_worker_is_killed_goes_on(
    app: App, caller: Caller, processes: DaskProcesses
) -> None:
    created = await app.clusters.create(caller, job(n_init=30))
    run_id = created.runs[-1].run_id
    await until_told(app, caller, created.cluster_id, "k-means in ")
    os.kill(await asyncio.to_thread(pid_of, processes, run_id), signal.SIGKILL)
    cluster, events = await finished(app, caller, created.cluster_id)

    assert cluster.status == "COMPLETED", said(events)
    assert cluster.runs[-1].attempts == 2
    assert "the worker process died" in said(events)
    assert "exported by an earlier attempt are used" in said(events)


async def test_a_cancel_ends_a_spread_run_and_leaves_nothing(
    app: App, caller: Caller, processes: DaskProcesses
) -> None:
    created = await app.clusters.create(caller, job(n_init=2000))
    run_id = created.runs[-1].run_id
    await until_told(app, caller, created.cluster_id, "k-means in ")
    asked_at = asyncio.get_running_loop().time()
    await app.clusters.cancel(caller, created.cluster_id, run_id)
    cluster, _ = await finished(app, caller, created.cluster_id)

    assert cluster.status == "CANCELED"
    assert asyncio.get_running_loop().time() - asked_at < 10
    async with Client(processes.address, set_as_default=False, asynchronous=True) as client:
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        while any((await client.run(n_actors)).values()):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)


def n_actors(dask_worker: Any) -> int:
    return len(dask_worker.state.actors)


@pytest.mark.faults  # Half a minute, for the pauses between tries.
async def test_a_scheduler_that_went_is_told_and_the_run_goes_on_with_the_next(
    app: App, caller: Caller, processes: DaskProcesses
) -> None:
    created = await app.clusters.create(caller, job(n_init=30))
    await until_told(app, caller, created.cluster_id, "k-means in ")
    processes.kill_scheduler()
    await until_told(app, caller, created.cluster_id, "no Dask scheduler answers at tcp://")
    await asyncio.to_thread(processes.stop_workers)
    await asyncio.to_thread(processes.start_scheduler)
    for _ in range(3):
        processes.start_worker()
    cluster, events = await finished(app, caller, created.cluster_id)

    assert cluster.status == "COMPLETED", said(events)
    assert "the run waits for it and then goes on" in said(events)


async def test_artifacts_that_workers_do_not_reach_are_refused_at_the_start(
    processes: DaskProcesses, tmp_path: Path
) -> None:
    settings = Settings(
        dev=True, data_dir=tmp_path, device="cpu", dask_address=processes.address,
        artifacts_url="memory://artifacts",
    )  # fmt: skip
    with pytest.raises(
        OutOfReachError,
        match=r"from tcp://\S+.*writes to memory://artifacts is not there.*SHOAL_ARTIFACTS_URL",
    ):
        async with App(settings):
            pass
