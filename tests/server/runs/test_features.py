"""Runs over several vectors, prepared vectors, and members that carry theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from app_runs import run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.errors import InvalidRequestError
from server.jobs.model import RunResult
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 180


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pairs(qdrant: AsyncQdrantClient) -> str:
    """Store documents whose `shape` has three groups, `tone` two, and `hiss` none."""
    rng = np.random.default_rng(11)
    number = np.arange(N_POINTS)
    vectors = {
        "shape": np.eye(3, 8)[number % 3] + rng.normal(0, 0.05, (N_POINTS, 8)),
        "tone": np.eye(2, 8)[number % 2] + rng.normal(0, 0.05, (N_POINTS, 8)),
        "hiss": rng.normal(0, 1, (N_POINTS, 12)),
    }
    await qdrant.create_collection(
        "pairs",
        vectors_config={
            name: models.VectorParams(size=rows.shape[1], distance=models.Distance.COSINE)
            for name, rows in vectors.items()
        },
    )
    points = [
        models.PointStruct(
            id=int(n), vector={name: rows[n].tolist() for name, rows in vectors.items()}
        )
        for n in number
    ]
    await qdrant.upsert("pairs", points, wait=True)
    return "pairs"


def over(features: list[str], n_clusters: int, **config: Any) -> dict[str, Any]:
    return {
        "collection_ids": ["pairs"],
        "vector_config": {
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": n_clusters},
            "feature_uris": features,
            **config,
        },
    }


async def result_of(app: App, caller: Caller, raw: dict[str, Any]) -> tuple[str, RunResult]:
    cluster = await run(app, caller, raw)
    assert cluster.status == "COMPLETED", cluster.runs[-1].error
    assert cluster.runs[-1].result is not None
    return cluster.cluster_id, cluster.runs[-1].result


async def test_features_side_by_side_find_what_only_both_tell(
    app: App, caller: Caller, pairs: str
) -> None:
    cluster_id, result = await result_of(app, caller, over(["shape", "tone"], 6))
    _, _, groups = await app.findings.groups(caller, cluster_id)
    assert [group.member_count for group in groups] == [N_POINTS // 6] * 6
    assert result.feature_uris == ["shape", "tone"]
    assert result.learned_weights is None


async def test_weights_decide_what_counts(app: App, caller: Caller, pairs: str) -> None:
    raw = over(["shape", "tone"], 3, feature_weights={"shape": 1.0, "tone": 0.0})
    cluster_id, _ = await result_of(app, caller, raw)
    _, _, groups = await app.findings.groups(caller, cluster_id)
    assert [group.member_count for group in groups] == [N_POINTS // 3] * 3


async def test_learned_weights_turn_noise_down(app: App, caller: Caller, pairs: str) -> None:
    raw = over(["shape", "hiss"], 3, multi_feature_strategy="weighted")
    cluster_id, result = await result_of(app, caller, raw)
    _, _, groups = await app.findings.groups(caller, cluster_id)
    assert result.learned_weights is not None
    assert result.learning_quality_score is not None
    assert result.learned_weights["hiss"] < 0.1 < result.learned_weights["shape"]
    assert [group.member_count for group in groups] == [N_POINTS // 3] * 3


async def test_each_feature_alone_has_its_groups_and_its_output(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    raw = over(
        ["shape", "tone"],
        2,
        multi_feature_strategy="independent",
        output_strategy="per_feature",
    )
    cluster_id, result = await result_of(app, caller, raw)
    _, _, groups = await app.findings.groups(caller, cluster_id)

    assert {group.cluster_id for group in groups} == {
        "shape.cl_0",
        "shape.cl_1",
        "tone.cl_0",
        "tone.cl_1",
    }
    assert result.num_clusters == 4
    assert set(result.quality_metrics) == {"shape", "tone"}
    assert [output.feature for output in result.outputs] == ["shape", "tone"]
    for output in result.outputs:
        assert (await qdrant.count(output.name)).count == 2 + N_POINTS
    in_tone = app.findings.members(caller, cluster_id, "tone.cl_1")
    assert sum([1 async for _ in in_tone]) == N_POINTS // 2


async def test_one_output_cannot_hold_centroids_of_two_sizes(
    app: App, caller: Caller, pairs: str
) -> None:
    raw = over(["shape", "hiss"], 2, multi_feature_strategy="independent")
    with pytest.raises(InvalidRequestError, match="per_feature takes them"):
        await app.clusters.create(caller, raw)


async def test_steps_prepare_the_vectors_and_centroids_stay_in_their_space(
    app: App, caller: Caller, pairs: str
) -> None:
    raw = over(
        ["shape"],
        3,
        preprocessing_steps=[{"method": "pca", "n_components": 3}, {"method": "normalize"}],
    )
    cluster_id, _ = await result_of(app, caller, raw)
    _, _, groups = await app.findings.groups(caller, cluster_id, vectors=True)
    assert [group.member_count for group in groups] == [N_POINTS // 3] * 3
    assert all(group.centroid is not None and len(group.centroid) == 8 for group in groups)


async def test_members_carry_their_vectors_when_asked(
    app: App, caller: Caller, qdrant: AsyncQdrantClient, pairs: str
) -> None:
    _, result = await result_of(app, caller, over(["tone"], 2, members_with_vectors=True))
    found, _ = await qdrant.scroll(
        result.outputs[0].name,
        scroll_filter=models.Filter(
            must=[
                models.FieldCondition(key="source_document_id", match=models.MatchValue(value="7"))
            ]
        ),
        with_vectors=True,
    )
    source = (await qdrant.retrieve("pairs", [7], with_vectors=["tone"]))[0]
    assert isinstance(found[0].vector, dict)
    assert isinstance(source.vector, dict)
    np.testing.assert_allclose(found[0].vector["vector"], source.vector["tone"], atol=1e-6)
