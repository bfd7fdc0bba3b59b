"""Writing a run's membership into a collection, over the wire."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_pb2, enrichment_pb2, group_pb2
from google.protobuf import json_format
from qdrant_client import QdrantClient
from qdrant_client.models import PointStruct

from server.results.enrich import RUN_FIELD
from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World

N_DOCUMENTS = 20


@pytest.fixture
def shelf(client: QdrantClient) -> Iterator[str]:
    """A collection that no run clustered, with some of the documents of `products`."""
    name = f"shelf-{uuid.uuid4().hex[:8]}"
    client.create_collection(name, vectors_config={})
    client.upsert(
        name,
        [PointStruct(id=i, vector={}, payload={"row": i}) for i in range(10, 25)],
        wait=True,
    )
    yield name
    client.delete_collection(name)


async def enrich(caller: Caller, **body: Any) -> enrichment_pb2.EnrichCollectionResponse:
    request = json_format.ParseDict(
        {"cluster_id": "done", **body}, enrichment_pb2.EnrichCollectionRequest()
    )
    answer: enrichment_pb2.EnrichCollectionResponse = await caller.call(
        caller.clusters.EnrichCollection, request
    )
    return answer


def payloads(client: QdrantClient, collection: str) -> dict[int, dict[str, Any]]:
    points, _ = client.scroll(collection, limit=100)
    return {int(point.id): point.payload or {} for point in points}


@pytest.fixture(autouse=True)
def clean(client: QdrantClient, products: str) -> Iterator[None]:
    """The products are shared: take away what a test wrote into them."""
    yield
    fields = [RUN_FIELD, "cluster_id", "cluster_label", "distance_to_centroid", "shelf", "sure"]
    client.delete_payload(products, fields, points=list(range(N_DOCUMENTS)), wait=True)


async def test_every_document_gets_its_group(
    client: QdrantClient, caller: Caller, finished: cluster_pb2.Cluster, products: str
) -> None:
    answer = await enrich(caller, collection_id=products)

    assert (answer.cluster_id, answer.run_id) == (finished.cluster_id, finished.last_run_id)
    assert answer.collection_id == products
    assert (answer.processed, answer.enriched, answer.failed) == (N_DOCUMENTS, N_DOCUMENTS, 0)
    assert list(answer.warnings) == []
    written = payloads(client, products)
    assert {row["cluster_label"] for row in written.values()} == {
        "Red things",
        "Cluster 1",
        "Noise",
    }
    assert written[0]["cluster_id"] == "cl_0"
    assert written[0]["distance_to_centroid"] == pytest.approx(0.9)
    assert "distance_to_centroid" not in written[19]
    assert {row[RUN_FIELD] for row in written.values()} == {finished.last_run_id}
    assert written[0]["category"] == "a"


async def test_mappings_filters_and_batches_are_the_callers(
    client: QdrantClient, caller: Caller, finished: cluster_pb2.Cluster, products: str
) -> None:
    answer = await enrich(
        caller,
        collection_id=products,
        source_enrichment_config={
            "field_mappings": [
                {"source_field": "cluster_label", "target_field": "shelf"},
                {"source_field": "confidence", "target_field": "sure"},
            ]
        },
        filters={"category": "a"},
        batch_size=3,
    )

    assert (answer.processed, answer.enriched, answer.batches) == (10, 10, 4)
    written = payloads(client, products)
    assert [("shelf" in written[i], "cluster_id" in written[i]) for i in (0, 1)] == [
        (True, False),
        (False, False),
    ]


async def test_repeating_it_changes_nothing(
    client: QdrantClient, caller: Caller, finished: cluster_pb2.Cluster, products: str
) -> None:
    first = await enrich(caller, collection_id=products)
    before = payloads(client, products)
    second = await enrich(caller, collection_id=products)

    assert first == second
    assert payloads(client, products) == before


async def test_another_collection_gets_what_it_holds(
    client: QdrantClient, caller: Caller, finished: cluster_pb2.Cluster, shelf: str
) -> None:
    answer = await enrich(caller, collection_id=shelf)
    some = await enrich(
        caller,
        collection_id=shelf,
        filters={"AND": [{"field": "row", "operator": "gte", "value": 18}]},
    )

    assert (answer.processed, answer.enriched, answer.failed) == (20, 10, 10)
    assert "10 documents of the run are not in" in answer.warnings[0]
    assert (some.processed, some.enriched, some.failed) == (2, 2, 0)
    assert "5 documents that match are not among the run's" in some.warnings[0]
    written = payloads(client, shelf)
    assert written[12]["cluster_id"] == "cl_1"
    assert "cluster_id" not in written[22]


async def test_names_are_those_of_now(
    client: QdrantClient, caller: Caller, finished: cluster_pb2.Cluster, products: str
) -> None:
    await caller.call(
        caller.clusters.PatchExecutionLabels,
        group_pb2.PatchExecutionLabelsRequest(
            cluster_id="done",
            run_id=finished.last_run_id,
            labels=[{"cluster_id": "cl_0", "label": "Warm"}],
        ),
    )
    await enrich(caller, collection_id=products)

    assert payloads(client, products)[0]["cluster_label"] == "Warm"


async def test_all_faults_are_told_at_once(caller: Caller) -> None:
    failure = await failure_of(
        enrich(
            caller,
            cluster_id="",
            collection_id="a__b",
            source_enrichment_config={
                "field_mappings": [
                    {"source_field": "colour", "target_field": "a"},
                    {"source_field": "cluster_id", "target_field": "cluster_run_id"},
                    {"source_field": "cluster_id", "target_field": "a"},
                ]
            },
            filters={"AND": [{"field": "x", "operator": "near", "value": 1}]},
            batch_size=10_001,
        )
    )

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    mapping = "source_enrichment_config.field_mappings"
    assert failure.violations.keys() == {
        "cluster_id", "collection_id", f"{mapping}[0].source_field",
        f"{mapping}[1].target_field", f"{mapping}[2].target_field",
        "filters.AND[0].operator", "batch_size",
    }  # fmt: skip


async def test_a_collection_that_is_not_there_is_not_found(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    failure = await failure_of(enrich(caller, collection_id="nowhere"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND")


async def test_another_namespace_sees_neither_run_nor_collection(
    world: World, finished: cluster_pb2.Cluster, products: str
) -> None:
    await world.tenancy.create_namespace("org_test", "elsewhere")
    stranger = world.connect(key=await world.key_for("write", "elsewhere"), namespace="elsewhere")

    failure = await failure_of(
        enrich(stranger, cluster_id=finished.cluster_id, collection_id=products)
    )

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "CLUSTER_NOT_FOUND")


async def test_a_run_without_groups_has_nothing_to_write(
    caller: Caller, body: dict[str, Any], products: str
) -> None:
    await caller.create({**body, "cluster_name": "done"})

    failure = await failure_of(enrich(caller, collection_id=products))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_RESULTS")
