"""Renamed groups in what a run wrote into Qdrant."""

from __future__ import annotations

import pytest
from app_runs import N_PER_GROUP, add_colors, definition, finished, run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.jobs.model import GroupNames
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")


def where(**values: object) -> models.Filter:
    return models.Filter(
        must=[
            models.FieldCondition(key=key, match=models.MatchValue(value=value))
            for key, value in values.items()
        ]
    )


async def test_the_output_collection_follows(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition())
    newest = cluster.runs[-1]
    assert newest.result is not None
    output = newest.result.outputs[0].name

    await app.results.renames.rename(
        caller,
        cluster.cluster_id,
        newest.run_id,
        [GroupNames(cluster_id="cl_2", label="Third", summary="The third", keywords=["three"])],
    )
    centroids, _ = await qdrant.scroll(output, where(is_centroid=True, label="Third"))
    members = await qdrant.count(output, where(is_centroid=False, cluster_label="Third"))
    others = await qdrant.count(output, where(is_centroid=False, cluster_label="Cluster 1"))

    payload = centroids[0].payload
    assert payload is not None
    assert (payload["cluster_id"], payload["summary"], payload["keywords"]) == (
        "cl_2",
        "The third",
        ["three"],
    )
    assert (members.count, others.count) == (N_PER_GROUP, N_PER_GROUP)

    await app.results.renames.rename(
        caller, cluster.cluster_id, newest.run_id, [GroupNames(cluster_id="cl_2", summary="")]
    )
    centroids, _ = await qdrant.scroll(output, where(is_centroid=True, label="Third"))
    assert centroids[0].payload is not None
    assert "summary" not in centroids[0].payload


async def test_an_older_run_is_renamed_without_touching_the_newer_ones_output(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    cluster = await run(app, caller, definition())
    older = cluster.runs[-1].run_id
    await app.clusters.execute(caller, cluster.cluster_id, {})
    cluster, _ = await finished(app, caller, cluster.cluster_id)
    assert cluster.runs[-1].result is not None

    await app.results.renames.rename(
        caller, cluster.cluster_id, older, [GroupNames(cluster_id="cl_0", label="Old")]
    )

    output = cluster.runs[-1].result.outputs[0].name
    assert (await qdrant.count(output, where(label="Old"))).count == 0
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id, older)
    assert groups[0].label == "Old"


async def test_enriched_documents_follow_where_they_are_still_the_runs(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await add_colors(qdrant, "renamed")
    raw = definition(collection_ids=["renamed"], enrich_source_collection=True)
    cluster = await run(app, caller, raw)
    newest = cluster.runs[-1].run_id
    members = [m async for m in app.findings.members(caller, cluster.cluster_id, "cl_0")]
    stolen = int(members[0].row["source_document_id"])
    await qdrant.set_payload("renamed", {"cluster_run_id": "run_other"}, [stolen], wait=True)

    await app.results.renames.rename(
        caller, cluster.cluster_id, newest, [GroupNames(cluster_id="cl_0", label="Mine")]
    )

    assert (await qdrant.count("renamed", where(cluster_label="Mine"))).count == N_PER_GROUP - 1
    left = await qdrant.retrieve("renamed", [stolen])
    assert left[0].payload is not None
    assert left[0].payload["cluster_label"] == "Cluster 0"
