"""Vectors that are hard to tell apart, or that no run can cluster."""

from __future__ import annotations

import numpy as np
import pytest
from app_runs import run
from qdrant_client import AsyncQdrantClient, models

from server.app import App
from server.errors import InvalidRequestError
from server.tenancy import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 60


async def test_features_that_would_be_called_alike_get_outputs_of_their_own(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    rng = np.random.default_rng(4)
    cosine = models.Distance.COSINE
    await qdrant.create_collection(
        "twins",
        vectors_config={
            "text-a": models.VectorParams(size=8, distance=cosine),
            "text_a": models.VectorParams(size=8, distance=cosine),
        },
    )
    rows = rng.normal(size=(2, N_POINTS, 8))
    points = [
        models.PointStruct(
            id=n, vector={"text-a": rows[0, n].tolist(), "text_a": rows[1, n].tolist()}
        )
        for n in range(N_POINTS)
    ]
    await qdrant.upsert("twins", points, wait=True)
    cluster = await run(
        app,
        caller,
        {
            "collection_ids": ["twins"],
            "vector_config": {
                "clustering_method": "kmeans",
                "algorithm_params": {"n_clusters": 2},
                "feature_uris": ["text-a", "text_a"],
                "multi_feature_strategy": "independent",
                "output_strategy": "per_feature",
            },
        },
    )
    result = cluster.runs[-1].result
    assert result is not None
    assert [output.feature for output in result.outputs] == ["text-a", "text_a"]
    assert len({output.name for output in result.outputs}) == 2
    for output in result.outputs:
        assert (await qdrant.count(output.name)).count == N_POINTS + 2


async def test_a_multivector_is_refused_at_create(
    app: App, caller: Caller, qdrant: AsyncQdrantClient
) -> None:
    await qdrant.create_collection(
        "matrices",
        vectors_config={
            "late": models.VectorParams(
                size=4,
                distance=models.Distance.COSINE,
                multivector_config=models.MultiVectorConfig(
                    comparator=models.MultiVectorComparator.MAX_SIM
                ),
            )
        },
    )
    raw = {
        "collection_ids": ["matrices"],
        "vector_config": {"clustering_method": "hdbscan", "feature_uri": "late"},
    }
    with pytest.raises(InvalidRequestError) as raised:
        await app.clusters.create(caller, raw)
    (fault,) = raised.value.violations
    assert fault.field == "vector_config.feature_uri"
    assert "several vectors for each document" in fault.description
