"""Maps of whole runs, made by the one worker that runs have too; one compiling of UMAP in all."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
from app_runs import COLORS, N_GROUPS, N_PER_GROUP, definition, finished, run
from clusters.v1 import artifact_pb2
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceStub
from google.rpc import error_details_pb2
from qdrant_client import AsyncQdrantClient, models

from server.api.auth import Gate
from server.api.interceptor import CallInterceptor
from server.api.server import Services, build_grpc_server
from server.api.service import ClusterService
from server.api.task_service import TaskService
from server.app import App
from server.jobs.maps import MapPendingError, RunMap
from server.jobs.model import ClusterRecord, EventRecord
from server.jobs.stages.mapping import NoMapError
from server.results.maps import places_of
from server.tenancy import Caller
from tests.server.api.failures import Failure, failure_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


async def busy(app: App, caller: Caller, qdrant: AsyncQdrantClient) -> ClusterRecord:
    """Start a run that has the worker until it is canceled."""
    await qdrant.create_collection(
        "slow", vectors_config=models.VectorParams(size=64, distance=models.Distance.EUCLID)
    )
    rows = np.random.default_rng(3).normal(size=(4000, 64)).tolist()
    points = [models.PointStruct(id=number, vector=row) for number, row in enumerate(rows)]
    await qdrant.upsert("slow", points, wait=True)
    params = {"n_clusters": 2000, "n_init": 1000, "tol": 0, "max_iter": 100_000}
    config = {"clustering_method": "kmeans", "algorithm_params": params}
    created = await app.clusters.create(
        caller, definition(collection_ids=["slow"], vector_config=config)
    )
    async with asyncio.timeout(60):
        async for _, event in app.clusters.follow(caller, created.cluster_id, None, 0):
            if isinstance(event, EventRecord) and event.stage == "cluster":
                break
    return created


async def refused_for_time(app: App, cluster_id: str, timeout_s: float) -> Failure:
    """Ask over the wire for a map that cannot be made in time."""
    served = await build_grpc_server(
        Services(ClusterService(app.clusters, app.results), TaskService(app.clusters)),
        listen="127.0.0.1:0",
        interceptors=[CallInterceptor(Gate(app.tenancy))],
    )
    await served.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        ask = ClusterServiceStub(channel).GetVisualization
        request = artifact_pb2.GetVisualizationRequest(cluster_id=cluster_id)
        failure = await failure_of(ask(request, timeout=timeout_s))
    await served.server.stop(0)
    return failure


def color_centres(shown: RunMap) -> dict[str, Any]:
    """Give the median place of each color's documents."""
    assert shown.points is not None
    numbers = np.array([int(text) for text in shown.points["source_document_id"].to_pylist()])
    places = places_of(shown.points)
    return {
        color: np.median(places[numbers % N_GROUPS == number], axis=0)
        for number, color in enumerate(COLORS)
        if (numbers % N_GROUPS == number).any()
    }


async def test_a_map_is_made_once_kept_and_laid_over_the_one_before(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    maps = app.results.maps
    cluster = await run(app, caller, definition())
    first_run, cluster_id = cluster.runs[-1], cluster.cluster_id
    assert first_run.result is not None
    folder = Path(first_run.result.artifacts_url.removeprefix("file://"))

    # A run has the only worker: who cannot wait is told, and the map is made all the same.
    slow = await busy(app, caller, qdrant)
    failure = await refused_for_time(app, cluster_id, 1.5)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "MAP_PENDING")
    assert failure.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 5
    with pytest.raises(MapPendingError, match="still being made"):
        await maps.show(caller, cluster_id, max_points=500, within_s=0)
    gives_up = asyncio.create_task(maps.show(caller, cluster_id, max_points=500))
    waits = asyncio.create_task(maps.show(caller, cluster_id, max_points=500))
    while_waiting = asyncio.create_task(maps.show(caller, cluster_id, max_points=None))
    await asyncio.sleep(0)
    gives_up.cancel()
    await app.clusters.cancel(caller, slow.cluster_id, slow.runs[-1].run_id)
    first, centres_alone = await asyncio.gather(waits, while_waiting)

    assert gives_up.cancelled()
    assert (first.n_points, first.n_dims) == (N_GROUPS * N_PER_GROUP, 2)
    assert first.run.run_id == first_run.run_id
    assert centres_alone.points is None
    assert first.points is not None
    places, names = places_of(first.points), np.array(first.points["cluster_id"].to_pylist())
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (names[apart.argmin(axis=1)] == names).all()
    assert set(first.centres) == {group.cluster_id for group in first.groups}
    for name, centre in first.centres.items():
        np.testing.assert_array_equal(centre, centres_alone.centres[name])

    # It lies beside the manifest, with its checksum, and is only read from now on.
    told = json.loads((folder / "layout.json").read_bytes())
    content = (folder / "layout.parquet").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["file"]["sha256"]
    assert pq.read_table(folder / "layout.parquet").column_names == [
        "source_collection_id", "source_document_id", "cluster_id", "x", "y",
    ]  # fmt: skip
    async with asyncio.timeout(5):
        again = await maps.show(caller, cluster_id, first_run.run_id, max_points=500)
    assert again.points is not None
    assert again.points.equals(first.points)

    # The next run has three of the four groups: each lies where it was, by its neighbours.
    without_gold = {"NOT": [{"field": "color", "operator": "eq", "value": "gold"}]}
    params = {"algorithm_params": {"n_clusters": 3}}
    await app.clusters.execute(caller, cluster_id, {"filters": without_gold, **params})
    cluster, _ = await finished(app, caller, cluster_id)
    assert cluster.status == "COMPLETED"
    second = await maps.show(caller, cluster_id, max_points=500)
    assert second.run.run_id == cluster.runs[-1].run_id
    assert second.n_points == 3 * N_PER_GROUP
    before, after = color_centres(first), color_centres(second)
    for color, place in after.items():
        nearest = min(after, key=lambda other: float(np.linalg.norm(before[other] - place)))
        assert nearest == color

    # The first run's export was retired with that: its map stays, another cannot be made.
    kept = await maps.show(caller, cluster_id, first_run.run_id, max_points=500)
    assert kept.points is not None
    assert kept.points.equals(first.points)
    with pytest.raises(NoMapError, match="vectors were retired"):
        await maps.show(caller, cluster_id, first_run.run_id, max_points=500, n_dims=3)
