"""Mode assign: new documents go to the groups of the last successful run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from app_runs import N_DIMS, N_GROUPS, N_PER_GROUP, add_colors, definition, finished, run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.jobs.enriching import Wanted
from server.jobs.model import ClusterRecord, GroupNames, RunRecord
from server.jobs.moves import RunOptions
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_DOCUMENTS = N_GROUPS * N_PER_GROUP
NEW = (5_000, 5_001, 5_002)


async def add_documents(qdrant: AsyncQdrantClient, collection: str) -> None:
    """Add one document near group 0's direction, one halfway off it, and one far from all."""
    far = np.zeros(N_DIMS)
    far[N_GROUPS:] = 1
    near = np.eye(1, N_DIMS)[0] * 3
    halfway = np.eye(1, N_DIMS)[0] + 0.45 * far / np.linalg.norm(far) * 3
    points = [
        models.PointStruct(id=number, vector={"text": row.tolist()}, payload={"color": "new"})
        for number, row in zip(NEW, (near, halfway, far), strict=True)
    ]
    await qdrant.upsert(collection, points, wait=True)


async def assign(
    app: App, caller: Caller, cluster: ClusterRecord, *, threshold: float | None = None, **more: Any
) -> tuple[ClusterRecord, RunRecord]:
    options = RunOptions(mode="assign", assignment_threshold=threshold)
    await app.clusters.execute(caller, cluster.cluster_id, more, options)
    cluster, events = await finished(app, caller, cluster.cluster_id)
    assert cluster.status == "COMPLETED", cluster.runs[-1].error
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["export", "load", "preprocess", "cluster", "summarize", "label", "write"]
    return cluster, cluster.runs[-1]


def members_of(run: RunRecord) -> dict[str, dict[str, Any]]:
    assert run.result is not None
    table = pq.read_table(run.result.artifacts_url.removeprefix("file://") + "/members.parquet")
    return {row["source_document_id"]: row for row in table.to_pylist()}


async def group_of_direction(app: App, caller: Caller, cluster: ClusterRecord) -> str:
    """Find the group whose centroid points along the first axis."""
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id, vectors=True)
    return next(
        group.cluster_id
        for group in groups
        if group.centroid is not None and int(group.centroid.argmax()) == 0
    )


async def test_new_documents_join_the_groups_they_are_like(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "growing")
    cluster = await run(app, caller, definition(collection_ids=["growing"]))
    first = cluster.runs[-1]
    _, _, before = await app.findings.groups(caller, cluster.cluster_id, vectors=True)
    target = await group_of_direction(app, caller, cluster)
    await app.results.renames.rename(
        caller, cluster.cluster_id, first.run_id, [GroupNames(cluster_id=target, label="East")]
    )
    await add_documents(qdrant, "growing")
    await qdrant.delete("growing", models.PointIdsList(points=[3]), wait=True)

    cluster, second = await assign(app, caller, cluster)

    assert second.mode == "assign"
    assert second.result is not None
    assert first.result is not None
    was, now = members_of(first), members_of(second)
    assert now.keys() == (was.keys() - {"3"}) | {str(number) for number in NEW}
    assert all(
        (now[name]["cluster_id"], now[name]["confidence"])
        == (was[name]["cluster_id"], was[name]["confidence"])
        for name in was.keys() & now.keys()
    )
    assert [now[str(number)]["cluster_id"] for number in NEW] == [target, target, "cl_noise"]
    assert now["5000"]["cluster_label"] == "East"
    assert now["5000"]["distance_to_centroid"] < now["5001"]["distance_to_centroid"]
    assert now["5000"]["confidence"] == 1 > now["5001"]["confidence"] > 0
    _, _, after = await app.findings.groups(caller, cluster.cluster_id, vectors=True)
    assert [g.cluster_id for g in after] == [g.cluster_id for g in before]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.centroid, new.centroid)
    counts = {group.cluster_id: group.member_count for group in after}
    assert counts[target] == N_PER_GROUP + 2
    assert sum(counts.values()) == N_DOCUMENTS - 1 + 2
    result = second.result
    assert (result.num_clusters, result.num_documents) == (N_GROUPS, N_DOCUMENTS + 2)
    assert result.num_noise == 1
    assert (result.algorithm, result.device) == ("kmeans", "cpu")
    assert result.effective_params["assignment_threshold"] == 0.5
    assert result.effective_params["n_clusters"] == N_GROUPS
    output = result.outputs[0]
    assert output.name == first.result.outputs[0].name
    assert (await qdrant.count(output.name)).count == N_GROUPS + N_DOCUMENTS + 2
    assert not await qdrant.collection_exists(first.result.outputs[0].generation)


async def test_the_threshold_is_the_callers(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "strict")
    cluster = await run(app, caller, definition(collection_ids=["strict"]))
    await add_documents(qdrant, "strict")

    cluster, newest = await assign(app, caller, cluster, threshold=0.9)

    groups = [members_of(newest)[str(number)]["cluster_id"] for number in NEW]
    assert groups[0] != "cl_noise"
    assert groups[1:] == ["cl_noise", "cl_noise"]
    # What was assigned, or not, is old now: another threshold changes nothing of it.
    cluster, newest = await assign(app, caller, cluster, threshold=0.0)
    assert [members_of(newest)[str(number)]["cluster_id"] for number in NEW] == groups


async def test_a_filter_lets_documents_drop_out_and_an_empty_group_stays(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition())

    cluster, newest = await assign(
        app,
        caller,
        cluster,
        filters={"NOT": [{"field": "color", "operator": "eq", "value": "gold"}]},
    )

    assert newest.result is not None
    assert newest.result.num_documents == N_DOCUMENTS - N_PER_GROUP
    assert newest.result.num_clusters == N_GROUPS
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    assert sorted(group.member_count for group in groups) == [0, *[N_PER_GROUP] * (N_GROUPS - 1)]
    empty = next(group for group in groups if not group.member_count)
    members = [m async for m in app.findings.members(caller, cluster.cluster_id, empty.cluster_id)]
    assert members == []


async def test_enriched_documents_follow(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "painted")
    raw = definition(collection_ids=["painted"], enrich_source_collection=True)
    cluster = await run(app, caller, raw)
    await add_documents(qdrant, "painted")

    cluster, newest = await assign(
        app,
        caller,
        cluster,
        filters={"NOT": [{"field": "color", "operator": "eq", "value": "red"}]},
    )

    new = await qdrant.retrieve("painted", list(NEW))
    assert [(p.payload or {})["cluster_label"] for p in new][2] == "Noise"
    assert {(p.payload or {})["cluster_run_id"] for p in new} == {newest.run_id}
    left = await qdrant.retrieve("painted", [0])  # Red.
    assert left[0].payload is not None
    assert "cluster_id" not in left[0].payload


async def test_hierarchies_take_new_documents_into_their_leaves(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "nested")
    config = {
        "clustering_method": "kmeans",
        "algorithm_params": {"n_clusters": 2},
        "hierarchical": True,
        "max_hierarchy_depth": 2,
    }
    cluster = await run(app, caller, definition(collection_ids=["nested"], vector_config=config))
    _, _, before = await app.findings.groups(caller, cluster.cluster_id)
    parents = {group.parent_cluster_id for group in before} - {None}
    assert parents
    await add_documents(qdrant, "nested")

    cluster, newest = await assign(app, caller, cluster)

    joined = members_of(newest)["5000"]["cluster_id"]
    assert joined not in parents
    _, _, after = await app.findings.groups(caller, cluster.cluster_id)
    grown = {
        new.cluster_id: new.member_count - old.member_count
        for old, new in zip(before, after, strict=True)
    }
    above = next(group.parent_cluster_id for group in after if group.cluster_id == joined)
    assert grown[joined] >= 1
    assert above is None or grown[above] >= grown[joined]
    assert newest.result is not None
    assert cluster.runs[0].result is not None
    assert newest.result.hierarchy_relationships == cluster.runs[0].result.hierarchy_relationships


async def add_pairs(qdrant: AsyncQdrantClient, collection: str) -> None:
    """Store documents with three groups by `shape`, two by `tone`, none by `hiss`."""
    rng = np.random.default_rng(11)
    number = np.arange(120)
    vectors = {
        "shape": np.eye(3, 8)[number % 3] + rng.normal(0, 0.05, (120, 8)),
        "tone": np.eye(2, 8)[number % 2] + rng.normal(0, 0.05, (120, 8)),
        "hiss": rng.normal(0, 1, (120, 12)),
    }
    sizes = {name: rows.shape[1] for name, rows in vectors.items()}
    await qdrant.create_collection(
        collection,
        vectors_config={
            name: models.VectorParams(size=size, distance=models.Distance.COSINE)
            for name, size in sizes.items()
        },
    )
    await qdrant.upsert(
        collection,
        [
            models.PointStruct(
                id=int(n), vector={name: rows[n].tolist() for name, rows in vectors.items()}
            )
            for n in number
        ],
        wait=True,
    )


async def add_twin(qdrant: AsyncQdrantClient, collection: str) -> None:
    """Store a new document with the vectors of document 0."""
    source = (await qdrant.retrieve(collection, [0], with_vectors=True))[0]
    assert isinstance(source.vector, dict)
    await qdrant.upsert(collection, [models.PointStruct(id=500, vector=source.vector)], wait=True)


def over(collection: str, features: list[str], n_clusters: int, strategy: str) -> dict[str, Any]:
    return {
        "collection_ids": [collection],
        "vector_config": {
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": n_clusters},
            "feature_uris": features,
            "multi_feature_strategy": strategy,
        },
    }


async def test_each_feature_takes_the_new_document_into_a_group_of_its_own(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_pairs(qdrant, "apart")
    raw = over("apart", ["shape", "tone"], 2, "independent")
    cluster = await run(app, caller, raw)
    await add_twin(qdrant, "apart")

    cluster, newest = await assign(app, caller, cluster)

    assert newest.result is not None
    path = newest.result.artifacts_url.removeprefix("file://") + "/members.parquet"
    rows = pq.read_table(path).to_pylist()
    groups = {
        name: sorted(row["cluster_id"] for row in rows if row["source_document_id"] == name)
        for name in ("0", "500")
    }
    assert [name.split(".")[0] for name in groups["500"]] == ["shape", "tone"]
    assert groups["500"] == groups["0"]
    assert newest.result.num_clusters == 4

    await app.results.enrichments.enrich(
        caller, Wanted(cluster_id=cluster.cluster_id, run_id=None, collection_id="apart")
    )
    twins = await qdrant.retrieve("apart", [0, 500])
    written = [(point.payload or {})["cluster_id"] for point in twins]
    assert written[0] == written[1] == {n.split(".")[0]: n for n in groups["0"]}


async def test_learned_weights_stay(app: App, caller: Caller, qdrant: AsyncQdrantClient) -> None:
    await add_pairs(qdrant, "weighed")
    cluster = await run(app, caller, over("weighed", ["shape", "hiss"], 3, "weighted"))
    first = cluster.runs[-1].result
    await add_twin(qdrant, "weighed")

    cluster, newest = await assign(app, caller, cluster)

    assert first is not None
    assert newest.result is not None
    assert newest.result.learned_weights == first.learned_weights is not None
    assert newest.result.learning_quality_score == first.learning_quality_score
    members = members_of(newest)
    assert members["500"]["cluster_id"] == members["0"]["cluster_id"]
    assert members["500"]["distance_to_centroid"] == pytest.approx(
        members["0"]["distance_to_centroid"], abs=1e-6
    )
