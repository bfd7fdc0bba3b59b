"""How fast other calls are answered while a job computes, and how fast a job is stopped.

Starts a real server with its worker on this machine, stores a mixture of vectors in the
embedded Qdrant, and measures GetCluster and ListClusters from another process, first idle and
then beside a k-means run that uses every core. At the end the run is canceled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from clusters.v1 import (
    cluster_requests_pb2,
    cluster_service_pb2_grpc,
    definition_pb2,
    execution_pb2,
    watch_pb2,
)
from google.protobuf.json_format import ParseDict
from machine import machine_facts, write_result
from rich.console import Console
from rich.table import Table

PACKAGES = ("grpcio", "distributed", "numpy")
SHOAL = str(Path(sys.executable).with_name("shoal"))


@dataclass(frozen=True)
class Row:
    """Latencies of one situation, in milliseconds."""

    situation: str
    calls: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


@asynccontextmanager
async def serving(folder: str) -> AsyncIterator[str]:
    """Run `shoal serve --dev` and give its address."""
    process = await asyncio.create_subprocess_exec(
        SHOAL, "serve", "--dev", "--listen", "127.0.0.1:0",
        "--data-dir", folder, "--log-level", "ERROR", "--json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["address"]
    finally:
        process.terminate()
        await process.wait()


async def import_mixture(folder: str, n_points: int, n_dims: int) -> None:
    """Store a Gaussian mixture in the collection `mixture`."""
    rng = np.random.default_rng(42)
    centers = rng.normal(size=(200, n_dims))
    rows = centers[rng.integers(0, 200, n_points)] + rng.normal(0, 0.8, (n_points, n_dims))
    vectors = pa.FixedSizeListArray.from_arrays(rows.astype(np.float32).ravel(), n_dims)
    path = Path(folder) / "mixture.parquet"
    pq.write_table(pa.table({"id": np.arange(n_points), "vector": vectors}), path)
    process = await asyncio.create_subprocess_exec(
        SHOAL, "import", str(path),
        "--collection", "mixture", "--data-dir", folder, "--json",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    if await process.wait():
        raise SystemExit("the import failed")


async def measure(
    stub: Any, situation: str, cluster_id: str, *, seconds: float, calls_per_s: float
) -> Row:
    """Call at a fixed rate, whatever the answers take, and keep each call's time."""
    times: list[float] = []

    async def call(number: int) -> None:
        started = time.perf_counter()
        if number % 2:
            await stub.GetCluster(cluster_requests_pb2.GetClusterRequest(cluster_id=cluster_id))
        else:
            await stub.ListClusters(cluster_requests_pb2.ListClustersRequest(limit=20))
        times.append((time.perf_counter() - started) * 1000)

    loop = asyncio.get_running_loop()
    began = loop.time()
    pending = []
    for number in range(int(seconds * calls_per_s)):
        await asyncio.sleep(max(0.0, began + number / calls_per_s - loop.time()))
        pending.append(asyncio.create_task(call(number)))
    await asyncio.gather(*pending)
    p50, p99 = np.percentile(times, [50, 99])
    return Row(situation, len(times), calls_per_s, float(p50), float(p99), max(times))


async def until_stage(stub: Any, cluster_id: str, stage: str) -> None:
    """Watch the newest run until it enters a stage."""
    async for event in stub.WatchExecution(watch_pb2.WatchExecutionRequest(cluster_id=cluster_id)):
        if event.stage == stage:
            return
        if event.error:
            raise SystemExit(event.error)


async def bench(arguments: argparse.Namespace) -> list[Row]:
    """Measure idle, measure beside a job, cancel the job."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(folder) as address:
            await import_mixture(folder, arguments.points, arguments.dims)
            async with grpc.aio.insecure_channel(address) as channel:
                stub = cluster_service_pb2_grpc.ClusterServiceStub(channel)
                config = {
                    "clustering_method": "kmeans",
                    "algorithm_params": {"n_clusters": 512, "n_init": 100, "tol": 0},
                }
                request = cluster_requests_pb2.CreateClusterRequest(
                    collection_ids=["mixture"],
                    vector_config=ParseDict(config, definition_pb2.VectorConfig()),
                    execute=False,
                )
                cluster = await stub.CreateCluster(request)
                rate = {"seconds": arguments.seconds, "calls_per_s": arguments.rate}
                await measure(stub, "warm-up", cluster.cluster_id, seconds=1, calls_per_s=50)
                rows = [await measure(stub, "idle", cluster.cluster_id, **rate)]
                task = await stub.ExecuteCluster(
                    execution_pb2.ExecuteClusterRequest(cluster_id=cluster.cluster_id)
                )
                await until_stage(stub, cluster.cluster_id, "cluster")
                rows.append(await measure(stub, "beside a job", cluster.cluster_id, **rate))
                rows.append(
                    await cancel(stub, cluster.cluster_id, str(task.additional_data["run_id"]))
                )
                return rows


async def cancel(stub: Any, cluster_id: str, run_id: str) -> Row:
    """Time a cancel up to the final event of the stream."""
    started = time.perf_counter()
    await stub.CancelExecution(
        execution_pb2.CancelExecutionRequest(cluster_id=cluster_id, run_id=run_id)
    )
    last = None
    async for event in stub.WatchExecution(watch_pb2.WatchExecutionRequest(cluster_id=cluster_id)):
        last = event
    if last is None or last.status != "canceled":
        raise SystemExit(f"the run did not end canceled: {last}")
    took_ms = (time.perf_counter() - started) * 1000
    return Row("cancel to final event", 1, 0.0, took_ms, took_ms, took_ms)


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=40_000, help="rows of the mixture")
    parser.add_argument("--dims", type=int, default=256, help="dimensions")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement")
    parser.add_argument("--rate", type=float, default=100, help="calls per second")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    arguments = parser.parse_args()

    machine = machine_facts(PACKAGES)
    rows = asyncio.run(bench(arguments))
    table = Table(
        title=f"Unary calls beside a k-means run of {arguments.points:,} x {arguments.dims}",
        caption=f"{machine['processor']}, {machine['cores']} cores",
    )
    for name in ("", "calls", "calls/s", "p50 ms", "p99 ms", "worst ms"):
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        table.add_row(
            row.situation,
            str(row.calls),
            f"{row.calls_per_s:.0f}",
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.worst_ms:.1f}",
        )
    Console(width=110).print(table)
    if arguments.json:
        write_result(arguments.json, name="latency", machine=machine, results=rows)


if __name__ == "__main__":
    main()
