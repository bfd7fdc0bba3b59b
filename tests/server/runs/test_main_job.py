"""Whole runs through a real app: real stores, real worker process, embedded Qdrant."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from app_runs import N_GROUPS, N_PER_GROUP, add_colors, definition, finished, run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.errors import InvalidRequestError
from server.jobs.findings import NoResultsError
from server.jobs.model import EventRecord
from server.results.artifacts import RunFolder
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("method", "params"), [("kmeans", {"n_clusters": N_GROUPS}), ("hdbscan", {})]
)
async def test_groups_are_found_and_readable(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, method: str, params: dict[str, Any]
) -> None:
    created = await app.clusters.create(
        caller,
        definition(vector_config={"clustering_method": method, "algorithm_params": params}),
    )
    assert created.status == "PENDING"

    cluster, events = await finished(app, caller, created.cluster_id)

    assert cluster.status == "COMPLETED"
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["export", "load", "preprocess", "cluster", "summarize", "label", "write"]
    assert [event.status for event in events].index("completed") == len(events) - 1

    result = cluster.runs[-1].result
    assert result is not None
    assert result.num_clusters == N_GROUPS
    assert result.num_documents == N_GROUPS * N_PER_GROUP
    assert result.device == "cpu"
    assert result.quality_metrics["silhouette"] > 0.5
    assert set(result.timings_s) == set(stages)
    assert any("no vector: 1" in warning for warning in cluster.runs[-1].warnings)

    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    assert [group.member_count for group in groups] == [N_PER_GROUP] * N_GROUPS
    for group in groups:
        members = [
            member
            async for member in app.findings.members(
                caller, cluster.cluster_id, group.cluster_id, with_payload=True
            )
        ]
        assert len({member.payload["color"] for member in members if member.payload}) == 1
        distances = [member.row["distance_to_centroid"] for member in members]
        assert distances == sorted(distances)

    output = result.outputs[0]
    centroids = await qdrant.count(
        output.name,
        count_filter=models.Filter(
            must=[models.FieldCondition(key="is_centroid", match=models.MatchValue(value=True))]
        ),
    )
    everything = await qdrant.count(output.name)
    assert (centroids.count, everything.count) == (N_GROUPS, N_GROUPS * (N_PER_GROUP + 1))


async def test_artifacts_are_whole(app: App, caller: Caller, qdrant: AsyncQdrantClient) -> None:
    cluster = await run(app, caller, definition())
    result = cluster.runs[-1].result
    assert result is not None
    folder = Path(result.artifacts_url.removeprefix("file://"))
    members = pq.read_table(folder / "members.parquet")
    assert (folder / "manifest.json").exists()
    kept = RunFolder(str(folder.parents[2]), *folder.parts[-3:])
    assert "export/part-00000.parquet" in [file.name for file in kept.verify().files]
    assert list((folder / "export").glob("*.parquet"))
    assert members.num_rows == N_GROUPS * N_PER_GROUP
    assert members.column_names == [
        "source_collection_id", "source_document_id", "cluster_id", "cluster_label",
        "distance_to_centroid", "confidence", "x", "y", "z",
    ]  # fmt: skip


async def test_a_filter_chooses_the_documents(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(
        app,
        caller,
        definition(
            filters={"AND": [{"field": "color", "operator": "in", "value": ["RED", "blue"]}]},
            vector_config={
                "clustering_method": "kmeans",
                "algorithm_params": {"n_clusters": 2},
            },
        ),
    )
    result = cluster.runs[-1].result
    assert result is not None
    assert result.num_documents == 2 * N_PER_GROUP


@pytest.mark.parametrize("color", ["purple", "red"])
async def test_a_filter_that_leaves_too_few_skips_the_run(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, color: str
) -> None:
    wanted = {"color": color, "AND": [{"field": "rank", "operator": "lt", "value": 9}]}
    cluster = await run(app, caller, definition(filters=wanted))
    assert cluster.status == "SKIPPED"
    n_left = {"purple": 0, "red": 3}[color]
    assert f"the filter leaves {n_left} documents" in cluster.runs[-1].warnings[-1]
    with pytest.raises(NoResultsError):
        await app.findings.groups(caller, cluster.cluster_id)


async def test_fewer_documents_than_groups_fails_with_the_numbers(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    config = {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 1000}}
    cluster = await run(app, caller, definition(vector_config=config))
    error = cluster.runs[-1].error
    assert cluster.status == "FAILED"
    assert error is not None
    assert "240" in error.message
    assert "1000" in error.message.replace(",", "")


async def test_a_sample_is_clustered_and_the_rest_assigned(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    config = {
        "clustering_method": "kmeans",
        "algorithm_params": {"n_clusters": N_GROUPS},
        "sample_size": 80,
    }
    assigned = await run(app, caller, definition(vector_config=config))
    left = await run(app, caller, definition(vector_config={**config, "assign_rest": False}))

    assert assigned.runs[-1].result is not None
    assert left.runs[-1].result is not None
    assert assigned.runs[-1].result.num_noise == 0
    assert left.runs[-1].result.num_noise == N_GROUPS * N_PER_GROUP - 80


async def test_running_again_never_leaves_readers_without_an_output(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition(cluster_name="again"))
    first = cluster.runs[-1].result
    assert first is not None
    output = first.outputs[0]
    counts: list[int] = []

    async def read(stop: asyncio.Event) -> None:
        while not stop.is_set():
            counts.append((await qdrant.count(output.name)).count)

    stop = asyncio.Event()
    reader = asyncio.create_task(read(stop))
    await app.clusters.execute(caller, cluster.cluster_id, {})
    cluster, _ = await finished(app, caller, cluster.cluster_id)
    stop.set()
    await reader

    second = cluster.runs[-1].result
    assert second is not None
    assert second.outputs[0].name == output.name
    assert second.outputs[0].generation != output.generation
    assert set(counts) == {N_GROUPS * (N_PER_GROUP + 1)}
    names = {entry.name for entry in (await qdrant.get_collections()).collections}
    assert output.generation not in names


async def test_enrichment_writes_in_place_and_takes_back_what_left(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "enriched")
    raw = definition(
        collection_ids=["enriched"],
        enrich_source_collection=True,
        source_enrichment_config={
            "field_mappings": [
                {"source_field": "cluster_id", "target_field": "group"},
                {"source_field": "confidence", "target_field": "sure"},
                {"source_field": "keywords", "target_field": "words"},
            ]
        },
    )
    cluster = await run(app, caller, raw)
    assert cluster.status == "COMPLETED"
    everybody = await qdrant.retrieve("enriched", list(range(N_GROUPS * N_PER_GROUP)))
    assert all(p.payload and p.payload["group"].startswith("cl_") for p in everybody)
    assert all(p.payload and 0 <= p.payload["sure"] <= 1 for p in everybody)
    assert all(p.payload and p.payload["color"] in p.payload["words"] for p in everybody)
    run_ids = {p.payload["cluster_run_id"] for p in everybody if p.payload}
    assert run_ids == {cluster.runs[-1].run_id}

    await app.clusters.execute(
        caller,
        cluster.cluster_id,
        {"filters": {"NOT": [{"field": "color", "operator": "eq", "value": "gold"}]}},
    )
    cluster, _ = await finished(app, caller, cluster.cluster_id)
    after = await qdrant.retrieve("enriched", list(range(N_GROUPS * N_PER_GROUP)))
    for point in after:
        assert point.payload is not None
        assert ("group" in point.payload) == (point.payload["color"] != "gold")
        assert ("cluster_run_id" in point.payload) == (point.payload["color"] != "gold")


async def test_what_the_collections_tell_is_checked_at_once(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "wider", n_extra_dims=8)
    with pytest.raises(InvalidRequestError) as raised:
        await app.clusters.create(caller, definition(collection_ids=["nowhere", "colors", "wider"]))
    told = {fault.field: fault.description for fault in raised.value.violations}
    assert "'nowhere' does not exist" in told["collection_ids[0]"]
    assert "colors: 16 dimensions, Cosine" in told["collection_ids"]
    assert "wider: 24 dimensions, Cosine" in told["collection_ids"]


@pytest.mark.parametrize(
    "filters", [None, {"AND": [{"field": "rank", "operator": "lt", "value": 100}]}]
)
async def test_more_documents_than_memory_allows_are_refused_before_the_export(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, filters: dict[str, Any] | None
) -> None:
    config = {
        "clustering_method": "kmeans",
        "algorithm_params": {"n_clusters": 1_000_000_000},
    }
    created = await app.clusters.create(caller, definition(vector_config=config, filters=filters))
    cluster, events = await finished(app, caller, created.cluster_id)

    error = cluster.runs[-1].error
    assert error is not None
    assert error.reason == "HOST_MEMORY"
    assert "would fit" in error.message
    assert {event.stage for event in events} == {None}


async def test_a_canceled_run_leaves_nothing_half_written(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    rng = np.random.default_rng(3)
    if not await qdrant.collection_exists("slow"):
        await qdrant.create_collection(
            "slow",
            vectors_config=models.VectorParams(size=64, distance=models.Distance.EUCLID),
        )
        rows = rng.normal(size=(6000, 64)).tolist()
        await qdrant.upsert(
            "slow",
            [models.PointStruct(id=n, vector=row) for n, row in enumerate(rows)],
            wait=True,
        )
    config = {
        "clustering_method": "kmeans",
        "algorithm_params": {"n_clusters": 3000, "n_init": 1000, "tol": 0, "max_iter": 100_000},
    }
    created = await app.clusters.create(
        caller, definition(collection_ids=["slow"], vector_config=config)
    )
    async with asyncio.timeout(60):
        async for _, event in app.clusters.follow(caller, created.cluster_id, None, 0):
            if isinstance(event, EventRecord) and event.stage == "cluster":
                break
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    await app.clusters.cancel(caller, created.cluster_id, created.runs[-1].run_id)
    cluster, events = await finished(app, caller, created.cluster_id)

    assert cluster.status == "CANCELED"
    assert loop.time() - asked_at < 5 + 3  # 5 s to stop; the rest is a fresh worker's start.
    assert [event.status for event in events[-1:]] == ["canceled"]
    names = {entry.name for entry in (await qdrant.get_collections()).collections}
    assert not any(created.runs[-1].run_id in name for name in names)


async def test_deleting_takes_outputs_and_artifacts_along(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition(cluster_name="to delete"))
    result = cluster.runs[-1].result
    assert result is not None
    removed = await app.removal.delete(caller, "to delete")

    assert removed.output_collection_ids == [result.outputs[0].collection_id]
    assert not Path(result.artifacts_url.removeprefix("file://")).exists()
    assert not await qdrant.collection_exists(result.outputs[0].generation)


async def test_watchers_leave_nothing_behind(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition())
    first = app.clusters.follow(caller, cluster.cluster_id, None, 0)
    await anext(first)
    await first.aclose()
    resumed = [
        event.sequence
        async for _, event in app.clusters.follow(caller, cluster.cluster_id, None, 3)
        if isinstance(event, EventRecord)
    ]
    assert resumed[0] == 4
    assert app.events.watched_runs == 0


async def test_members_outlive_their_collection(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "gone")
    cluster = await run(app, caller, definition(collection_ids=["gone"]))
    await qdrant.delete_collection("gone")

    members = [
        member
        async for member in app.findings.members(
            caller, cluster.cluster_id, "cl_0", with_payload=True
        )
    ]

    assert len(members) == N_PER_GROUP
    assert all(member.payload is None for member in members)
