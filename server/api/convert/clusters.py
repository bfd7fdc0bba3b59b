"""A cluster out: its definition as sent, its newest run's state, and what was found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from clusters.v1 import cluster_pb2, definition_pb2, enrichment_pb2, labeling_pb2
from google.protobuf import json_format
from pydantic import BaseModel

from server.api.convert.values import struct_of, time_of
from server.jobs.definition import ClusterDefinition
from server.jobs.model import ClusterRecord, RunRecord

ATTRIBUTE_ALGORITHM = "attribute_based"


def cluster_to_pb(record: ClusterRecord) -> cluster_pb2.Cluster:
    """Give a cluster as callers see it (contract, section 5)."""
    definition, newest, success = record.definition, record.newest_run, record.newest_success
    cluster = cluster_pb2.Cluster(
        cluster_name=record.cluster_name,
        namespace_id=record.namespace_id,
        organization_id=record.organization_id,
        input_collections=definition.collection_ids,
        cluster_type=definition.cluster_type,
        cluster_id=record.cluster_id,
        filters=None if definition.filters is None else struct_of(definition.filters),
        algorithm=_algorithm(definition, success),
        enrich_source=definition.enrich_source_collection,
        status=record.status,
        created_at=time_of(record.created_at),
        updated_at=time_of(record.updated_at),
        last_executed_at=time_of(_last_start(record)),
        metadata=struct_of(definition.metadata) if definition.metadata else None,
        description=definition.description or None,
        parent_cluster_id=_parent_id(record),
        parent_group_id=definition.parent_group_id,
        child_cluster_ids=record.child_cluster_ids,
    )
    if definition.source_enrichment_config is not None:
        cluster.source_enrichment_config.CopyFrom(
            json_format.ParseDict(
                as_sent(definition.source_enrichment_config),
                enrichment_pb2.SourceEnrichmentConfig(),
            )
        )
    if definition.llm_labeling is not None:
        cluster.llm_labeling.CopyFrom(
            json_format.ParseDict(as_sent(definition.llm_labeling), labeling_pb2.LlmLabeling())
        )
    _fill_configuration(cluster, definition, success)
    if newest is not None:
        _fill_newest(cluster, newest)
    if success is not None:
        _fill_result(cluster, success)
    return cluster


def _parent_id(record: ClusterRecord) -> str | None:
    """Give the parent's id, which a run has found by the name that may have been sent."""
    newest = record.newest_run
    if newest is not None and newest.within is not None:
        return newest.within.cluster_id
    return record.definition.parent_cluster_id


def as_sent(part: BaseModel) -> dict[str, Any]:
    """Give a part of a definition as its caller wrote it, without the defaults."""
    return part.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _algorithm(definition: ClusterDefinition, success: RunRecord | None) -> str:
    if definition.cluster_type == "attribute":
        return ATTRIBUTE_ALGORITHM
    if success is not None and success.result is not None:
        return success.result.algorithm
    return definition.vector.clustering_method


def _last_start(record: ClusterRecord) -> datetime | None:
    """Give the start of the newest run that started; a pending one has none yet."""
    starts = [run.started_at for run in record.runs if run.started_at is not None]
    return starts[-1] if starts else None


def _fill_configuration(
    cluster: cluster_pb2.Cluster, definition: ClusterDefinition, success: RunRecord | None
) -> None:
    vector, attributes = definition.vector_config, definition.attribute_config
    if definition.cluster_type == "vector" and vector is not None:
        resolved = success.result.feature_uris if success and success.result else []
        cluster.feature_uris.extend(vector.features or resolved)
        cluster.multi_feature_strategy = vector.multi_feature_strategy
        cluster.effective_feature_method = vector.effective_feature_method
        if vector.algorithm_params:
            cluster.algorithm_params.CopyFrom(struct_of(vector.algorithm_params))
        cluster.vector_config.CopyFrom(
            json_format.ParseDict(as_sent(vector), definition_pb2.VectorConfig())
        )
    if definition.cluster_type == "attribute" and attributes is not None:
        cluster.clustered_attributes.extend(attributes.attributes)
        cluster.hierarchical_grouping = attributes.hierarchical_grouping
        cluster.aggregation_method = attributes.aggregation_method
    if attributes is not None:
        cluster.attribute_config.CopyFrom(
            json_format.ParseDict(as_sent(attributes), definition_pb2.AttributeConfig())
        )


def _fill_newest(cluster: cluster_pb2.Cluster, run: RunRecord) -> None:
    cluster.last_run_id = run.run_id
    cluster.last_execution_task_id = run.task_id
    cluster.warnings.extend(warnings_of(run))
    if run.error is not None:
        cluster.error = run.error.message


def _fill_result(cluster: cluster_pb2.Cluster, run: RunRecord) -> None:
    """Lay the newest successful run's findings in."""
    if run.finished_at is not None:
        cluster.completed_at.FromDatetime(run.finished_at)
    seconds = execution_seconds(run)
    if seconds is not None:
        cluster.execution_time_seconds = seconds
    if run.result is None:
        return
    result = run.result
    cluster.num_clusters = result.num_clusters
    cluster.num_documents_clustered = result.num_documents
    cluster.source_bucket_ids.extend(result.source_bucket_ids)
    cluster.output_collection_ids.extend(output.collection_id for output in result.outputs)
    cluster.output_collection_names.extend(output.name for output in result.outputs)
    cluster.llm_labeling_errors.extend(result.labeling_errors)
    cluster.hierarchy_detected = bool(result.hierarchy_relationships)
    cluster.hierarchy_relationships.extend(struct_of(row) for row in result.hierarchy_relationships)
    if result.learned_weights is not None:
        cluster.learned_weights.CopyFrom(struct_of(result.learned_weights))
    if result.learning_quality_score is not None:
        cluster.learning_quality_score = result.learning_quality_score
    if result.quality_metrics:
        cluster.quality_metrics.CopyFrom(struct_of(result.quality_metrics))


def warnings_of(run: RunRecord) -> list[str]:
    """Give a run's warnings; a skipped run's reason is one of them."""
    skipped = run.result.skipped_reason if run.result is not None else None
    return [*run.warnings, *([skipped] if skipped and skipped not in run.warnings else [])]


def execution_seconds(run: RunRecord) -> float | None:
    """Give the seconds from a run's claim to its final state."""
    if run.started_at is None or run.finished_at is None:
        return None
    # A clock that was set back meanwhile must not show as less than no time.
    return max(0.0, (run.finished_at - run.started_at).total_seconds())
