"""Groups inside groups, and groups of features that lie in each other."""

from __future__ import annotations

import numpy as np
import pytest
from app_runs import run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 240


async def add_nested(qdrant: AsyncQdrantClient) -> None:
    """Store two far groups of two near groups each; `coarse` tells only the far ones."""
    rng = np.random.default_rng(5)
    number = np.arange(N_POINTS)
    far = np.array([[10.0, 0, 0, 0], [0, 10.0, 0, 0]])[number % 2]
    near = np.array([[0, 0, 1.0, 0], [0, 0, 0, 1.0]])[(number // 2) % 2]
    noise = rng.normal(0, 0.05, (N_POINTS, 4))
    vectors = {"fine": far + near + noise, "coarse": far + noise}
    await qdrant.create_collection(
        "nested",
        vectors_config={
            name: models.VectorParams(size=4, distance=models.Distance.EUCLID) for name in vectors
        },
    )
    await qdrant.upsert(
        "nested",
        [
            models.PointStruct(
                id=int(n), vector={name: rows[n].tolist() for name, rows in vectors.items()}
            )
            for n in number
        ],
        wait=True,
    )


@pytest.mark.parametrize("sample_size", [None, 120])
async def test_groups_are_clustered_again_and_know_their_parents(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, sample_size: int | None
) -> None:
    if not await qdrant.collection_exists("nested"):
        await add_nested(qdrant)
    config = {
        "clustering_method": "kmeans",
        "algorithm_params": {"n_clusters": 2},
        "feature_uris": ["fine"],
        "hierarchical": True,
        "max_hierarchy_depth": 2,
        **({"sample_size": sample_size} if sample_size else {}),
    }
    cluster = await run(app, caller, {"collection_ids": ["nested"], "vector_config": config})

    result = cluster.runs[-1].result
    assert result is not None
    assert result.num_clusters == 4
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id, vectors=True)
    parent_of = {group.cluster_id: group.parent_cluster_id for group in groups}
    assert parent_of == {
        "cl_0": None,
        "cl_1": None,
        "cl_0_sub_0": "cl_0",
        "cl_0_sub_1": "cl_0",
        "cl_1_sub_0": "cl_1",
        "cl_1_sub_1": "cl_1",
    }
    sizes = {group.cluster_id: group.member_count for group in groups}
    assert sizes["cl_0"] == sizes["cl_0_sub_0"] + sizes["cl_0_sub_1"] == N_POINTS // 2
    rows = result.hierarchy_relationships
    assert {(row["parent_cluster_id"], row["child_cluster_id"]) for row in rows} == {
        (parent, child) for child, parent in parent_of.items() if parent
    }
    of_parent = [
        member async for member in app.findings.members(caller, cluster.cluster_id, "cl_0")
    ]
    assert len(of_parent) == N_POINTS // 2
    assert {member.row["cluster_id"] for member in of_parent} == {"cl_0_sub_0", "cl_0_sub_1"}
    distances = [member.row["distance_to_centroid"] for member in of_parent]
    assert distances == sorted(distances)


async def test_features_tell_which_groups_lie_in_which(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    if not await qdrant.collection_exists("nested"):
        await add_nested(qdrant)
    config = {
        "clustering_method": "hdbscan",
        "algorithm_params": {"min_cluster_size": 20},
        "feature_uris": ["coarse", "fine"],
        "multi_feature_strategy": "independent",
    }
    cluster = await run(app, caller, {"collection_ids": ["nested"], "vector_config": config})
    result = cluster.runs[-1].result
    assert result is not None
    pairs = {
        (row["parent_cluster_id"], row["child_cluster_id"])
        for row in result.hierarchy_relationships
    }
    assert len(pairs) == 4
    assert all(p.startswith("coarse.") and c.startswith("fine.") for p, c in pairs)
