"""From words to a request: every option of `shoal run` arrives, and none is dropped silently."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from gpu.params import BUILT_METHODS
from server.cli.arguments import LabelWords, RunWords, create_request
from server.errors import InvalidRequestError

TEXT, IMAGE = "mixpeek://text@v1/embedding", "mixpeek://image@v1/embedding"


def sent(words: RunWords) -> dict[str, Any]:
    return json_format.MessageToDict(create_request(words), preserving_proto_field_name=True)


def faults(words: RunWords) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as raised:
        create_request(words)
    return {violation.field: violation.description for violation in raised.value.violations}


def test_every_word_about_vectors_arrives():
    request = sent(
        RunWords(
            ["docs", "more"],
            "kmeans",
            features=[TEXT, IMAGE],
            strategy="weighted",
            weights=[f"{TEXT}=0.5", f"{IMAGE}=2"],
            output_per_feature=True,
            steps=["normalize", '{"method": "pca", "n_components": 50}'],
            params=["n_clusters=8", "init=random"],
            hierarchical=True,
            max_depth=2,
            parent="topics",
            parent_group="cl_3",
            sample_size=100,
            centroid="medoid",
        )
    )

    assert request == {
        "collection_ids": ["docs", "more"],
        "cluster_type": "vector",
        "vector_config": {
            "feature_uris": [TEXT, IMAGE],
            "clustering_method": "kmeans",
            "algorithm_params": {"n_clusters": 8.0, "init": "random"},
            "sample_size": 100,
            "multi_feature_strategy": "weighted",
            "feature_weights": {TEXT: 0.5, IMAGE: 2.0},
            "effective_feature_method": "medoid",
            "output_strategy": "per_feature",
            "preprocessing_steps": [
                {"method": "normalize"},
                {"method": "pca", "n_components": 50.0},
            ],
            "hierarchical": True,
            "max_hierarchy_depth": 2,
        },
        "parent_cluster_id": "topics",
        "parent_group_id": "cl_3",
    }


def test_attributes_take_the_place_of_a_method():
    request = sent(RunWords(["docs"], attributes=["section", "meta.year"], hierarchical=True))

    assert request == {
        "collection_ids": ["docs"],
        "cluster_type": "attribute",
        "attribute_config": {
            "attributes": ["section", "meta.year"],
            "hierarchical_grouping": True,
        },
    }


def test_labels_are_asked_for_with_what_the_model_reads():
    label = LabelWords(True, "gpt-4o-mini", "openai", ["title=title", "about=meta.about"])
    request = sent(RunWords(["docs"], "auto", label=label))

    assert request["llm_labeling"] == {
        "enabled": True,
        "provider": "openai",
        "model_name": "gpt-4o-mini",
        "labeling_inputs": {
            "input_mappings": [
                {"input_key": "title", "path": "title"},
                {"input_key": "about", "path": "meta.about"},
            ]
        },
    }


def test_a_weight_may_belong_to_a_feature_with_an_equals_sign():
    request = sent(RunWords(["docs"], "kmeans", features=["a=b"], weights=["a=b=0.25"]))

    assert request["vector_config"]["feature_weights"] == {"a=b": 0.25}


def test_words_that_cannot_be_read_are_told_together():
    found = faults(
        RunWords(
            ["docs"],
            "kmeans",
            weights=["text"],
            steps=["[1]"],
            label=LabelWords(enabled=True, fields=["title="]),
        )
    )

    assert found == {
        "--weight": "'text' is not URI=NUMBER",
        "--step": '[1] is no JSON object, such as {"method": "pca", "n_components": 50}',
        "--label-field": "'title=' is not NAME=PATH",
    }


@pytest.mark.parametrize("weight", ["text=heavy", "text=true", "text=NaN", "=1"])
def test_a_weight_is_a_number_of_a_feature(weight: str):
    assert faults(RunWords(["docs"], "kmeans", weights=[weight])) == {
        "--weight": f"{weight!r} is not URI=NUMBER"
    }


def test_a_weight_is_given_once():
    words = RunWords(["docs"], "kmeans", weights=["text=1", "text=2"])

    assert faults(words) == {"--weight": "'text' is given twice"}


def test_words_without_the_one_they_belong_to_are_refused():
    label = LabelWords(model="gpt-4o", provider="openai", fields=["a=b"])
    found = faults(RunWords(["docs"], "kmeans", max_depth=2, label=label, mappings=["x=y"]))

    assert found == {
        "--max-depth": "only with --hierarchical",
        "--model": "only with --label",
        "--provider": "only with --label",
        "--label-field": "only with --label",
        "--map": "only with --enrich",
    }


def test_words_about_vectors_do_not_go_with_attributes():
    found = faults(
        RunWords(["docs"], "kmeans", attributes=["section"], params=["n_clusters=2"], max_depth=2)
    )

    assert set(found) == {"--method", "--param", "--max-depth"}


def test_a_method_or_an_attribute_is_needed():
    found = faults(RunWords(["docs"]))

    assert all(method in found["--method"] for method in BUILT_METHODS)
