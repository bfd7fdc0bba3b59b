"""A second attempt gives what the first would have given, without looking for groups again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from run_attempts import N_DOCUMENTS, add_documents, attempts

from server.jobs.pipeline import publish
from server.jobs.spec import Prepared
from server.qdrant.client import QdrantAddress

USED = "groups found by an earlier attempt are used"

KMEANS = {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 3}}
TWO = {**KMEANS, "feature_uris": ["text", "image"]}
VECTOR_CONFIGS: dict[str, dict[str, Any]] = {
    "k-means": {**KMEANS, "feature_uris": ["text"]},
    "HDBSCAN after steps": {
        "clustering_method": "hdbscan",
        "algorithm_params": {"min_cluster_size": 10},
        "preprocessing_steps": [{"method": "pca", "n_components": 3}],
        "feature_uris": ["text"],
    },
    "groups in groups": {**KMEANS, "hierarchical": True, "feature_uris": ["text"]},
    "learned weights": {**TWO, "multi_feature_strategy": "weighted"},
    "groups for each feature": {
        **TWO,
        "multi_feature_strategy": "independent",
        "output_strategy": "per_feature",
    },
}


@pytest.fixture(scope="module")
def documents(client: QdrantClient) -> Iterator[str]:
    add_documents(client, "resumed")
    yield "resumed"
    client.delete_collection("resumed")


def assert_same(first: Prepared, second: Prepared) -> None:
    """The records agree in all but the seconds that the stages took."""
    assert set(second.result.timings_s) == set(first.result.timings_s)
    assert set(second.result.timeline) == set(first.result.timeline)
    clocks = {name: getattr(second.result, name) for name in ("timings_s", "timeline")}
    assert second.result == first.result.model_copy(update=clocks)


@pytest.mark.parametrize("config", VECTOR_CONFIGS.values(), ids=VECTOR_CONFIGS)
def test_the_next_attempt_uses_the_groups_that_were_found(
    tmp_path: Path, qdrant_address: QdrantAddress, documents: str, config: dict[str, Any]
) -> None:
    tried = attempts(tmp_path, qdrant_address, documents, {"vector_config": config})
    first = tried.make(1)
    before = tried.results()
    second = tried.make(2)

    assert any(USED in message for message in tried.messages)
    stages = [report["stage"] for report in tried.told]
    assert "preprocess" not in stages
    assert "summarize" not in stages
    assert tried.results() == before
    assert_same(first, second)
    assert second.warnings == first.warnings


def test_groups_by_attributes_are_used_again(
    tmp_path: Path, qdrant_address: QdrantAddress, documents: str
) -> None:
    body = {
        "cluster_type": "attribute",
        "attribute_config": {"attributes": ["color", "title"], "hierarchical_grouping": True},
    }
    tried = attempts(tmp_path, qdrant_address, documents, body)
    first = tried.make(1)
    before = tried.results()
    second = tried.make(2)

    assert any(USED in message for message in tried.messages)
    assert tried.results() == before
    assert_same(first, second)


def test_the_map_is_not_laid_out_again(
    tmp_path: Path, client: QdrantClient, qdrant_address: QdrantAddress
) -> None:
    add_documents(client, "mapped", n_documents=12)  # So few need no UMAP.
    mappings = [{"source_field": axis, "target_field": f"at_{axis}"} for axis in "xy"]
    body = {
        "vector_config": VECTOR_CONFIGS["k-means"],
        "enrich_source_collection": True,
        "source_enrichment_config": {"field_mappings": mappings},
    }
    tried = attempts(tmp_path, qdrant_address, "mapped", body)
    tried.make(1)
    before = tried.results()
    tried.make(2)

    assert not any("on the map" in message for message in tried.messages)
    assert tried.results() == before


def test_a_damaged_checkpoint_costs_its_stages_and_nothing_else(
    tmp_path: Path, qdrant_address: QdrantAddress, documents: str
) -> None:
    body = {"vector_config": VECTOR_CONFIGS["k-means"]}
    tried = attempts(tmp_path, qdrant_address, documents, body)
    first = tried.make(1)
    before = tried.results()
    tried.damage("groups")
    second = tried.make(2)

    assert not any(USED in message for message in tried.messages)
    assert any("groups of an earlier attempt cannot be read" in w for w in second.warnings)
    assert tried.results() == before
    assert_same(first, second)


def test_groups_of_another_export_are_not_used(
    tmp_path: Path, qdrant_address: QdrantAddress, documents: str, client: QdrantClient
) -> None:
    body = {"vector_config": VECTOR_CONFIGS["k-means"]}
    tried = attempts(tmp_path, qdrant_address, documents, body)
    tried.make(1)
    tried.folder.fs.rm(f"{tried.folder.root}/export", recursive=True)
    client.delete(documents, models.PointIdsList(points=[0]), wait=True)
    second = tried.make(2)

    assert not any(USED in message for message in tried.messages)
    assert second.result.num_documents == N_DOCUMENTS - 1


def test_publishing_ends_what_only_attempts_needed(
    tmp_path: Path, qdrant_address: QdrantAddress, documents: str
) -> None:
    tried = attempts(
        tmp_path, qdrant_address, documents, {"vector_config": VECTOR_CONFIGS["k-means"]}
    )
    prepared = tried.make(1)
    assert tried.folder.checkpoint("groups") is not None
    publish(replace(tried.spec, result=prepared.result), tried.told.append)

    assert tried.folder.checkpoint("groups") is None
    assert tried.folder.verify().counts["groups"] == 3
