"""Servers as processes on one store, watchers that come back, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from clusters.v1 import cluster_pb2, cluster_requests_pb2, execution_pb2, watch_pb2
from clusters.v1.cluster_service_pb2_grpc import ClusterServiceStub
from google.protobuf.json_format import ParseDict
from qdrant_client import QdrantClient, models
from shoal_command import environment

from server.jobs.ids import short_id
from server.jobs.model import FINAL_STATUSES
from server.qdrant.client import QdrantAddress
from server.results.artifacts import RunFolder

WAIT_S = 100.0
N_DOCUMENTS = 600
BODY: dict[str, Any] = {
    "collection_ids": ["docs"],
    "vector_config": {"clustering_method": "kmeans", "algorithm_params": {"n_clusters": 4}},
}
LEASE_S = 5
WATCH_S = 20.0
"""A stream is taken up again after so long: a stopped server never ends one."""
COMMAND = str(Path(__file__).with_name("gated_server.py"))


def until(holds: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Wait for a condition and give its value."""
    deadline = time.monotonic() + wait_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {wait_s:g} s for {what}"
        time.sleep(0.02)
    return value


class Server:
    """One `shoal serve --dev` in a process of its own."""

    def __init__(self, data_dir: Path, gates: Path, number: int, settings: dict[str, str]) -> None:
        self.log = data_dir / f"server-{number}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, COMMAND, "serve", "--dev", "--json", "--listen", "127.0.0.1:0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(
                    SHOAL_DATA_DIR=str(data_dir),
                    SHOAL_TEST_GATES=str(gates),
                    SHOAL_DEVICE="cpu",
                    SHOAL_THREADS="1",
                    SHOAL_SHUTDOWN_GRACE_S="0",
                    SHOAL_LEASE_S=str(LEASE_S),
                    **settings,
                ),
            )
        self._address = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_up(self) -> bool:
        return self.process.poll() is None

    @property
    def address(self) -> str:
        """Where it answers; waits until it does."""
        if not self._address:
            assert self.process.stdout is not None
            assert select.select([self.process.stdout], [], [], WAIT_S)[0], "it said nothing"
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            self._address = json.loads(line)["address"]
        return self._address

    def workers(self) -> list[int]:
        """Its worker processes."""
        return [
            child.pid
            for child in psutil.Process(self.pid).children()
            if "spawn_main" in _command_of(child)
        ]

    @property
    def answers(self) -> bool:
        """Whether it is up and was seen to answer."""
        return bool(self._address) and self.is_up

    def kill(self) -> None:
        self.process.kill()
        self._bury()

    def close(self) -> None:
        if self.is_up:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._bury()

    def _bury(self) -> None:
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass
class Gate:
    """A point at which runs wait while it is closed."""

    path: Path

    def reached(self) -> int:
        """Wait until a run waits here; gives the process it runs in."""
        told = self.path.with_name(f"{self.path.name}.reached")
        return int(until(lambda: told.exists() and told.read_text(), f"a run at {self.path.name}"))

    def open(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass
class Fleet:
    """Servers that share a store, a Qdrant and a folder of artifacts."""

    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    n_started: int = 0

    @property
    def gates(self) -> Path:
        return self.data_dir / "gates"

    def start(self, n_servers: int = 1) -> None:
        """Start servers; they answer once their address is asked for."""
        self.gates.mkdir(parents=True, exist_ok=True)
        for _ in range(n_servers):
            self.n_started += 1
            self.servers.append(Server(self.data_dir, self.gates, self.n_started, self.settings))

    def ready(self, n_servers: int) -> None:
        """Have so many servers up and answering, and no gate closed."""
        self.gates.mkdir(parents=True, exist_ok=True)
        for path in self.gates.iterdir():
            path.unlink()
        for server in self.servers:
            if not server.is_up:
                server.close()  # Its pipe is ours to close.
        self.servers = [server for server in self.servers if server.is_up]
        self.start(n_servers - len(self.servers))
        for server in self.servers:
            assert server.address

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def gate(self, point: str) -> Gate:
        """Close a gate for the runs to come."""
        path = self.gates / point
        path.touch()
        path.with_name(f"{point}.reached").unlink(missing_ok=True)
        return Gate(path)

    def open(self, point: str) -> None:
        """Let the runs at a point go on, and those to come pass."""
        Gate(self.gates / point).open()

    def reached_again(self, point: str, before: set[int]) -> int:
        """Wait until a run waits at a closed gate in a process that is none of these."""
        gate = Gate(self.gates / point)
        return int(until(lambda: {gate.reached()} - before, f"another run at {point}").pop())

    def owner(self, worker_pid: int) -> Server:
        """The server whose worker it is."""
        return next(server for server in self.servers if worker_pid in server.workers())

    @contextmanager
    def stub(self) -> Iterator[Any]:
        """Calls to any server that is up."""
        server = next(server for server in self.servers if server.answers)
        with grpc.insecure_channel(server.address) as channel:
            yield ClusterServiceStub(channel)

    def create(self, body: dict[str, Any]) -> cluster_pb2.Cluster:
        request = ParseDict(body, cluster_requests_pb2.CreateClusterRequest())
        with self.stub() as stub:
            return stub.CreateCluster(request, timeout=20)

    def execute(self, cluster_id: str) -> None:
        with self.stub() as stub:
            stub.ExecuteCluster(
                execution_pb2.ExecuteClusterRequest(cluster_id=cluster_id), timeout=20
            )

    def watch(self, cluster_id: str) -> Watcher:
        return Watcher(self, cluster_id)

    def folder(self, cluster: cluster_pb2.Cluster) -> RunFolder:
        return RunFolder(
            str(self.data_dir / "artifacts"),
            cluster.namespace_id,
            cluster.cluster_id,
            cluster.last_run_id,
        )


def fleet_of(address: QdrantAddress | None, data_dir: Path, **settings: str) -> Fleet:
    """Servers on a Qdrant; None: on the one that a server starts for itself."""
    if address is not None:
        settings["SHOAL_QDRANT_URL"] = f"http://{address.target}"
        settings["SHOAL_QDRANT_API_KEY"] = address.api_key or "none"
    return Fleet(data_dir, settings)


def fill(client: QdrantClient) -> None:
    """Store four far groups of documents in `docs`."""
    client.create_collection(
        "docs", vectors_config=models.VectorParams(size=16, distance=models.Distance.EUCLID)
    )
    rows = np.eye(4, 16).repeat(N_DOCUMENTS // 4, axis=0) * 9
    rows += np.random.default_rng(5).normal(size=(N_DOCUMENTS, 16))
    client.upsert(
        "docs",
        [
            models.PointStruct(id=n, vector=row, payload={"text": f"text {n // 150}"})
            for n, row in enumerate(rows.tolist())
        ],
        wait=True,
    )


class Watcher:
    """Watches a run to its end, from server to server, and keeps every event it is sent."""

    def __init__(self, fleet: Fleet, cluster_id: str) -> None:
        self._fleet = fleet
        self._cluster_id = cluster_id
        self.events: list[watch_pb2.ExecutionEvent] = []
        self.n_connections = 0
        self._gave_up_at = time.monotonic() + 2 * WAIT_S
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def messages(self) -> list[str]:
        return [event.message for event in self.events]

    @property
    def final(self) -> watch_pb2.ExecutionEvent | None:
        """The last event, once it is the final one."""
        last = self.events[-1] if self.events else None
        return last if last is not None and _is_final(last) else None

    @property
    def tries(self) -> int:
        """How often the run was begun or taken up, as its events tell."""
        return 1 + sum("taken up again" in message for message in self.messages)

    def see(self, stage: str) -> None:
        """Wait for an event of a stage."""
        until(lambda: any(event.stage == stage for event in self.events), f"an event of {stage}")

    def said(self, words: str) -> str:
        """The first event's message that has these words."""
        found = [message for message in self.messages if words in message]
        assert found, (words, self.messages)
        return found[0]

    def end(self) -> cluster_pb2.Cluster:
        """Wait for the end; the cluster as its final event tells it."""
        self._thread.join(WAIT_S)
        assert self.final is not None, self.messages
        return self.final.cluster

    def _watch(self) -> None:
        while self.final is None and time.monotonic() < self._gave_up_at:
            for server in list(self._fleet.servers):
                if self.final is None and server.answers:
                    self._watch_at(server.address)
            time.sleep(0.05)

    def _watch_at(self, address: str) -> None:
        self.n_connections += 1
        seen = self.events[-1].sequence if self.events else 0
        request = watch_pb2.WatchExecutionRequest(cluster_id=self._cluster_id, after_sequence=seen)
        with grpc.insecure_channel(address) as channel:
            try:
                for event in ClusterServiceStub(channel).WatchExecution(request, timeout=WATCH_S):
                    is_news = not event.heartbeat and not (event.error and not _is_final(event))
                    if is_news:
                        self.events.append(event)
            except grpc.RpcError:
                return  # Its server is gone, or cannot read its store: another one can.


@dataclass(frozen=True)
class Remains:
    """What a run left where others can see it."""

    shown: list[str]
    generations: list[str]
    files: list[str]


def remains(fleet: Fleet, qdrant: QdrantClient, cluster: cluster_pb2.Cluster) -> Remains:
    """Look for a cluster's outputs and files."""
    short = short_id(cluster.cluster_id)
    folder = fleet.folder(cluster)
    return Remains(
        shown=[a.alias_name for a in qdrant.get_aliases().aliases if short in a.alias_name],
        generations=[c.name for c in qdrant.get_collections().collections if short in c.name],
        files=sorted(os.listdir(folder.root)) if Path(folder.root).exists() else [],
    )


def assert_whole(fleet: Fleet, qdrant: QdrantClient, cluster: cluster_pb2.Cluster) -> None:
    """Outputs and artifacts are whole, and nothing lies beside them."""
    left = remains(fleet, qdrant, cluster)
    assert len(left.shown) == len(left.generations) == 1, left
    expected = cluster.num_clusters + cluster.num_documents_clustered
    assert qdrant.count(left.shown[0], exact=True).count == expected
    assert left.files == [
        ".lease",
        "centroids.parquet",
        "export",
        "figures.json",
        "manifest.json",
        "members.parquet",
    ], left.files
    assert fleet.folder(cluster).verify().counts["documents"] == cluster.num_documents_clustered


def assert_absent(fleet: Fleet, qdrant: QdrantClient, cluster: cluster_pb2.Cluster) -> None:
    """Nothing of the run is left."""
    assert remains(fleet, qdrant, cluster) == Remains([], [], [])


def assert_every_event_once(watcher: Watcher) -> None:
    """Numbers go up by one, and the last event alone is final."""
    numbers = [event.sequence for event in watcher.events]
    assert numbers == list(range(1, len(numbers) + 1))
    finals = [_is_final(event) for event in watcher.events]
    assert finals == [False] * (len(finals) - 1) + [True]


def _is_final(event: watch_pb2.ExecutionEvent) -> bool:
    return event.status in FINAL_STATUSES


def _command_of(process: psutil.Process) -> str:
    """Give a process's command; nothing for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
