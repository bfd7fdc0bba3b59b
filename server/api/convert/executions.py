"""Runs out: an execution, and the events of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusters.v1 import execution_pb2, group_pb2, watch_pb2

from server.api.convert.clusters import cluster_to_pb, execution_seconds, warnings_of
from server.api.convert.values import error_info, struct_of, time_of
from server.api.errors import shown_info, shown_message
from server.jobs.events import Heartbeat
from server.jobs.ledger import utc_now
from server.jobs.model import ClusterRecord, EventRecord, RunRecord, RunResult


def execution_to_pb(
    record: ClusterRecord,
    run: RunRecord,
    centroids: Sequence[group_pb2.Group] = (),
    figures: Mapping[str, Any] | None = None,
) -> execution_pb2.Execution:
    """Give a run as callers see it."""
    definition, result = run.definition, run.result
    vector = definition.vector_config
    execution = execution_pb2.Execution(
        run_id=run.run_id,
        cluster_id=record.cluster_id,
        task_id=run.task_id,
        status=run.status,
        mode=run.mode,
        stage=run.stage,
        created_at=time_of(run.queued_at),
        started_at=time_of(run.started_at),
        finished_at=time_of(run.finished_at),
        execution_time_seconds=execution_seconds(run),
        filters=None if definition.filters is None else struct_of(definition.filters),
        sample_size=vector.sample_size if vector is not None else None,
        warnings=warnings_of(run),
        error=run.error.message if run.error is not None else None,
        error_info=error_info(run.error),
        centroids=centroids,
        figures=struct_of(dict(figures)) if figures else None,
    )
    if result is not None:
        execution.num_clusters = result.num_clusters
        execution.num_documents = result.num_documents
        execution.n_noise = result.num_noise
        if not run.is_skipped:
            _fill_method(execution, result)
        execution.timings.CopyFrom(struct_of(run.timings_s))
        if timeline := run.timeline:
            execution.timeline.CopyFrom(struct_of(timeline))
        execution.llm_labeling_errors.extend(result.labeling_errors)
        execution.output_collection_ids.extend(output.collection_id for output in result.outputs)
        execution.output_collection_names.extend(output.name for output in result.outputs)
        execution.hierarchy_relationships.extend(
            struct_of(row) for row in result.hierarchy_relationships
        )
        if result.learned_weights is not None:
            execution.learned_weights.CopyFrom(struct_of(result.learned_weights))
        if result.learning_quality_score is not None:
            execution.learning_quality_score = result.learning_quality_score
        if result.labeling_usage:
            execution.labeling_usage.CopyFrom(struct_of(result.labeling_usage))
        if result.libraries:
            execution.libraries.CopyFrom(struct_of(result.libraries))
        if result.artifacts_url:
            execution.artifacts_url = result.artifacts_url
    return execution


def _fill_method(execution: execution_pb2.Execution, result: RunResult) -> None:
    """Lay in what ran, where and how well; a skipped run has nothing to say of it."""
    execution.device = result.device
    execution.device_reason = result.device_reason
    execution.algorithm = result.algorithm
    execution.effective_params.CopyFrom(struct_of(result.effective_params))
    execution.quality_metrics.CopyFrom(struct_of(result.quality_metrics))


def event_to_pb(record: ClusterRecord, event: EventRecord) -> watch_pb2.ExecutionEvent:
    """Give an event; the final one carries the cluster as then stored."""
    return watch_pb2.ExecutionEvent(
        sequence=event.sequence,
        run_id=event.run_id,
        status=event.status,
        stage=event.stage,
        stage_progress=event.stage_progress,
        processed=event.processed,
        total=event.total,
        message=event.message,
        device=event.device,
        device_reason=event.device_reason,
        occurred_at=time_of(event.occurred_at),
        warnings=event.warnings,
        error=event.error.message if event.error is not None else None,
        error_info=error_info(event.error),
        cluster=cluster_to_pb(record) if event.is_final else None,
    )


def heartbeat_to_pb(heartbeat: Heartbeat, last_sequence: int) -> watch_pb2.ExecutionEvent:
    """Give the event that says that nothing happened; it repeats the last sequence sent."""
    return watch_pb2.ExecutionEvent(
        sequence=last_sequence,
        run_id=heartbeat.run.run_id,
        status=heartbeat.run.status,
        stage=heartbeat.run.stage,
        occurred_at=time_of(utc_now()),
        heartbeat=True,
    )


def interruption(last: watch_pb2.ExecutionEvent, error: Exception) -> watch_pb2.ExecutionEvent:
    """Give the event that says why a stream ends before its run does.

    Over HTTP/1.1 no status can follow a stream, so this is all that such a watcher sees. It
    repeats the last sequence sent, from which a watcher can go on.
    """
    return watch_pb2.ExecutionEvent(
        sequence=last.sequence,
        run_id=last.run_id,
        status=last.status,
        stage=last.stage if last.HasField("stage") else None,
        occurred_at=time_of(utc_now()),
        error=shown_message(error, "internal error; watch again after this sequence"),
        error_info=shown_info(error),
    )
