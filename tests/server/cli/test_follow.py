"""A watch over a connection that breaks, against a real gRPC server that breaks it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import grpc
import pytest
from clusters.v1 import cluster_pb2, cluster_service_pb2_grpc, watch_pb2
from shoal_command import COMMAND, environment

from server.cli import follow as follow_module
from server.cli.connection import connect
from server.cli.faults import CallFailedError
from server.cli.follow import Watch, follow

N_EVENTS = 6


class BreakingService(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Has six events of one run, and breaks every stream after two of them."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.asked_after: list[int] = []
        self._code = code

    def WatchExecution(self, request: Any, context: Any) -> Iterator[watch_pb2.ExecutionEvent]:
        self.asked_after.append(request.after_sequence)
        first = request.after_sequence + 1
        for sequence in range(first, min(first + 2, N_EVENTS + 1)):
            status = "completed" if sequence == N_EVENTS else "processing"
            yield watch_pb2.ExecutionEvent(sequence=sequence, run_id="run_1", status=status)
        if first + 2 <= N_EVENTS:
            last = first + 1
            yield watch_pb2.ExecutionEvent(
                sequence=last, run_id="run_1", status="processing", heartbeat=True
            )
            yield watch_pb2.ExecutionEvent(
                sequence=last, run_id="run_1", status="processing", error="cut off"
            )
            context.abort(self._code, "cut off")


class EndlessService(cluster_service_pb2_grpc.ClusterServiceServicer):
    """Starts a run that never ends, and notes when its watcher is gone."""

    def __init__(self) -> None:
        self.watcher_left = Event()

    def CreateCluster(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        return cluster_pb2.Cluster(cluster_id="clust_1", last_run_id="run_1")

    def WatchExecution(self, request: Any, context: Any) -> Iterator[watch_pb2.ExecutionEvent]:
        context.add_callback(self.watcher_left.set)
        yield watch_pb2.ExecutionEvent(
            sequence=1, run_id="run_1", status="processing", stage="cluster"
        )
        self.watcher_left.wait(60)


@contextmanager
def served(service: cluster_service_pb2_grpc.ClusterServiceServicer) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_broken_stream_loses_and_repeats_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follow_module, "RECONNECT_EVERY_S", 0.01)
    service = BreakingService(grpc.StatusCode.UNAVAILABLE)
    watch = Watch("clust_1")
    with served(service) as address, connect(address, None, None) as connection:
        sequences = [event.sequence for event in follow(connection, watch)]

    assert sequences == [1, 2, 3, 4, 5, 6]
    assert service.asked_after == [0, 2, 4]
    assert watch.command == "shoal watch clust_1 --run run_1 --after 6"


def test_interrupted_the_run_goes_on_and_the_ways_back_are_named():
    service = EndlessService()
    with served(service) as address:
        process = subprocess.Popen(
            # Tests that a shell runs in the background ignore it, and children inherit that.
            [
                "env",
                "--default-signal=INT",
                *COMMAND,
                *["run", "--collection", "docs", "--method", "kmeans"],
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(SHOAL_SERVER=address),
        )
        assert process.stdout is not None
        first = process.stdout.readline()  # The watch is under way.
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        code = process.wait(20)
        process.stdout.close()
        has_left = service.watcher_left.wait(10)

    assert first == "cluster\n"
    assert code == 130
    assert "shoal watch clust_1 --run run_1 --after 1" in rest
    assert "shoal cancel clust_1" in rest
    assert has_left


def test_a_refusal_is_not_tried_again():
    service = BreakingService(grpc.StatusCode.PERMISSION_DENIED)
    with (
        served(service) as address,
        connect(address, None, None) as connection,
        pytest.raises(CallFailedError) as raised,
    ):
        list(follow(connection, Watch("clust_1")))

    assert raised.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert service.asked_after == [0]


def test_a_server_that_stays_away_ends_the_watch_with_the_way_back(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(follow_module, "RECONNECT_EVERY_S", 0.01)
    monkeypatch.setattr(follow_module, "RECONNECT_FOR_S", 0.2)
    watch = Watch("clust_1")
    with (
        served(BreakingService(grpc.StatusCode.UNAVAILABLE)) as address,
        connect(address, None, None) as connection,
    ):
        events = follow(connection, watch)
        assert next(events).sequence == 1
    with (
        connect("127.0.0.1:1", None, None) as connection,
        pytest.raises(CallFailedError, match="shoal watch clust_1 --run run_1 --after 1"),
    ):
        list(follow(connection, watch))
