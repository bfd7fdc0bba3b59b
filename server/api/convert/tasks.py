"""Tasks out: a run under the name that queues and other services know it by."""

from __future__ import annotations

from collections.abc import Collection

from clusters.v1 import task_pb2

from server.api.convert.values import struct_of, time_of
from server.engine.model import WorkerState
from server.jobs.model import ClusterRecord, RunRecord, run_status_word

TASK_TYPE = "engine_cluster_build"


def worker_to_pb(worker: WorkerState, run_ids: Collection[str]) -> task_pb2.Worker:
    """Give a worker; its run only where that is one of the caller's own."""
    return task_pb2.Worker(
        name=worker.name,
        status="idle" if worker.key is None else "busy",
        run_id=worker.key if worker.key in run_ids else None,
        memory_bytes=worker.memory_bytes,
        cpu_percent=worker.cpu_percent,
    )


def task_to_pb(record: ClusterRecord, run: RunRecord) -> task_pb2.Task:
    """Give the task of a run."""
    more = {
        "cluster_id": record.cluster_id,
        "cluster_name": record.cluster_name,
        "run_id": run.run_id,
        "mode": run.mode,
    }
    return task_pb2.Task(
        task_id=run.task_id,
        task_type=TASK_TYPE,
        status=run_status_word(run),
        inputs=run.definition.collection_ids,
        outputs=[output.collection_id for output in run.result.outputs] if run.result else [],
        additional_data=struct_of(more | ({"stage": run.stage} if run.stage else {})),
        error=run.error.message if run.error is not None else None,
        namespace_id=record.namespace_id,
        created_at=time_of(run.queued_at),
        started_at=time_of(run.started_at),
        completed_at=time_of(run.finished_at),
    )
