"""Values that runs write into their sources: places, and those of several groups at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from app_runs import run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.jobs.enriching import parse_enrichment
from server.jobs.model import ClusterRecord, GroupNames
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 12
"""So few that no UMAP has to be compiled: they are laid out by PCA."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pairs(qdrant: AsyncQdrantClient) -> str:
    """Store documents whose `shape` has three groups and `tone` two."""
    rng = np.random.default_rng(3)
    number = np.arange(N_POINTS)
    vectors = {
        "shape": np.eye(3, 4)[number % 3] + rng.normal(0, 0.05, (N_POINTS, 4)),
        "tone": np.eye(2, 4)[number % 2] + rng.normal(0, 0.05, (N_POINTS, 4)),
    }
    await qdrant.create_collection(
        "few",
        vectors_config={
            name: models.VectorParams(size=4, distance=models.Distance.COSINE) for name in vectors
        },
    )
    points = [
        models.PointStruct(
            id=int(n),
            vector={name: rows[n].tolist() for name, rows in vectors.items()},
            payload={"sizes": [["s"], ["s", "m"], []][n % 3], "n": int(n)},
        )
        for n in number
    ]
    await qdrant.upsert("few", points, wait=True)
    return "few"


def over(*features: str, fields: list[str], **config: Any) -> dict[str, Any]:
    return {
        "collection_ids": ["few"],
        "vector_config": {
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": 3},
            "feature_uris": list(features),
            **config,
        },
        "enrich_source_collection": True,
        "source_enrichment_config": mapped(*fields),
    }


def mapped(*fields: str) -> dict[str, Any]:
    return {
        "field_mappings": [{"source_field": name, "target_field": f"my_{name}"} for name in fields]
    }


async def completed(app: App, caller: Caller, raw: dict[str, Any]) -> ClusterRecord:
    cluster = await run(app, caller, raw)
    assert cluster.status == "COMPLETED", cluster.runs[-1].error
    return cluster


async def payloads(qdrant: AsyncQdrantClient) -> dict[int, dict[str, Any]]:
    points, _ = await qdrant.scroll("few", limit=100)
    return {int(point.id): point.payload or {} for point in points}


def folder_of(cluster: ClusterRecord) -> Path:
    result = cluster.runs[-1].result
    assert result is not None
    return Path(result.artifacts_url.removeprefix("file://"))


async def test_a_run_that_is_asked_for_places_makes_its_map(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    cluster = await completed(app, caller, over("shape", fields=["cluster_id", "x", "y", "z"]))

    table = pq.read_table(folder_of(cluster) / "members.parquet")
    assert all(table[axis].null_count == 0 for axis in "xyz")
    by_id = {int(row["source_document_id"]): row for row in table.to_pylist()}
    for number, payload in (await payloads(qdrant)).items():
        row = by_id[number]
        assert [payload[f"my_{axis}"] for axis in "xyz"] == pytest.approx(
            [row[axis] for axis in "xyz"]
        )
    places = np.column_stack([table[axis].to_numpy() for axis in "xyz"])
    names = np.array(table["cluster_id"].to_pylist())
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (names[apart.argmin(axis=1)] == names).all()

    # The map that GetVisualization shows is that one; nobody makes it again.
    async with asyncio.timeout(5):
        shown = await app.results.maps.show(caller, cluster.cluster_id, max_points=100, n_dims=3)
    assert shown.points is not None
    assert shown.points.select(["x", "y", "z"]).equals(
        table.select(["x", "y", "z"]).cast(shown.points.select(["x", "y", "z"]).schema)
    )
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    for group in groups:
        assert group.place is not None
        np.testing.assert_array_equal(group.place, shown.centres[group.cluster_id])
    exported = await app.results.exports.export(
        caller, cluster.cluster_id, cluster.runs[-1].run_id, "csv"
    )
    text = (folder_of(cluster) / exported.files[0].name).read_text().splitlines()
    assert text[0].endswith('"x","y","z"')
    assert all(cell for cell in text[1].split(",")[-3:])


async def test_a_second_run_lies_over_the_map_of_the_first(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    cluster = await completed(app, caller, over("tone", fields=["x", "y"]))
    first = await payloads(qdrant)
    turned = {number: [payload["my_y"] + 5, -payload["my_x"]] for number, payload in first.items()}
    # As an earlier map that lies otherwise: what is made next has to be turned to it.
    path = folder_of(cluster) / "layout.parquet"
    table = pq.read_table(path)
    ids = [int(text) for text in table["source_document_id"].to_pylist()]
    for axis, name in enumerate("xy"):
        at = table.schema.get_field_index(name)
        column = np.array([turned[number][axis] for number in ids], dtype=np.float32)
        table = table.set_column(at, table.schema.field(name), [column])
    pq.write_table(table, path)

    await app.clusters.execute(caller, cluster.cluster_id, {})
    async with asyncio.timeout(60):
        async for _ in app.clusters.follow(caller, cluster.cluster_id, None, 0):
            pass

    for number, payload in (await payloads(qdrant)).items():
        assert [payload["my_x"], payload["my_y"]] == pytest.approx(turned[number], abs=1e-3)


async def test_a_document_has_the_values_of_each_feature(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    fields = ["cluster_id", "cluster_label", "distance_to_centroid", "member_count", "x"]
    raw = over("shape", "tone", fields=fields, multi_feature_strategy="independent")
    raw["vector_config"]["algorithm_params"] = {"n_clusters": 2}
    cluster = await completed(app, caller, raw)

    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    by_id = {group.cluster_id: group for group in groups}
    assert {group.feature_uri for group in groups} == {"shape", "tone"}
    for payload in (await payloads(qdrant)).values():
        ids = payload["my_cluster_id"]
        assert set(ids) == {"shape", "tone"}
        for feature, cluster_id in ids.items():
            group = by_id[cluster_id]
            assert group.feature_uri == feature
            assert payload["my_cluster_label"][feature] == group.label
            assert payload["my_member_count"][feature] == group.member_count
            assert payload["my_distance_to_centroid"][feature] >= 0
        assert isinstance(payload["my_x"], float)
    in_tone = models.Filter(
        must=[
            models.FieldCondition(
                key="my_cluster_id.tone", match=models.MatchValue(value="tone.cl_0")
            )
        ]
    )
    assert (await qdrant.count("few", in_tone)).count == by_id["tone.cl_0"].member_count

    # A new name of one feature's group leaves the other feature's as it is.
    await app.results.renames.rename(
        caller,
        cluster.cluster_id,
        cluster.runs[-1].run_id,
        [GroupNames(cluster_id="tone.cl_0", label="Warm")],
    )
    for payload in (await payloads(qdrant)).values():
        shape, tone = payload["my_cluster_id"]["shape"], payload["my_cluster_id"]["tone"]
        assert payload["my_cluster_label"] == {
            "shape": by_id[shape].label,
            "tone": "Warm" if tone == "tone.cl_0" else by_id[tone].label,
        }


async def test_a_document_with_several_values_is_in_all_their_groups(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    raw = {
        "collection_ids": ["few"],
        "cluster_type": "attribute",
        "attribute_config": {"attributes": ["sizes"]},
        "enrich_source_collection": True,
        "source_enrichment_config": mapped("cluster_id", "cluster_label", "confidence"),
    }
    cluster = await completed(app, caller, raw)

    found = await payloads(qdrant)
    assert [found[n]["my_cluster_label"] for n in range(3)] == [
        "sizes: s",
        ["sizes: s", "sizes: m"],
        "sizes: (missing)",
    ]
    assert len(found[1]["my_cluster_id"]) == 2
    assert cluster.runs[-1].warnings == [
        "no document has a confidence, so the field 'my_confidence' was not written"
    ]
    assert not any("my_confidence" in payload for payload in found.values())


async def test_enrich_collection_makes_the_map_that_it_is_asked_for(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    raw = over("shape", fields=["cluster_id"])
    cluster = await completed(app, caller, raw | {"enrich_source_collection": False})
    assert not (folder_of(cluster) / "layout.parquet").exists()
    wanted = parse_enrichment(
        {
            "cluster_id": cluster.cluster_id,
            "collection_id": "few",
            "source_enrichment_config": {
                "field_mappings": [
                    {"source_field": "x", "target_field": "map_x"},
                    {"source_field": "y", "target_field": "map_y"},
                ]
            },
        }
    )

    done = await app.results.enrichments.enrich(caller, wanted)

    assert done.report.enriched == N_POINTS
    shown = await app.results.maps.show(caller, cluster.cluster_id, max_points=100)
    assert shown.points is not None
    written = await payloads(qdrant)
    for row in shown.points.to_pylist():
        payload = written[int(row["source_document_id"])]
        assert [payload["map_x"], payload["map_y"]] == pytest.approx([row["x"], row["y"]])
