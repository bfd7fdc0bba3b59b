"""Every field of the answer that the product is built from, filled by real runs.

`test_fields.py` of the API says when each is set. Here nothing is built by hand: three jobs run,
and a field that none of them fills fails the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from app_runs import run
from qdrant_client import AsyncQdrantClient, models

from server.api.convert.clusters import cluster_to_pb
from server.app import App
from server.config import Settings
from server.jobs.model import ClusterRecord
from server.qdrant.client import connect_async
from server.tenancy import Caller
from tests.proto.test_seed import ANSWER
from tests.server.labeling.chat_server import ChatServer, failure

pytestmark = pytest.mark.asyncio(loop_scope="module")

N_POINTS = 96
LABELING = {
    "enabled": True,
    "provider": "openai_compatible",
    "model_name": "test-model",
    "labeling_inputs": {"input_mappings": [{"input_key": "title", "path": "title"}]},
}


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    server.answering = lambda request: failure(500)
    yield server
    server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    settings = Settings(
        dev=True,
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        shutdown_grace_s=0,
        llm_base_url=chat.base_url,
        llm_max_attempts=1,
    )
    async with App(settings) as app:
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs(app: App) -> AsyncIterator[str]:
    """Documents of two far groups of two near groups each; `hiss` tells nothing."""
    client: AsyncQdrantClient = connect_async(app.qdrant_address)
    rng = np.random.default_rng(1)
    number = np.arange(N_POINTS)
    far, near = np.eye(4)[number % 2] * 4, np.eye(4)[2 + number // 2 % 2]
    vectors = {
        "text": far + near + rng.normal(0, 0.05, (N_POINTS, 4)),
        "hiss": rng.normal(size=(N_POINTS, 6)),
    }
    sizes = {name: rows.shape[1] for name, rows in vectors.items()}
    await client.create_collection(
        "docs",
        vectors_config={
            name: models.VectorParams(size=size, distance=models.Distance.COSINE)
            for name, size in sizes.items()
        },
    )
    points = [
        models.PointStruct(
            id=int(n),
            vector={name: rows[n].tolist() for name, rows in vectors.items()},
            payload={
                "title": f"document {n}",
                "shelf": "ab"[n % 2],
                "year": 2000 + int(n) // 2 % 2,
                "source_bucket_id": f"bkt_{n % 3}",
            },
        )
        for n in number
    ]
    await client.upsert("docs", points, wait=True)
    yield "docs"
    await client.close()


def vectors(*features: str, **config: Any) -> dict[str, Any]:
    return {
        "clustering_method": "kmeans",
        "algorithm_params": {"n_clusters": 2},
        "feature_uris": list(features),
        **config,
    }


async def clusters_of_all_kinds(app: App, caller: Caller) -> list[ClusterRecord]:
    weighted = await run(
        app,
        caller,
        {
            "collection_ids": ["docs"],
            "vector_config": vectors(
                "text",
                "hiss",
                multi_feature_strategy="weighted",
                hierarchical=True,
                max_hierarchy_depth=2,
            ),
            "filters": {"AND": [{"field": "year", "operator": "gte", "value": 2000}]},
            "llm_labeling": LABELING,
            "metadata": {"owner": "search"},
        },
    )
    child = await run(
        app,
        caller,
        {
            "collection_ids": ["docs"],
            "vector_config": vectors("text"),
            "parent_cluster_id": weighted.cluster_id,
            "parent_group_id": "cl_0",
        },
    )
    nested = await run(
        app,
        caller,
        {
            "collection_ids": ["docs"],
            "cluster_type": "attribute",
            "attribute_config": {"attributes": ["shelf", "year"], "hierarchical_grouping": True},
            "enrich_source_collection": True,
            "source_enrichment_config": {
                "field_mappings": [{"source_field": "cluster_id", "target_field": "group"}]
            },
        },
    )
    parent = await app.clusters.get(caller, weighted.cluster_id)
    return [parent, child, nested]


async def test_every_field_of_the_answer_is_filled_by_a_run(
    app: App, caller: Caller, docs: str
) -> None:
    clusters = await clusters_of_all_kinds(app, caller)

    assert [cluster.status for cluster in clusters] == [
        "COMPLETED_WITH_ERRORS",
        "COMPLETED",
        "COMPLETED",
    ], [cluster.runs[-1].error for cluster in clusters]
    answers = [cluster_to_pb(cluster) for cluster in clusters]
    filled = {field.name for answer in answers for field, _ in answer.ListFields()}
    assert sorted(set(ANSWER) - filled) == []

    weighted, child, nested = answers
    assert list(weighted.source_bucket_ids) == ["bkt_0", "bkt_1", "bkt_2"]
    weights = dict(weighted.learned_weights)
    assert weights["hiss"] < 0.1 < weights["text"]
    assert 0 < weighted.learning_quality_score <= 1
    assert (weighted.num_clusters, weighted.num_documents_clustered) == (4, N_POINTS)
    assert weighted.hierarchy_detected
    assert list(weighted.child_cluster_ids) == [child.cluster_id]
    assert child.parent_cluster_id == weighted.cluster_id
    assert child.num_documents_clustered == N_POINTS // 2
    assert (nested.algorithm, nested.num_clusters) == ("attribute_based", 4)
    assert list(nested.output_collection_ids) == []
    for answer in answers:
        moments = [answer.created_at, answer.last_executed_at, answer.completed_at]
        assert moments == sorted(moments, key=lambda moment: moment.ToNanoseconds())
        took = answer.completed_at.ToNanoseconds() - answer.last_executed_at.ToNanoseconds()
        assert answer.execution_time_seconds == pytest.approx(took / 1e9, abs=0.01)
