"""Which distance a run clusters and measures by, and which it is refused for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from app_runs import run
from qdrant_client import AsyncQdrantClient, models
from scipy.spatial.distance import cdist
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score, silhouette_score

from server.app import App
from server.errors import InvalidRequestError
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 120
DISTANCES = {
    "l1": "Manhattan",
    "l1_too": "Manhattan",
    "l2": "Euclid",
    "angle": "Cosine",
    "dot": "Dot",
}


def vectors() -> np.ndarray:
    rng = np.random.default_rng(11)
    centres = 4 * rng.normal(size=(3, 6))
    return (centres[np.arange(N_POINTS) % 3] + rng.normal(size=(N_POINTS, 6))).astype(np.float32)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collection(qdrant: AsyncQdrantClient) -> str:
    """One set of vectors under every distance."""
    rows = vectors()
    await qdrant.create_collection(
        "distances",
        vectors_config={
            name: models.VectorParams(size=6, distance=models.Distance(distance))
            for name, distance in DISTANCES.items()
        },
    )
    points = [
        models.PointStruct(id=n, vector={name: row.tolist() for name in DISTANCES})
        for n, row in enumerate(rows)
    ]
    await qdrant.upsert("distances", points, wait=True)
    return "distances"


def over(collection: str, *features: str, **config: Any) -> dict[str, Any]:
    return {
        "collection_ids": [collection],
        "vector_config": {"feature_uris": list(features), **config},
    }


async def faults(app: App, caller: Caller, raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as raised:
        await app.clusters.create(caller, raw)
    return {fault.field: fault.description for fault in raised.value.violations}


async def test_manhattan_vectors_are_clustered_and_measured_by_their_own_distance(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, collection: str
) -> None:
    cluster = await run(app, caller, over(collection, "l1", clustering_method="hdbscan"))

    assert cluster.status == "COMPLETED"
    result = cluster.runs[-1].result
    assert result is not None
    rows = vectors()
    theirs = HDBSCAN(metric="manhattan", copy=True).fit(rows).labels_
    labels = np.full(N_POINTS, -1)
    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    for position, group in enumerate(groups):
        members = [
            member.row
            async for member in app.findings.members(caller, cluster.cluster_id, group.cluster_id)
        ]
        ids = [int(member["source_document_id"]) for member in members]
        labels[ids] = position
        by_hand = cdist(rows[ids], [rows[ids].mean(axis=0)], "cityblock")[:, 0]
        told = [member["distance_to_centroid"] for member in members]
        assert told == sorted(told)
        assert told == pytest.approx(by_hand, rel=1e-4)
    assert adjusted_rand_score(theirs, labels) >= 0.99

    grouped = labels >= 0
    assert result.quality_metrics["silhouette"] == pytest.approx(
        silhouette_score(rows[grouped], labels[grouped], metric="manhattan"), abs=1e-4
    )
    assert result.quality_metrics["davies_bouldin"] is None
    assert any("davies_bouldin" in warning for warning in cluster.runs[-1].warnings)
    described = await qdrant.get_collection(result.outputs[0].name)
    stored = described.config.params.vectors
    [params] = stored.values() if isinstance(stored, dict) else [stored]
    assert params is not None
    assert params.distance == models.Distance.MANHATTAN


async def test_a_sample_of_manhattan_vectors_is_spread_by_their_distance(
    app: App, caller: Caller, collection: str
) -> None:
    config = {
        "clustering_method": "agglomerative",
        "algorithm_params": {"n_clusters": 3, "linkage": "average"},
        "sample_size": 60,
        "effective_feature_method": "median",
    }
    cluster = await run(app, caller, over(collection, "l1", **config))

    _, _, groups = await app.findings.groups(caller, cluster.cluster_id)
    assert [group.member_count for group in groups] == [40, 40, 40]


async def test_dot_vectors_are_grouped_by_direction_and_given_back_with_their_lengths(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, collection: str
) -> None:
    config = {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 3}}
    by_angle = await run(app, caller, over(collection, "angle", **config))
    by_dot = await run(app, caller, over(collection, "dot", **config))
    whole = await run(app, caller, over(collection, "dot", members_with_vectors=True, **config))

    groups = [
        (await app.findings.groups(caller, cluster.cluster_id, vectors=True))[2]
        for cluster in (by_angle, by_dot, whole)
    ]
    assert [[g.member_count for g in each] for each in groups] == [[40, 40, 40]] * 3
    for each in groups[1:]:
        for expected, group in zip(groups[0], each, strict=True):
            np.testing.assert_allclose(group.centroid, expected.centroid, atol=1e-6)
    assert whole.runs[-1].result is not None
    one = models.FieldCondition(key="source_document_id", match=models.MatchValue(value="7"))
    found, _ = await qdrant.scroll(
        whole.runs[-1].result.outputs[0].name,
        scroll_filter=models.Filter(must=[one]),
        with_vectors=True,
    )
    assert isinstance(found[0].vector, dict)
    np.testing.assert_allclose(found[0].vector["vector"], vectors()[7], rtol=1e-6)


async def test_a_method_without_manhattan_distance_is_refused_with_those_that_have_it(
    app: App, caller: Caller, collection: str
) -> None:
    for method in ("kmeans", "spectral", "gaussian_mixture", "mean_shift", "evoc", "auto"):
        told = await faults(app, caller, over(collection, "l1", clustering_method=method))
        assert told == {
            "vector_config.clustering_method": f"{method} cannot cluster by Manhattan distance; "
            "these can: hdbscan, dbscan, agglomerative, optics"
        }


async def test_ward_is_refused_where_manhattan_distance_has_none(
    app: App, caller: Caller, collection: str
) -> None:
    told = await faults(app, caller, over(collection, "l1", clustering_method="agglomerative"))

    words = told["vector_config.algorithm_params.linkage"]
    assert "use complete, average or single" in words


async def test_the_distance_that_counts_is_the_one_after_the_steps(
    app: App, caller: Caller, collection: str
) -> None:
    steps = [{"method": "pca", "n_components": 4}]
    config = {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 3}}
    cluster = await run(app, caller, over(collection, "l1", preprocessing_steps=steps, **config))
    assert cluster.status == "COMPLETED"

    told = await faults(
        app,
        caller,
        over(collection, "angle", preprocessing_steps=steps, clustering_method="evoc"),
    )
    words = told["vector_config.clustering_method"]
    assert "Euclid distance, which the preprocessing steps end in" in words


async def test_features_side_by_side_are_of_manhattan_distance_when_all_are(
    app: App, caller: Caller, collection: str
) -> None:
    config = {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 3}}
    told = await faults(app, caller, over(collection, "l1", "l1_too", **config))
    assert "kmeans cannot cluster by Manhattan" in told["vector_config.clustering_method"]

    mixed = await run(app, caller, over(collection, "l1", "l2", **config))
    assert mixed.status == "COMPLETED"
    assert mixed.runs[-1].result is not None
    assert mixed.runs[-1].result.distance == "Euclid"


async def test_a_distance_that_the_method_lacks_is_refused(
    app: App, caller: Caller, collection: str
) -> None:
    told = await faults(app, caller, over(collection, "l2", clustering_method="evoc"))

    words = told["vector_config.clustering_method"]
    assert words.startswith("evoc cannot cluster by Euclid distance; these can: hdbscan")
