"""A running app, documents to cluster, and the way to run and watch a job."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.jobs.events import Heartbeat
from server.jobs.model import ClusterRecord, EventRecord
from server.tenancy import Caller

N_GROUPS = 4
N_PER_GROUP = 60
N_DIMS = 16
COLORS = ("red", "green", "blue", "gold")


async def add_colors(client: AsyncQdrantClient, name: str, n_extra_dims: int = 0) -> None:
    """Store four well separated groups of 60 documents; two more have no usable vector."""
    rng = np.random.default_rng(7)
    centers = np.eye(N_GROUPS, N_DIMS + n_extra_dims)
    await client.create_collection(
        name,
        vectors_config={
            "text": models.VectorParams(size=N_DIMS + n_extra_dims, distance=models.Distance.COSINE)
        },
    )
    points = [
        models.PointStruct(
            id=number,
            vector={"text": (centers[number % N_GROUPS] + noise).tolist()},
            payload={"title": f"doc {number}", "color": COLORS[number % N_GROUPS], "rank": number},
        )
        for number, noise in enumerate(
            rng.normal(0, 0.05, (N_GROUPS * N_PER_GROUP, N_DIMS + n_extra_dims))
        )
    ]
    points.append(models.PointStruct(id=9001, vector={}, payload={"title": "no vector"}))
    await client.upsert(name, points, wait=True)


def definition(**changes: Any) -> dict[str, Any]:
    return {
        "collection_ids": ["colors"],
        "vector_config": {
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": N_GROUPS},
        },
        **changes,
    }


async def finished(
    app: App, caller: Caller, cluster_id: str
) -> tuple[ClusterRecord, list[EventRecord]]:
    """Watch the newest run to its end."""
    events = []
    async with asyncio.timeout(60):
        async for _, event in app.clusters.follow(caller, cluster_id, None, 0):
            if not isinstance(event, Heartbeat):
                events.append(event)
    return await app.clusters.get(caller, cluster_id), events


async def run(app: App, caller: Caller, raw: dict[str, Any]) -> ClusterRecord:
    created = await app.clusters.create(caller, raw)
    cluster, _ = await finished(app, caller, created.cluster_id)
    return cluster
