"""Definitions: every fault of a request is told, with what was sent and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.jobs.definition import parse_definition


def body(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "collection_ids": ["docs"],
        "vector_config": {"clustering_method": "kmeans"},
    }
    return {**whole, **changes}


def vector(**changes: Any) -> dict[str, Any]:
    return body(vector_config={"clustering_method": "kmeans", **changes})


def attributes(names: list[str], to: str = "shelf") -> dict[str, Any]:
    mapping = {"source_field": "cluster_id", "target_field": to}
    return {
        "collection_ids": ["docs"],
        "cluster_type": "attribute",
        "attribute_config": {"attributes": names},
        "source_enrichment_config": {"field_mappings": [mapping]},
    }


def faults(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as raised:
        parse_definition(raw)
    return {fault.field: fault.description for fault in raised.value.violations}


def test_defaults_are_the_contract_s() -> None:
    definition = parse_definition(body())
    assert definition.cluster_type == "vector"
    assert definition.vector.assign_rest
    assert definition.vector.effective_feature_method == "mean"
    assert [m.target_field for m in definition.enrichment] == [
        "cluster_id",
        "cluster_label",
        "distance_to_centroid",
    ]


def test_all_faults_come_at_once() -> None:
    found = faults(
        {
            "collection_ids": ["good", "bad__id", "good"],
            "cluster_name": "clust_mine",
            "cluster_type": "vektor",
            "vector_config": {
                "clustering_method": "kmeans",
                "algorithm_params": {"n_clusters": 0, "n_cluster": 3},
                "sample_size": 0,
                "effective_feature_method": "mode",
                "multi_feature_strategy": "mixed",
                "preprocessing_steps": [{"method": "pca", "n_components": 0}],
                "feature_weights": {"nowhere": -1},
                "output_strategy": "per_feature",
            },
            "filters": {"AND": [{"field": "a", "operator": "equals", "value": 1}]},
            "description": "x" * 5000,
            "source_enrichment_config": {
                "field_mappings": [
                    {"source_field": "cluster_name", "target_field": "c"},
                    {"source_field": "cluster_id", "target_field": "c"},
                ]
            },
        }
    )
    assert set(found) >= {
        "collection_ids[1]",
        "collection_ids[2]",
        "cluster_name",
        "cluster_type",
        "vector_config.algorithm_params.n_clusters",
        "vector_config.algorithm_params.n_cluster",
        "vector_config.sample_size",
        "vector_config.effective_feature_method",
        "vector_config.multi_feature_strategy",
        "vector_config.preprocessing_steps[0].n_components",
        "vector_config.feature_weights.nowhere",
        "vector_config.output_strategy",
        "filters.AND[0].operator",
        "description",
        "source_enrichment_config.field_mappings[0].source_field",
        "source_enrichment_config.field_mappings[1].target_field",
    }
    assert "did you mean" in found["vector_config.algorithm_params.n_cluster"]
    assert "sent: 0" in found["vector_config.sample_size"]


@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        ({"vector_config": {"clustering_method": "kmeans"}}, "collection_ids", "required"),
        (body(collection_ids=[]), "collection_ids", "at least 1"),
        ({"collection_ids": ["docs"]}, "vector_config", "required when cluster_type is 'vector'"),
        (vector(clustering_method="k-means"), "vector_config.clustering_method", "hdbscan, kmeans"),
        (body(collection_ids=["../etc"]), "collection_ids[0]", "letters, digits"),
        (body(cluster_name="  "), "cluster_name", "empty"),
        (body(metadata={"k": "v" * 70_000}), "metadata", "65536 bytes"),
        (vector(feature_uri="a", feature_uris=["b"]), "vector_config.feature_uri", "not both"),
        (vector(feature_uris=["a", "a"]), "vector_config.feature_uris[1]", "listed twice"),
        (
            vector(feature_uris=["a"], feature_weights={"a": 0}),
            "vector_config.feature_weights",
            "one must be above",
        ),
        (
            vector(max_hierarchy_depth=9),
            "vector_config.max_hierarchy_depth",
            "less than or equal to 8",
        ),
        (
            attributes(["a..b"]),
            "attribute_config.attributes[0]",
            "an empty part between its dots",
        ),
        (attributes(["a", "a"]), "attribute_config.attributes[1]", "listed twice"),
        (
            attributes(["section.name"], to="section"),
            "source_enrichment_config.field_mappings[0].target_field",
            "the next run would group by what this one wrote",
        ),
        (
            attributes(["section"], to="document_id"),
            "source_enrichment_config.field_mappings[0].target_field",
            "document_id, source_bucket_id, collection_id is allowed",
        ),
        (body(llm_labeling={"provider": "nobody"}), "llm_labeling.provider", "is not a provider"),
        (body(parent_cluster_id="clust_1"), "parent_group_id", "required when the other"),
        (
            body(
                cluster_type="attribute",
                attribute_config={"attributes": ["section"]},
                source_enrichment_config={
                    "field_mappings": [{"source_field": "x", "target_field": "map_x"}]
                },
            ),
            "source_enrichment_config.field_mappings[0].source_field",
            "a place on a map of vectors",
        ),
        (
            body(
                source_enrichment_config={
                    "field_mappings": [
                        {"source_field": "cluster_id", "target_field": "cluster_run_id"}
                    ]
                }
            ),
            "source_enrichment_config.field_mappings[0].target_field",
            "cannot be written",
        ),
    ],
)
def test_each_fault_says_what_is_allowed(raw: dict[str, Any], field: str, says: str) -> None:
    assert says in faults(raw)[field]


def test_neutral_values_change_nothing() -> None:
    definition = parse_definition(
        vector(
            multi_feature_strategy="concatenate",
            normalize_features=True,
            hierarchical=False,
            preprocessing_steps=[],
            output_strategy="single",
        )
    )
    assert definition.vector.clustering_method == "kmeans"


def test_a_parameter_of_another_method_is_no_fault() -> None:
    definition = parse_definition(vector(algorithm_params={"min_cluster_size": 10.0}))
    assert definition.vector.algorithm_params == {"min_cluster_size": 10.0}


def test_what_was_sent_is_kept_as_sent() -> None:
    sent = vector(algorithm_params={"n_clusters": 5}, sample_size=100)
    stored = parse_definition(sent).model_dump(mode="json", exclude_unset=True)
    assert stored == sent
