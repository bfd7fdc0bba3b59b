"""What `shoal top` shows of a busy server, against a real gRPC server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from clusters.v1 import task_pb2, task_service_pb2_grpc
from shoal_command import call_shoal

from server.cli.top import MOST_SHOWN


def task(number: int, status: str, seconds_ago: float, **facts: str) -> task_pb2.Task:
    since = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    made = task_pb2.Task(task_id=f"task_{number}", status=status, created_at=since)
    if status == "PROCESSING":
        made.started_at.FromDatetime(since)
    facts = {"run_id": f"run_{number}", "cluster_name": f"job {number}", **facts}
    made.additional_data.update(facts)
    return made


class BusyService(task_service_pb2_grpc.TaskServiceServicer):
    """One run works and 130 wait; lists begin with the newest."""

    def ListTasks(self, request: Any, context: Any) -> task_pb2.ListTasksResponse:
        answer = task_pb2.ListTasksResponse()
        if request.status == "PROCESSING":
            answer.results.append(task(1, "PROCESSING", 75, stage="cluster"))
        elif request.status == "PENDING":
            newest_first = range(131, 1, -1)
            waiting = [task(at, "PENDING", 10 * (200 - at), mode="full") for at in newest_first]
            answer.results.extend(waiting[request.offset :][: request.limit])
            answer.total_count = len(waiting)
        if request.include_workers:
            answer.workers.add(
                name="worker \x1b[2J0", status="busy", memory_bytes=3 << 30, run_id="run_1"
            )
            answer.workers.add(name="worker 1", status="idle", memory_bytes=200 << 20)
        return answer


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(BusyService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_top_shows_the_queue_running_jobs_and_workers_with_their_memory(address: str):
    shown = call_shoal("top", SHOAL_SERVER=address)
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]

    assert shown.code == 0, shown.err
    assert lines[0] == "1 running, 130 waiting; 1 of 2 workers busy"
    assert "worker \ufffd[2J0 3,072 MiB 0 % run_1" in lines
    assert "worker 1 200 MiB 0 % idle" in lines
    (running,) = [line for line in lines if line.startswith("job 1 run_1 ")]
    assert running.startswith("job 1 run_1 1:1")
    assert running.endswith(" cluster")
    waiting = [line.split()[2] for line in lines if line.endswith(" full")]
    assert waiting == [f"run_{at}" for at in range(2, 2 + MOST_SHOWN)]  # The oldest is next.


def test_top_as_json_says_how_many_wait(address: str):
    told = call_shoal("top", "--json", SHOAL_SERVER=address).json()

    assert [each["task_id"] for each in told["running"]] == ["task_1"]
    assert (len(told["waiting"]), told["n_waiting"]) == (MOST_SHOWN, 130)
    assert [worker["status"] for worker in told["workers"]] == ["busy", "idle"]
