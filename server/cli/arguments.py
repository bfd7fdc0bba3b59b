"""From the words of a command to a request: what is clustered, how, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clusters.v1 import cluster_requests_pb2, definition_pb2, enrichment_pb2, labeling_pb2

from gpu.params import BUILT_METHODS
from server.api.convert.values import struct_of
from server.cli.reading import read_filter, read_pairs, read_params, read_steps, read_weights
from server.errors import InvalidRequestError, Violation


@dataclass(frozen=True)
class LabelWords:
    """What `shoal run` was told of naming by a language model."""

    enabled: bool = False
    model: str | None = None
    provider: str | None = None
    fields: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunWords:
    """What `shoal run` was told; empty, None and False mean not told."""

    collections: list[str]
    method: str | None = None
    name: str | None = None
    description: str | None = None
    features: list[str] = field(default_factory=list)
    strategy: str | None = None
    weights: list[str] = field(default_factory=list)
    output_per_feature: bool = False
    steps: list[str] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    hierarchical: bool = False
    max_depth: int | None = None
    attributes: list[str] = field(default_factory=list)
    parent: str | None = None
    parent_group: str | None = None
    filter_text: str | None = None
    sample_size: int | None = None
    centroid: str | None = None
    label: LabelWords = field(default_factory=LabelWords)
    enrich: bool = False
    mappings: list[str] = field(default_factory=list)


def create_request(words: RunWords) -> cluster_requests_pb2.CreateClusterRequest:
    """Build the request.

    Raises
    ------
    InvalidRequestError
        With every argument that cannot be read, or goes without the one it belongs to; what
        they mean is the server's to check.
    """
    violations = list(_misplaced(words))
    filters = None if words.filter_text is None else read_filter(words.filter_text, violations)
    mappings = _mappings(words.mappings, violations)
    labeling = _labeling(words.label, violations)
    vector = None if words.attributes else _vector_config(words, violations)
    if violations:
        raise InvalidRequestError(violations)
    return cluster_requests_pb2.CreateClusterRequest(
        collection_ids=words.collections,
        cluster_name=words.name,
        description=words.description,
        cluster_type="attribute" if words.attributes else "vector",
        vector_config=vector,
        attribute_config=(
            definition_pb2.AttributeConfig(
                attributes=words.attributes, hierarchical_grouping=words.hierarchical
            )
            if words.attributes
            else None
        ),
        filters=None if filters is None else struct_of(filters),
        llm_labeling=labeling,
        enrich_source_collection=words.enrich,
        source_enrichment_config=_enrichment(mappings),
        parent_cluster_id=words.parent,
        parent_group_id=words.parent_group,
    )


def enrich_request(
    cluster: str,
    collection: str,
    *,
    run_id: str | None,
    mapping_texts: Iterable[str],
    filter_text: str | None,
) -> enrichment_pb2.EnrichCollectionRequest:
    """Build the request of `shoal enrich`.

    Raises
    ------
    InvalidRequestError
        With every argument that cannot be read.
    """
    violations: list[Violation] = []
    filters = None if filter_text is None else read_filter(filter_text, violations)
    mappings = _mappings(mapping_texts, violations)
    if violations:
        raise InvalidRequestError(violations)
    return enrichment_pb2.EnrichCollectionRequest(
        cluster_id=cluster,
        run_id=run_id,
        collection_id=collection,
        source_enrichment_config=_enrichment(mappings),
        filters=None if filters is None else struct_of(filters),
    )


def _misplaced(words: RunWords) -> Iterator[Violation]:
    """Give what would be sent and change nothing: the server does not see all of it."""
    if not words.attributes and words.method is None:
        allowed = ", ".join(BUILT_METHODS)
        yield Violation("--method", f"needed unless --attribute is given; one of {allowed}")
    vector_only: dict[str, Any] = {
        "--method": words.method,
        "--param": words.params,
        "--feature": words.features,
        "--strategy": words.strategy,
        "--weight": words.weights,
        "--output-per-feature": words.output_per_feature,
        "--step": words.steps,
        "--max-depth": words.max_depth,
        "--sample-size": words.sample_size,
        "--centroid": words.centroid,
    }
    if words.attributes:
        for flag, value in vector_only.items():
            if value:
                yield Violation(flag, "does not go with --attribute, which needs no vectors")
    elif words.max_depth and not words.hierarchical:
        yield Violation("--max-depth", "only with --hierarchical")
    label = words.label
    label_only = {
        "--model": label.model,
        "--provider": label.provider,
        "--label-field": label.fields,
    }
    for flag, told in label_only.items():
        if told and not label.enabled:
            yield Violation(flag, "only with --label")
    if words.mappings and not words.enrich:
        yield Violation("--map", "only with --enrich")


def _vector_config(words: RunWords, violations: list[Violation]) -> definition_pb2.VectorConfig:
    params = read_params(words.params, violations)
    weights = read_weights(words.weights, violations)
    steps = read_steps(words.steps, violations)
    return definition_pb2.VectorConfig(
        feature_uris=words.features,
        clustering_method=words.method or "",
        algorithm_params=struct_of(params) if params else None,
        sample_size=words.sample_size,
        multi_feature_strategy=words.strategy,
        feature_weights=struct_of(weights) if weights else None,
        effective_feature_method=words.centroid,
        output_strategy="per_feature" if words.output_per_feature else None,
        preprocessing_steps=[struct_of(step) for step in steps],
        hierarchical=words.hierarchical,
        max_hierarchy_depth=words.max_depth,
    )


def _labeling(words: LabelWords, violations: list[Violation]) -> labeling_pb2.LlmLabeling | None:
    fields = read_pairs("--label-field", words.fields, "NAME=PATH", violations)
    if not words.enabled:
        return None
    inputs = [labeling_pb2.InputMapping(input_key=name, path=path) for name, path in fields]
    return labeling_pb2.LlmLabeling(
        enabled=True,
        model_name=words.model,
        provider=words.provider,
        labeling_inputs=labeling_pb2.LabelingInputs(input_mappings=inputs) if inputs else None,
    )


def _mappings(
    texts: Iterable[str], violations: list[Violation]
) -> list[enrichment_pb2.FieldMapping]:
    pairs = read_pairs("--map", texts, "SOURCE=TARGET", violations)
    return [
        enrichment_pb2.FieldMapping(source_field=source, target_field=target)
        for source, target in pairs
    ]


def _enrichment(
    mappings: list[enrichment_pb2.FieldMapping],
) -> enrichment_pb2.SourceEnrichmentConfig | None:
    return enrichment_pb2.SourceEnrichmentConfig(field_mappings=mappings) if mappings else None
