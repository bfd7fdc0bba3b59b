"""SIGTERM: no new runs, time for those in hand, then watchers told and the rest handed back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clusters.v1 import cluster_requests_pb2, watch_pb2
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceStub
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from shoal_command import Served, call_shoal, serving

from tests.server.api.failures import read_failure

# Real servers come and go in their set-up, which takes longer on a busy machine.
pytestmark = pytest.mark.timeout(300)

N_DIMS = 48
QUICK = {"n_clusters": 5}
SLOW = {"n_clusters": 400, "n_init": 12, "tol": 0, "max_iter": 60}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one collection, whose clustering can take long."""
    folder = tmp_path_factory.mktemp("drained")
    rows = np.random.default_rng(5).normal(size=(4000, N_DIMS)).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), N_DIMS)
    pq.write_table(pa.table({"embedding": vectors}), folder / "docs.parquet")
    words = ("import", folder / "docs.parquet", "--collection", "docs", "--data-dir", folder)
    assert call_shoal(*words).code == 0
    return folder


class Watcher:
    """Follows a run in a thread of its own, to the end of the stream."""

    def __init__(self, stub: ClusterServiceStub, cluster_id: str, stage: str) -> None:
        self.events: list[watch_pb2.ExecutionEvent] = []
        self.error: grpc.RpcError | None = None
        self._reached = threading.Event()
        self._stage = stage
        request = watch_pb2.WatchExecutionRequest(cluster_id=cluster_id)
        self._thread = threading.Thread(target=self._follow, args=(stub.WatchExecution(request),))
        self._thread.start()
        assert self._reached.wait(60), f"stage {stage} was not reached"

    def _follow(self, stream: Iterator[watch_pb2.ExecutionEvent]) -> None:
        try:
            for event in stream:
                self.events.append(event)
                if event.stage == self._stage:
                    self._reached.set()
        except grpc.RpcError as error:
            self.error = error

    def ended(self) -> None:
        """Wait for the stream's end."""
        self._thread.join(60)
        assert not self._thread.is_alive()


def create(stub: ClusterServiceStub, params: dict[str, Any]) -> Any:
    body = {
        "collection_ids": ["docs"],
        "vector_config": {"clustering_method": "kmeans", "algorithm_params": params},
    }
    request = json_format.ParseDict(body, cluster_requests_pb2.CreateClusterRequest())
    return stub.CreateCluster(request, timeout=20)


def stop(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)


def test_a_run_that_ends_within_the_grace_is_seen_to_its_end(data_dir: Path) -> None:
    with (
        serving(data_dir, "--dev", "--shutdown-grace-s", "60") as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        stub = ClusterServiceStub(channel)
        cluster = create(stub, {**SLOW, "n_init": 2})
        watcher = Watcher(stub, cluster.cluster_id, "cluster")
        stop(served)
        probe = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        for answer in probe:  # Until the signal is heard.
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
        probe.cancel()
        with pytest.raises(grpc.RpcError) as refused:
            create(stub, QUICK)
        read = stub.GetCluster(
            cluster_requests_pb2.GetClusterRequest(cluster_id=cluster.cluster_id), timeout=20
        )
        watcher.ended()
        exit_code = served.process.wait(90)

    failure = read_failure(refused.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
    assert read.cluster_id == cluster.cluster_id
    assert watcher.error is None
    assert watcher.events[-1].status == "completed"
    assert exit_code == 0


def test_a_run_beyond_the_grace_goes_on_with_the_next_server(data_dir: Path) -> None:
    with (
        serving(data_dir, "--dev", "--shutdown-grace-s", "1") as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        stub = ClusterServiceStub(channel)
        cluster = create(stub, SLOW)
        watcher = Watcher(stub, cluster.cluster_id, "cluster")
        stop(served)
        watcher.ended()
        exit_code = served.process.wait(90)

    *_, handed_back, last = watcher.events
    assert "the server is stopping" in handed_back.message
    assert last.error_info.reason == "SERVER_STOPPING"
    assert (last.sequence, last.status) == (handed_back.sequence, "processing")
    assert watcher.error is not None
    assert read_failure(watcher.error).code is grpc.StatusCode.UNAVAILABLE
    assert exit_code == 0

    with serving(data_dir, "--dev") as served, grpc.insecure_channel(served.address) as channel:
        request = watch_pb2.WatchExecutionRequest(
            cluster_id=cluster.cluster_id, after_sequence=last.sequence
        )
        rest = list(ClusterServiceStub(channel).WatchExecution(request, timeout=90))

    assert [event.sequence for event in rest] == [*range(last.sequence + 1, rest[-1].sequence + 1)]
    assert rest[-1].status == "completed"
