"""The page that the product is built from, in protobuf: its request and its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clusters.v1.cluster_pb2 import Cluster
from clusters.v1.cluster_requests_pb2 import CreateClusterRequest
from google.protobuf import json_format

MAPPINGS = [
    {"source_field": "cluster_id", "target_field": "category_id"},
    {"source_field": "cluster_label", "target_field": "category_name"},
    {"source_field": "distance_to_centroid", "target_field": "category_confidence"},
]
LABELING = {
    "description": "Text-only labeling with multiple fields",
    "enabled": True,
    "include_keywords": True,
    "include_summary": True,
    "labeling_inputs": {
        "input_mappings": [
            {"input_key": "title", "path": "title", "source_type": "payload"},
            {"input_key": "description", "path": "description", "source_type": "payload"},
            {"input_key": "text", "path": "text", "source_type": "payload"},
        ]
    },
    "model_name": "gpt-4o-mini-2024-07-18",
    "provider": "openai",
}
REQUEST: dict[str, Any] = {
    "collection_ids": ["col_articles"],
    "cluster_name": "articles",
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
    "llm_labeling": LABELING,
    "enrich_source_collection": False,
    "source_enrichment_config": {"field_mappings": MAPPINGS},
}
ANSWER: dict[str, Any] = {
    "cluster_name": "articles",
    "namespace_id": "ns_1",
    "organization_id": "org_1",
    "input_collections": ["col_articles"],
    "cluster_type": "vector",
    "cluster_id": "clust_1",
    "source_bucket_ids": ["bkt_1"],
    "filters": {},
    "feature_uris": ["mixpeek://multimodal_extractor@v1/multimodal_embedding"],
    "multi_feature_strategy": "concatenate",
    "learned_weights": {},
    "learning_quality_score": 123,
    "effective_feature_method": "mean",
    "clustered_attributes": ["category"],
    "hierarchical_grouping": True,
    "aggregation_method": "most_frequent",
    "output_collection_ids": ["col_out"],
    "output_collection_names": ["articles-1"],
    "algorithm": "hdbscan",
    "algorithm_params": {},
    "enrich_source": False,
    "source_enrichment_config": {"field_mappings": MAPPINGS},
    "llm_labeling": LABELING,
    "num_clusters": 123,
    "num_documents_clustered": 123,
    "execution_time_seconds": 123,
    "hierarchy_detected": False,
    "parent_cluster_id": "clust_0",
    "child_cluster_ids": ["clust_2"],
    "hierarchy_relationships": [{}],
    "status": "PENDING",
    "last_execution_task_id": "task_1",
    "created_at": "2023-11-07T05:31:56Z",
    "updated_at": "2023-11-07T05:31:56Z",
    "last_executed_at": "2023-11-07T05:31:56Z",
    "completed_at": "2023-11-07T05:31:56Z",
    "llm_labeling_errors": ["rate limited: cl_3"],
    "metadata": {},
}


def printed(message: Cluster | CreateClusterRequest) -> dict[str, Any]:
    """Print as the gateway does: original names, empty primitive fields and lists too."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def without_added_fields(got: Any, sent: Any) -> Any:
    """Keep of a printed message what was sent, at every level below."""
    if isinstance(sent, dict):
        return {key: without_added_fields(got[key], value) for key, value in sent.items()}
    if isinstance(sent, list):
        return [without_added_fields(g, s) for g, s in zip(got, sent, strict=True)]
    return got


def test_the_seeds_request_arrives_and_comes_back_as_sent() -> None:
    message = json_format.ParseDict(REQUEST, CreateClusterRequest())

    again = CreateClusterRequest.FromString(message.SerializeToString())

    assert without_added_fields(printed(again), REQUEST) == REQUEST


def test_the_seeds_answer_is_printed_under_the_same_names() -> None:
    message = json_format.ParseDict(ANSWER, Cluster())

    again = Cluster.FromString(message.SerializeToString())

    assert without_added_fields(printed(again), ANSWER) == ANSWER


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(json_format.ParseError, match="colection_ids"):
        json_format.ParseDict({"colection_ids": ["a"]}, CreateClusterRequest())


def test_the_shorthand_filter_does_not_arrive_empty() -> None:
    body = {"filters": {"metadata.title": "x"}}

    message = json_format.ParseDict(body, CreateClusterRequest())

    assert json_format.MessageToDict(message.filters) == {"metadata.title": "x"}


def test_numbers_print_as_json_numbers() -> None:
    text = json_format.MessageToJson(
        Cluster(num_clusters=4_294_967_295, execution_time_seconds=1.5),
        preserving_proto_field_name=True,
    )

    body = json.loads(text)
    assert body == {"num_clusters": 4_294_967_295, "execution_time_seconds": 1.5}


def test_a_new_cluster_prints_no_empty_stand_ins_for_null() -> None:
    body = printed(Cluster(cluster_id="clust_1", status="PENDING"))

    nullable = {
        "multi_feature_strategy",
        "learning_quality_score",
        "effective_feature_method",
        "hierarchical_grouping",
        "aggregation_method",
        "algorithm",
        "num_clusters",
        "num_documents_clustered",
        "execution_time_seconds",
        "parent_cluster_id",
        "last_execution_task_id",
        "last_executed_at",
        "completed_at",
        "error",
    }
    assert not nullable & body.keys()
    assert body["output_collection_ids"] == []


@pytest.mark.parametrize(
    "field",
    ["assign_rest", "normalize_features", "max_hierarchy_depth", "sample_size"],
)
def test_zero_sent_differs_from_nothing_sent(field: str) -> None:
    kept = {"sample_size": 0, "max_hierarchy_depth": 0}.get(field, False)
    sent = json_format.ParseDict({"vector_config": {field: kept}}, CreateClusterRequest())
    not_sent = CreateClusterRequest()

    assert sent.vector_config.HasField(field)  # type: ignore[arg-type]
    assert not not_sent.vector_config.HasField(field)  # type: ignore[arg-type]
