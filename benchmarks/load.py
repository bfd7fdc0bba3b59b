"""Many watchers, many calls and many queued runs on one server, beside a run that computes.

Starts a real server with keys and three namespaces on this machine. While a k-means run holds
the only worker, runs are queued in blocks, watchers are opened on them, and GetCluster and
ListClusters are called at a fixed rate from this process. Then the run is canceled and the
queue drains. Ends with 1 when a limit is missed: slow calls, memory that grows, runs out of
order or starved, an event that a watcher missed or got twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from clusters.v1 import (
    cluster_pb2,
    cluster_requests_pb2,
    cluster_service_pb2_grpc,
    definition_pb2,
    execution_pb2,
    watch_pb2,
)
from google.protobuf.json_format import ParseDict
from latency import SHOAL, until_stage
from machine import machine_facts, write_result
from rich.console import Console
from rich.table import Table

PACKAGES = ("grpcio", "distributed", "numpy")
SHARES = {"large": 0.8, "small": 0.12, "tiny": 0.08}
"""Each namespace's share of the queued runs."""

WATCHERS_PER_CHANNEL = 100
FINAL = ("completed", "failed", "canceled")


@dataclass(frozen=True)
class Row:
    """One thing that was measured, what is allowed, and whether it holds."""

    what: str
    measured: str
    allowed: str
    holds: bool


@dataclass
class Tenant:
    """A namespace with its key, and the clusters it has queued in order."""

    name: str
    metadata: tuple[tuple[str, str], ...]
    queued: list[str] = field(default_factory=list)


async def command(*words: str) -> str:
    """Run `shoal` to its end and give what it printed."""
    process = await asyncio.create_subprocess_exec(SHOAL, *words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"shoal {' '.join(words)} failed")
    return out.decode()


async def make_tenants(folder: str) -> list[Tenant]:
    """Make the namespaces and a key for each."""
    tenants = []
    for name in SHARES:
        where = ("--data-dir", folder, "--json")
        await command("namespaces", "create", name, *where)
        made = json.loads(
            await command("keys", "create", "--namespace", name, "--role", "write", *where)
        )
        metadata = (("authorization", f"Bearer {made['secret']}"), ("x-namespace", name))
        tenants.append(Tenant(name, metadata))
    return tenants


async def import_vectors(folder: str, name: str, n_points: int, n_dims: int) -> None:
    """Store normal vectors in a collection of each namespace."""
    rows = np.random.default_rng(42).normal(size=(n_points, n_dims)).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(rows.ravel(), n_dims)
    path = Path(folder) / f"{name}.parquet"
    pq.write_table(pa.table({"id": np.arange(n_points), "vector": vectors}), path)
    where = ("--collection", name, "--data-dir", folder, "--json")
    for namespace in SHARES:
        await command("import", str(path), "--namespace", namespace, *where)


@asynccontextmanager
async def serving(folder: str, max_active_runs: int) -> AsyncIterator[tuple[str, int]]:
    """Run `shoal serve` with keys; gives its address and its process id."""
    process = await asyncio.create_subprocess_exec(
        SHOAL, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, "--json",
        "--log-level", "ERROR", "--max-active-runs", str(max_active_runs),
        "--shutdown-grace-s", "1",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        address = json.loads(await process.stdout.readline())["address"]
        yield address, process.pid
    finally:
        process.terminate()
        await process.wait()


def request_of(collection: str, **params: Any) -> cluster_requests_pb2.CreateClusterRequest:
    """Ask for k-means on a collection."""
    config = {"clustering_method": "kmeans", "algorithm_params": params}
    return cluster_requests_pb2.CreateClusterRequest(
        collection_ids=[collection],
        vector_config=ParseDict(config, definition_pb2.VectorConfig()),
    )


async def queue_runs(stub: Any, tenants: Sequence[Tenant], n_runs: int) -> None:
    """Queue runs, all of one namespace before those of the next: the worst order for the last."""
    for tenant in tenants:
        for _ in range(max(1, round(n_runs * SHARES[tenant.name]))):
            made = await stub.CreateCluster(
                request_of("few", n_clusters=2), metadata=tenant.metadata
            )
            tenant.queued.append(made.cluster_id)


@dataclass
class Watchers:
    """Open streams and the sequences that each got."""

    seen: list[list[int]] = field(default_factory=list)
    ended: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def open(self, stub: Any, tenant: Tenant, cluster_id: str) -> None:
        """Watch a run to its end."""
        self.seen.append([])
        self.tasks.append(asyncio.create_task(self._watch(stub, tenant, cluster_id, self.seen[-1])))

    async def _watch(self, stub: Any, tenant: Tenant, cluster_id: str, seen: list[int]) -> None:
        request = watch_pb2.WatchExecutionRequest(cluster_id=cluster_id)
        async for event in stub.WatchExecution(request, metadata=tenant.metadata):
            if not event.heartbeat:
                seen.append(event.sequence)
                self.ended += event.status in FINAL

    @property
    def n_wrong(self) -> int:
        """Watchers that missed an event, or got one twice."""
        return sum(got != list(range(1, len(got) + 1)) or not got for got in self.seen)


async def call_steadily(
    stub: Any, tenants: Sequence[Tenant], *, seconds: float, calls_per_s: float
) -> list[float]:
    """Call at a fixed rate, whatever the answers take; gives milliseconds of each call."""
    times: list[float] = []

    async def call(number: int) -> None:
        tenant = tenants[number % len(tenants)]
        started = time.perf_counter()
        if number % 2:
            await stub.GetCluster(
                cluster_requests_pb2.GetClusterRequest(cluster_id=tenant.queued[0]),
                metadata=tenant.metadata,
            )
        else:
            await stub.ListClusters(
                cluster_requests_pb2.ListClustersRequest(limit=20), metadata=tenant.metadata
            )
        times.append((time.perf_counter() - started) * 1000)

    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.TaskGroup() as calls:
        for number in range(int(seconds * calls_per_s)):
            await asyncio.sleep(max(0.0, began + number / calls_per_s - clock()))
            calls.create_task(call(number))
    return times


def resident_mib(pid: int) -> float:
    """Read the memory that a process has in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def sample_memory(pid: int, every_s: float, into: list[float]) -> None:
    """Note the server's own resident memory, in MiB."""
    while True:
        into.append(resident_mib(pid))
        await asyncio.sleep(every_s)


async def starts_of(stub: Any, tenant: Tenant) -> list[tuple[float, int]]:
    """When each of a namespace's queued runs began, and its place in the queue."""
    starts = []
    for place, cluster_id in enumerate(tenant.queued):
        cluster: cluster_pb2.Cluster = await stub.GetCluster(
            cluster_requests_pb2.GetClusterRequest(cluster_id=cluster_id), metadata=tenant.metadata
        )
        if cluster.status != "COMPLETED":
            raise SystemExit(f"{cluster_id} ended {cluster.status}: {cluster.error}")
        starts.append((cluster.last_executed_at.ToNanoseconds() / 1e9, place))
    return sorted(starts)


async def order_rows(stub: Any, tenants: Sequence[Tenant]) -> list[Row]:
    """Check that runs began in order within each namespace, and that namespaces took turns."""
    starts = {tenant.name: await starts_of(stub, tenant) for tenant in tenants}
    places = [[place for _, place in rows] for rows in starts.values()]
    in_order = all(rows == sorted(rows) for rows in places)
    n_runs = sum(len(rows) for rows in places)
    rows = [Row("runs drained, in order in each namespace", str(n_runs), "all", in_order)]
    everything = sorted((at, name) for name, rows in starts.items() for at, _ in rows)
    for name in list(SHARES)[1:]:
        last = max(at for at, (_, owner) in enumerate(everything) if owner == name) + 1
        allowed = len(SHARES) * len(starts[name])
        row = Row(f"last of {name} began as number", str(last), f"{allowed}", last <= allowed)
        rows.append(row)
    return rows


async def load(arguments: argparse.Namespace) -> list[Row]:
    """Do it all and give what was found."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tenants = await make_tenants(folder)
        address, pid = await stack.enter_async_context(
            serving(folder, max(arguments.queued + 1, 10))
        )
        await import_vectors(folder, "mixture", 20_000, 128)
        await import_vectors(folder, "few", 60, 4)

        async def stub() -> Any:
            own = (("grpc.use_local_subchannel_pool", 1),)
            channel = grpc.aio.insecure_channel(address, options=own)
            await stack.enter_async_context(channel)
            return cluster_service_pb2_grpc.ClusterServiceStub(channel)

        calls = await stub()
        long_run = await calls.CreateCluster(
            request_of("mixture", n_clusters=512, n_init=10_000, tol=0),
            metadata=tenants[0].metadata,
        )
        await _until_computing(calls, tenants[0], long_run.cluster_id)
        await queue_runs(calls, tenants, arguments.queued)
        watchers = Watchers()
        targets = [(tenant, each) for tenant in tenants for each in tenant.queued]
        for number in range(arguments.watchers):
            if number % WATCHERS_PER_CHANNEL == 0:
                watching = await stub()
            watchers.open(watching, *targets[number % len(targets)])
        memory: list[float] = []
        sampling = asyncio.create_task(sample_memory(pid, arguments.seconds / 60, memory))
        await call_steadily(calls, tenants, seconds=2, calls_per_s=arguments.rate)
        memory.clear()
        times = await call_steadily(
            calls, tenants, seconds=arguments.seconds, calls_per_s=arguments.rate
        )
        sampling.cancel()
        rows = _measured(arguments, times, memory)
        await calls.CancelExecution(
            execution_pb2.CancelExecutionRequest(
                cluster_id=long_run.cluster_id, run_id=long_run.last_run_id
            ),
            metadata=tenants[0].metadata,
        )
        began = time.monotonic()
        await asyncio.gather(*watchers.tasks)
        drain_s = time.monotonic() - began
        complete = watchers.ended == arguments.watchers and not watchers.n_wrong
        told = f"{watchers.ended} of {arguments.watchers}"
        rows.append(Row("watchers that got every event once", told, "all", complete))
        rows += await order_rows(calls, tenants)
        rows.append(Row("the queue drained in", f"{drain_s:.0f} s", "", True))
        return rows


async def _until_computing(stub: Any, tenant: Tenant, cluster_id: str) -> None:
    class _Keyed:
        """The stub with the tenant's key, as `until_stage` calls it."""

        @staticmethod
        def WatchExecution(request: watch_pb2.WatchExecutionRequest) -> Any:
            return stub.WatchExecution(request, metadata=tenant.metadata)

    await until_stage(_Keyed, cluster_id, "cluster")


def _measured(
    arguments: argparse.Namespace, times: Sequence[float], memory: Sequence[float]
) -> list[Row]:
    p50, p99 = np.percentile(times, [50, 99])
    quarter = max(1, len(memory) // 4)
    before, after = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
    growth = after - before
    return [
        Row("watchers open", str(arguments.watchers), "", True),
        Row("unary calls", f"{len(times)} at {arguments.rate:.0f}/s", "", True),
        Row("p50", f"{p50:.1f} ms", "", True),
        Row("p99", f"{p99:.1f} ms", f"{arguments.p99_ms:.0f} ms", bool(p99 <= arguments.p99_ms)),
        Row("slowest", f"{max(times):.1f} ms", "", True),
        Row(
            f"memory over {arguments.seconds:.0f} s",
            f"{before:.0f} to {after:.0f} MiB",
            f"+{arguments.growth_mib:.0f} MiB",
            growth <= arguments.growth_mib,
        ),
    ]


def main() -> int:
    """Read the arguments, load the server, print the table; 1 if a limit was missed."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--watchers", type=int, default=1000, help="open watch streams")
    parser.add_argument("--rate", type=float, default=200, help="unary calls per second")
    parser.add_argument("--seconds", type=float, default=20, help="length of the measurement")
    parser.add_argument("--queued", type=int, default=500, help="runs in the queue")
    parser.add_argument("--p99-ms", type=float, default=100, help="allowed for unary calls")
    parser.add_argument("--growth-mib", type=float, default=8, help="allowed growth of memory")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    arguments = parser.parse_args()

    machine = machine_facts(PACKAGES)
    rows = asyncio.run(load(arguments))
    table = Table(
        title="Load beside a k-means run",
        caption=f"{machine['processor']}, {machine['cores']} cores, "
        f"load average {machine['load_average_1m']}",
    )
    for name in ("what", "measured", "allowed", ""):
        table.add_column(name)
    for row in rows:
        table.add_row(row.what, row.measured, row.allowed, "ok" if row.holds else "MISSED")
    Console(width=110).print(table)
    if arguments.json:
        write_result(arguments.json, name="load", machine=machine, results=rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
