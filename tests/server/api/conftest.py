"""A real grpc.aio server on a free port, a real store in a file, and a real Qdrant.

No queue works on the runs here: a test moves them itself, with the queue's own means.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clusters.v1 import cluster_pb2
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from qdrant_fixtures import *  # noqa: F403

from server.api.auth import Gate
from server.api.interceptor import CallInterceptor
from server.api.rest.check import GatewayChecks
from server.api.server import Services, build_grpc_server
from server.api.service import ClusterService
from server.api.task_service import TaskService
from server.engine.engine import Engine
from server.jobs.admission import Admission
from server.jobs.clusters import Clusters
from server.jobs.events import EventLog
from server.jobs.model import RunResult
from server.jobs.parents import Parents
from server.jobs.results import Results
from server.labeling.settings import LabelingSettings
from server.qdrant.client import QdrantAddress
from server.results.artifacts import RunFolder
from server.results.groups import Group, members_table
from server.stores.sqlite import SqliteStore
from server.tenancy import Tenancy
from tests.server.api.world import MULTIMODAL, ORGANIZATION, Caller, World

FOUND = RunResult(algorithm="hdbscan", num_clusters=2, num_documents=20, num_noise=4)
LABELS = np.array([0] * 10 + [1] * 6 + [-1] * 4)


@pytest.fixture
def heartbeat_s() -> float:
    """How long a stream is quiet before it says that it lives; a test may parametrize it."""
    return 15.0


@pytest.fixture
def recheck_s() -> float:
    """How old the check of an open stream's key may be; a test may parametrize it."""
    return 10.0


@pytest.fixture
async def world(
    tmp_path: Path,
    async_client: AsyncQdrantClient,
    qdrant_address: QdrantAddress,
    heartbeat_s: float,
    recheck_s: float,
) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    events = EventLog(store, poll_s=0.05, heartbeat_s=heartbeat_s)
    woken: list[str] = []
    interrupted: list[str] = []
    clusters = Clusters(
        store,
        events,
        Admission(
            store, async_client, Parents(store, str(tmp_path / "artifacts")), LabelingSettings()
        ),
        wake=lambda: woken.append("woken"),
        interrupt=interrupted.append,
    )
    tenancy = Tenancy(store)
    namespace = await tenancy.create_namespace(ORGANIZATION, "shop")
    secret, _ = await tenancy.create_key(ORGANIZATION, ["shop"], "write")
    artifacts = tmp_path / "artifacts"
    results = Results.of(
        clusters, store, events, async_client, qdrant_address, str(artifacts), Engine(), "cpu"
    )
    served = await build_grpc_server(
        Services(ClusterService(clusters, results), TaskService(clusters)),
        listen="127.0.0.1:0",
        interceptors=[CallInterceptor(Gate(tenancy), recheck_s=recheck_s)],
        more=[GatewayChecks(Gate(tenancy)).handler()],
    )
    await served.server.start()
    built = World(
        store,
        events,
        clusters,
        tenancy,
        served,
        namespace,
        secret,
        artifacts,
        [],
        woken,
        interrupted,
    )
    yield built
    await built.close()


@pytest.fixture
def caller(world: World) -> Caller:
    """The test's own caller, with the role write."""
    return world.connect()


@pytest.fixture(scope="module")
def products(client: QdrantClient) -> Iterator[str]:
    """A collection of twenty documents; a vector `title` is declared, but none has one."""
    name = f"products-{uuid.uuid4().hex[:8]}"
    client.create_collection(
        name,
        vectors_config={
            MULTIMODAL: VectorParams(size=4, distance=Distance.COSINE),
            "title": VectorParams(size=3, distance=Distance.COSINE),
        },
    )
    vectors = np.random.default_rng(7).normal(size=(20, 4))
    client.upsert(
        name,
        [
            PointStruct(id=i, vector={MULTIMODAL: row.tolist()}, payload={"category": "ab"[i % 2]})
            for i, row in enumerate(vectors)
        ],
        wait=True,
    )
    yield name
    client.delete_collection(name)


@pytest.fixture
def body(products: str) -> dict[str, Any]:
    """The smallest request: KMeans of the products."""
    return {
        "collection_ids": [products],
        "vector_config": {
            "clustering_method": "kmeans",
            "feature_uri": MULTIMODAL,
            "algorithm_params": {"n_clusters": 3},
        },
    }


@pytest.fixture
async def finished(
    world: World, caller: Caller, body: dict[str, Any], products: str
) -> cluster_pb2.Cluster:
    """A cluster whose run found two groups and some noise, artifacts and all."""
    return await finish(world, caller, {**body, "cluster_name": "done"}, products)


async def finish(
    world: World,
    caller: Caller,
    body: dict[str, Any],
    collection_id: str,
    labels: tuple[str, str] = ("Red things", "Cluster 1"),
) -> cluster_pb2.Cluster:
    """Create a cluster and give its run two groups, some noise, and their artifacts."""
    cluster = await caller.create(body)
    run = await world.begin(cluster.cluster_id)
    groups = [
        Group(
            cluster_id=f"cl_{i}",
            label=label,
            member_count=count,
            summary=None if i else "What is red",
            keywords=("red", "warm") if i == 0 else (),
            centroid=np.arange(4, dtype=np.float32) + i,
        )
        for i, (label, count) in enumerate(zip(labels, (10, 6), strict=True))
    ]
    folder = RunFolder(
        str(world.artifacts), world.namespace.namespace_id, cluster.cluster_id, run.run_id
    )
    folder.begin()
    folder.write_groups(groups)
    folder.write_members(
        members_table(
            pa.array([collection_id] * 20),
            pa.array([str(i) for i in range(20)]),
            LABELS,
            groups,
            distances=np.linspace(0.9, 0.1, 20),
            confidence=np.linspace(0.0, 1.0, 20),
        )
    )
    folder.write_manifest(counts={"documents": 20}, device="cpu", timings_s={})
    await world.complete(cluster.cluster_id, FOUND)
    return await caller.get(cluster.cluster_id)
