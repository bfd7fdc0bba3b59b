"""Workers over the wire: their runs are named to those whose runs they are."""

from __future__ import annotations

from clusters.v1 import task_pb2

from server.api.convert.tasks import worker_to_pb
from server.engine.model import WorkerState
from tests.server.api.world import Caller


def test_a_worker_names_the_callers_own_runs_only():
    own, others = (WorkerState("0", run_id, 1 << 30, 150.0) for run_id in ("run_a", "run_b"))
    idle = WorkerState("1", None, 1 << 20, 0.0)

    shown = [worker_to_pb(worker, {"run_a"}) for worker in (own, others, idle)]

    assert [(worker.status, worker.run_id) for worker in shown] == [
        ("busy", "run_a"), ("busy", ""), ("idle", ""),
    ]  # fmt: skip
    assert (shown[0].memory_bytes, shown[0].cpu_percent) == (1 << 30, 150.0)


async def test_workers_are_told_of_only_when_asked(caller: Caller):
    answer = await caller.call(caller.tasks.ListTasks, task_pb2.ListTasksRequest())

    assert len(answer.workers) == 0
