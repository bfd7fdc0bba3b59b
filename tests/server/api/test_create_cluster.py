"""CreateCluster over the wire: what comes back, and what is refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_requests_pb2
from google.protobuf import json_format
from google.rpc import error_details_pb2

from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World


def seed_example(collection: str) -> dict[str, Any]:
    """The seed's example body, its placeholders filled and labeling off."""
    return {
        "collection_ids": [collection],
        "cluster_name": "from the seed",
        "cluster_type": "vector",
        "vector_config": {
            "algorithm_params": {"min_cluster_size": 10, "min_samples": 5},
            "clustering_method": "hdbscan",
            "description": "HDBSCAN clustering with multimodal embeddings",
            "feature_uri": "mixpeek://multimodal_extractor@v1/multimodal_embedding",
            "sample_size": 1000,
        },
        "attribute_config": {
            "attributes": ["category"],
            "description": "Simple category clustering",
            "hierarchical_grouping": False,
        },
        "filters": {
            "AND": [
                {"field": "name", "operator": "eq", "value": "John"},
                {"field": "age", "operator": "gte", "value": 30},
            ],
            "OR": [
                {"field": "status", "operator": "eq", "value": "active"},
                {"field": "role", "operator": "eq", "value": "admin"},
            ],
            "NOT": [
                {"field": "department", "operator": "eq", "value": "HR"},
                {"field": "location", "operator": "eq", "value": "remote"},
            ],
            "case_sensitive": True,
        },
        "llm_labeling": {
            "description": "Text-only labeling with multiple fields",
            "enabled": False,
            "include_keywords": True,
            "include_summary": True,
            "labeling_inputs": {
                "input_mappings": [
                    {"input_key": key, "path": key, "source_type": "payload"}
                    for key in ("title", "description", "text")
                ]
            },
            "model_name": "gpt-4o-mini-2024-07-18",
            "provider": "openai",
        },
        "enrich_source_collection": False,
        "source_enrichment_config": {
            "field_mappings": [
                {"source_field": "cluster_id", "target_field": "category_id"},
                {"source_field": "cluster_label", "target_field": "category_name"},
                {"source_field": "distance_to_centroid", "target_field": "category_confidence"},
            ]
        },
    }


def as_json(message: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return parsed


def holds(answer: Any, sent: Any) -> bool:
    """Whether an answer has all that was sent; protobuf's JSON leaves out what is false."""
    if isinstance(sent, dict):
        return all(
            (name in answer and holds(answer[name], value)) or value is False
            for name, value in sent.items()
        )
    if isinstance(sent, list):
        return len(answer) == len(sent) and all(map(holds, answer, sent))
    return bool(answer == sent)


async def test_a_new_cluster_is_pending_with_its_first_run(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create(
        {
            **body,
            "cluster_name": "first",
            "description": "what it is for",
            "metadata": {"team": "search", "nested": {"n": 3, "list": [1, "x", None]}},
        }
    )

    assert cluster.cluster_id.startswith("clust_")
    assert cluster.cluster_name == "first"
    assert cluster.status == "PENDING"
    assert cluster.organization_id == "org_test"
    assert cluster.namespace_id == world.namespace.namespace_id
    assert list(cluster.input_collections) == body["collection_ids"]
    assert cluster.cluster_type == "vector"
    assert cluster.algorithm == "kmeans"
    assert as_json(cluster.algorithm_params) == {"n_clusters": 3.0}
    assert cluster.multi_feature_strategy == "concatenate"
    assert cluster.effective_feature_method == "mean"
    assert cluster.description == "what it is for"
    assert as_json(cluster.metadata) == {
        "team": "search",
        "nested": {"n": 3.0, "list": [1.0, "x", None]},
    }
    assert cluster.last_run_id.startswith("run_")
    assert cluster.last_execution_task_id.startswith("task_")
    assert cluster.created_at.ToMilliseconds() > 0
    assert cluster.updated_at == cluster.created_at
    for absent in ("num_clusters", "completed_at", "last_executed_at", "error", "filters"):
        assert not cluster.HasField(absent), absent
    assert world.woken == ["woken"]


async def test_the_seeds_example_is_taken_and_given_back(caller: Caller, products: str) -> None:
    sent = seed_example(products)

    created = await caller.create(sent)
    got = await caller.get("from the seed")

    assert got == created
    for cluster in (created, got):
        answer = as_json(cluster)
        assert answer["feature_uris"] == [sent["vector_config"]["feature_uri"]]
        assert answer["algorithm"] == "hdbscan"
        assert answer["filters"] == sent["filters"]
        for part in ("source_enrichment_config", "vector_config", "llm_labeling"):
            assert holds(answer[part], sent[part]), part
        assert holds(answer["attribute_config"], sent["attribute_config"])
    answer = as_json(created)
    # A vector job says nothing of attributes.
    for absent in ("clustered_attributes", "hierarchical_grouping", "aggregation_method"):
        assert absent not in answer


async def test_a_draft_is_stored_without_a_run(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    cluster = await caller.create({**body, "execute": False})

    assert cluster.status == "DRAFT"
    assert not cluster.HasField("last_run_id")
    assert cluster.cluster_name.startswith("clusters of products-")


async def test_every_fault_is_told_at_once(caller: Caller) -> None:
    failure = await failure_of(
        caller.create(
            {
                "collection_ids": ["good", "no__good"],
                "cluster_name": "clust_mine",
                "cluster_type": "circle",
                "vector_config": {
                    "clustering_method": "kmeens",
                    "sample_size": 0,
                    "output_strategy": "per_feature",
                },
                "filters": {"AND": [{"field": "a", "operator": "about", "value": 1}]},
                "source_enrichment_config": {
                    "field_mappings": [{"source_field": "colour", "target_field": "x"}]
                },
            }
        )
    )

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.reason == "INVALID_REQUEST"
    assert failure.violations.keys() >= {
        "collection_ids[1]",
        "cluster_name",
        "cluster_type",
        "vector_config.clustering_method",
        "vector_config.sample_size",
        "vector_config.output_strategy",
        "source_enrichment_config.field_mappings[0].source_field",
    }
    assert any(path.startswith("filters.AND[0]") for path in failure.violations)
    assert "kmeans" in failure.violations["vector_config.clustering_method"]
    assert "independent" in failure.violations["vector_config.output_strategy"]


async def test_an_empty_request_says_what_is_required(caller: Caller) -> None:
    failure = await failure_of(caller.create({}))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations.keys() >= {"collection_ids", "vector_config"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"collection_ids": ["nobody-has-this"]}, "collection_ids[0]"),
        (
            {"vector_config": {"clustering_method": "kmeans", "feature_uri": "no_such_vector"}},
            "vector_config.feature_uri",
        ),
    ],
)
async def test_what_the_collections_lack_is_refused(
    caller: Caller, body: dict[str, Any], change: dict[str, Any], path: str
) -> None:
    failure = await failure_of(caller.create({**body, **change}))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert path in failure.violations


async def test_numbers_that_json_has_not_are_refused_by_place(
    caller: Caller, products: str
) -> None:
    request = cluster_requests_pb2.CreateClusterRequest(collection_ids=[products])
    request.vector_config.clustering_method = "kmeans"
    request.metadata.update({"deep": [{"x": 0}]})
    inner = request.metadata.fields["deep"].list_value.values[0].struct_value
    inner.fields["x"].number_value = float("nan")

    failure = await failure_of(caller.call(caller.clusters.CreateCluster, request))

    assert failure.violations == {"metadata.deep[0].x": "sent nan; a finite number is allowed"}


async def test_a_taken_name_is_told(caller: Caller, body: dict[str, Any]) -> None:
    await caller.create({**body, "cluster_name": "mine"})
    failure = await failure_of(caller.create({**body, "cluster_name": "mine"}))

    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    assert failure.reason == "CLUSTER_NAME_TAKEN"


async def test_a_retry_gets_the_first_answer(
    world: World, caller: Caller, body: dict[str, Any]
) -> None:
    first = await caller.create({**body, "request_id": "once"})
    again = await caller.create({**body, "request_id": "once"})
    by_header = await caller.create(body, ("idempotency-key", "once"))

    assert again.cluster_id == by_header.cluster_id == first.cluster_id
    assert await world.store.count_active_runs(world.namespace.namespace_id) == 1


async def test_a_request_id_with_another_body_is_refused(
    caller: Caller, body: dict[str, Any]
) -> None:
    await caller.create({**body, "request_id": "once"})
    failure = await failure_of(
        caller.create({**body, "request_id": "once", "description": "another"})
    )

    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    assert failure.reason == "REQUEST_ID_TAKEN"


async def test_a_request_id_named_twice_and_differently_is_refused(
    caller: Caller, body: dict[str, Any]
) -> None:
    failure = await failure_of(
        caller.create({**body, "request_id": "one"}, ("idempotency-key", "two"))
    )

    assert "request_id" in failure.violations


async def test_a_long_list_of_faults_still_fits_in_the_trailers(
    caller: Caller, body: dict[str, Any]
) -> None:
    names = [f"__{'é' * 60}{i}" for i in range(60)]
    failure = await failure_of(caller.create({**body, "collection_ids": names}))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    found = failure.detail(error_details_pb2.BadRequest).field_violations
    assert found[0].field == "collection_ids[0]"
    assert found[-1].description == f"and {60 - len(found) + 1} more"


async def test_a_request_over_16_mib_is_refused(caller: Caller, products: str) -> None:
    request = cluster_requests_pb2.CreateClusterRequest(collection_ids=[products])
    request.description = "x" * (16 * 1024 * 1024)

    failure = await failure_of(caller.call(caller.clusters.CreateCluster, request))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_is_no_protobuf_is_an_invalid_argument(caller: Caller) -> None:
    call = caller.channel.unary_unary("/clusters.v1.ClusterService/CreateCluster")
    failure = await failure_of(call(b"\xff\xff\xff", metadata=caller.metadata, timeout=20))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "protobuf" in failure.violations["request"]


def nested(depth: int) -> bytes:
    """Write a Struct of so many Structs inside each other, as any client may send it."""

    def part(tag: int, content: bytes) -> bytes:
        size = len(content)
        varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return bytes([tag]) + varint + content

    struct = b""
    for _ in range(depth):
        struct = part(0x0A, part(0x0A, b"a") + part(0x12, part(0x2A, struct)))
    return part(0x32, struct)  # Field 6: filters.


async def test_what_is_nested_beyond_protobufs_limit_is_an_invalid_argument(
    caller: Caller,
) -> None:
    call = caller.channel.unary_unary("/clusters.v1.ClusterService/CreateCluster")
    failure = await failure_of(call(nested(60), metadata=caller.metadata, timeout=20))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "nested too deep" in failure.violations["request"]


async def test_a_filter_of_depth_9_is_refused(caller: Caller, body: dict[str, Any]) -> None:
    filters: dict[str, Any] = {"category": "a"}
    for _ in range(8):
        filters = {"AND": [filters]}
    await caller.create({**body, "filters": filters})

    failure = await failure_of(caller.create({**body, "filters": {"AND": [filters]}}))

    (path,) = failure.violations
    assert path.startswith("filters.AND[0]")
    assert "deeper than 8" in failure.violations[path]


async def test_every_answer_names_its_request(caller: Caller, body: dict[str, Any]) -> None:
    request = json_format.ParseDict(body, cluster_requests_pb2.CreateClusterRequest())
    good = caller.call(caller.clusters.CreateCluster, request)
    await good
    bad = caller.call(caller.clusters.CreateCluster, cluster_requests_pb2.CreateClusterRequest())
    await failure_of(bad)

    ids = [dict(await call.trailing_metadata())["x-request-id"] for call in (good, bad)]

    assert all(request_id.startswith("req_") for request_id in ids)
    assert ids[0] != ids[1]
