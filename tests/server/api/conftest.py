"""A real grpc.aio server on a free port, a real store in a file, and a real Qdrant.

No queue works on the runs here: a test moves them itself, with the queue's own means.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from qdrant_fixtures import *  # noqa: F403

from server.api.interceptor import CallInterceptor
from server.api.server import Services, build_grpc_server
from server.api.service import ClusterService
from server.api.task_service import TaskService
from server.jobs.clusters import Clusters
from server.jobs.events import EventLog
from server.jobs.findings import Findings
from server.jobs.parents import Parents
from server.jobs.removal import Removal
from server.qdrant.client import QdrantAddress
from server.stores.sqlite import SqliteStore
from server.tenancy import Tenancy
from tests.server.api.world import MULTIMODAL, ORGANIZATION, Caller, World


@pytest.fixture
def heartbeat_s() -> float:
    """How long a stream is quiet before it says that it lives; a test may parametrize it."""
    return 15.0


@pytest.fixture
async def world(
    tmp_path: Path,
    async_client: AsyncQdrantClient,
    qdrant_address: QdrantAddress,
    heartbeat_s: float,
) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    events = EventLog(store, poll_s=0.05, heartbeat_s=heartbeat_s)
    woken: list[str] = []
    interrupted: list[str] = []
    clusters = Clusters(
        store,
        events,
        async_client,
        Parents(store, str(tmp_path / "artifacts")),
        wake=lambda: woken.append("woken"),
        interrupt=interrupted.append,
    )
    tenancy = Tenancy(store)
    namespace = await tenancy.create_namespace(ORGANIZATION, "shop")
    secret, _ = await tenancy.create_key(ORGANIZATION, ["shop"], "write")
    artifacts = tmp_path / "artifacts"
    findings = Findings(clusters, str(artifacts), async_client)
    removal = Removal(clusters, store, events, qdrant_address, str(artifacts))
    served = await build_grpc_server(
        Services(ClusterService(clusters, findings, removal), TaskService(clusters)),
        listen="127.0.0.1:0",
        interceptors=[CallInterceptor(tenancy)],
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


@pytest.fixture(scope="session")
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
