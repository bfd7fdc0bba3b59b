"""The GPU back end: whole fits, each step after them, and Parquet straight to the device.

    python benchmarks/device.py                                  # the sizes of a large card
    python benchmarks/device.py --only kmeans --points 100000 --dims 384 --clusters 100 --cpu

Times are wall clock around calls that end in results on the host (or a synchronized device), in
a warm process: a small fit of the same kind comes first. cuML alone is given the same points on
the device with its own defaults, so the row says what our centring and stopping rule cost.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, machine_facts, timed, write_result
from rich.console import Console
from rich.table import Table

from gpu.backend import Backend, gpu_unusable
from gpu.clustering import fit
from gpu.device_frames import load_on_gpu
from gpu.frames import load_vectors
from gpu.hdbscan import hdbscan
from gpu.kmeans import kmeans
from gpu.metrics import quality
from gpu.params import HdbscanParams, KMeansParams
from gpu.sampling import assign_rest
from gpu.summary import summarize

PACKAGES = ("cuml-cu13", "cudf-cu13", "cupy-cuda13x", "numpy", "pyarrow")
PARTS = ("kmeans", "hdbscan", "steps", "parquet")
GPU = Backend("gpu", "the benchmark's")
ALLOCATORS = ("default", "async")


@dataclass(frozen=True)
class Row:
    """One line of the table; the rate is in `unit`, empty where only the time counts."""

    what: str
    who: str
    n_points: int
    n_dims: int
    median_s: float
    best_s: float
    repeats: int
    rate: float | None = None
    unit: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Sizes:
    """What the command line asked for."""

    points: int
    dims: int
    clusters: int
    hdbscan_points: int
    repeats: int
    with_cpu: bool


def mixture(n_points: int, n_dims: int, n_groups: int) -> np.ndarray:
    """Draw points around overlapping centres, block by block."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n_groups, n_dims), dtype=np.float32)
    points = np.empty((n_points, n_dims), dtype=np.float32)
    for start in range(0, n_points, 1 << 16):
        block = points[start : start + (1 << 16)]
        rng.standard_normal(out=block, dtype=np.float32)
        block += centres[rng.integers(n_groups, size=len(block))]
    return points


def synchronized(run: Callable[[], Any]) -> Callable[[], Any]:
    """Wait for the device after a call that only starts work on it."""
    import cupy

    def waited() -> Any:
        result = run()
        cupy.cuda.Device().synchronize()
        return result

    return waited


def row(what: str, who: str, shape: tuple[int, int], run: Callable[[], Any], repeats: int) -> Row:
    """Time one thing."""
    result, timing = timed(run, repeats=repeats)
    outcome = ""
    details = getattr(result, "details", {})
    if "inertia" in details:
        outcome = f"inertia {details['inertia']:.6g}, {details['n_iter']} iterations"
    elif hasattr(result, "n_clusters") and hasattr(result, "labels"):
        outcome = f"{result.n_clusters} groups"
    return Row(
        what=what,
        who=who,
        n_points=shape[0],
        n_dims=shape[1],
        median_s=round(timing.median_s, 4),
        best_s=round(timing.best_s, 4),
        repeats=repeats,
        outcome=outcome,
    )


def measure_kmeans(sizes: Sizes) -> list[Row]:
    """k-means: ours on the device, from the host, cuML alone, and the CPU when asked for."""
    import cupy
    from cuml.cluster import KMeans

    host = mixture(sizes.points, sizes.dims, sizes.clusters)
    points = cupy.asarray(host)
    params = KMeansParams(n_clusters=sizes.clusters)
    kmeans(points[: 40 * sizes.clusters], params, backend=GPU)

    def alone() -> Any:
        model = KMeans(n_clusters=sizes.clusters, init="k-means++", random_state=42)
        return model.fit(points).labels_.get()

    runs: list[tuple[str, Callable[[], Any]]] = [
        ("shoal, on the device", lambda: kmeans(points, params, backend=GPU)),
        ("shoal, from the host", lambda: kmeans(host, params, backend=GPU)),
        ("cuML alone", alone),
    ]
    if sizes.with_cpu:
        cpu = Backend("cpu", "the benchmark's")
        runs.append(("shoal, CPU", lambda: kmeans(host, params, backend=cpu)))
    what = f"k-means, k = {sizes.clusters:,}"
    return [row(what, who, host.shape, run, sizes.repeats) for who, run in runs]


def measure_hdbscan(sizes: Sizes) -> list[Row]:
    """HDBSCAN: ours on the device, cuML alone, and the CPU when asked for."""
    import cupy
    from cuml.cluster import HDBSCAN

    host = mixture(sizes.hdbscan_points, sizes.dims, 100)
    points = cupy.asarray(host)
    params = HdbscanParams(min_cluster_size=50, min_samples=10)
    hdbscan(points[:5_000], params, backend=GPU)

    def alone() -> Any:
        return HDBSCAN(min_cluster_size=50, min_samples=9).fit(points).labels_.get()

    runs: list[tuple[str, Callable[[], Any]]] = [
        ("shoal, on the device", lambda: hdbscan(points, params, backend=GPU)),
        ("cuML alone", alone),
    ]
    if sizes.with_cpu:
        cpu = Backend("cpu", "the benchmark's")
        runs.append(("shoal, CPU", lambda: hdbscan(host, params, backend=cpu)))
    rows = [row("HDBSCAN", who, host.shape, run, sizes.repeats) for who, run in runs]
    return rows + measure_approximate_hdbscan(sizes)


def measure_approximate_hdbscan(sizes: Sizes) -> list[Row]:
    """HDBSCAN with approximate neighbours, on as many points as k-means gets."""
    import cupy

    points = cupy.asarray(mixture(sizes.points, sizes.dims, 100))
    params = HdbscanParams(min_cluster_size=50, min_samples=10, approx_min_span_tree=True)
    hdbscan(points[:20_000], params, backend=GPU)
    what = "HDBSCAN, approximate"
    run = partial(hdbscan, points, params, backend=GPU)
    return [row(what, "shoal, on the device", points.shape, run, sizes.repeats)]


def measure_steps(sizes: Sizes) -> list[Row]:
    """What follows a fit: the groups' description, the figures, the rest of a sample."""
    import cupy

    host = mixture(sizes.points, sizes.dims, sizes.clusters)
    device = cupy.asarray(host)
    params = KMeansParams(n_clusters=sizes.clusters, max_iter=5)
    labels = fit(device, method="kmeans", params=params, metric="cosine", device="gpu").labels
    centroids = summarize(device, labels, metric="cosine").centroids
    rows = []
    for who, points in (("device", device), ("host", host)):
        runs: dict[str, Callable[[], Any]] = {
            "summarize": partial(summarize, points, labels, metric="cosine"),
            "quality": partial(quality, points, labels, metric="cosine"),
            "assign_rest": partial(assign_rest, points, centroids, None, "cosine"),
        }
        rows += [
            row(what, f"vectors on the {who}", host.shape, run, sizes.repeats)
            for what, run in runs.items()
        ]
    return rows


def measure_parquet(sizes: Sizes) -> list[Row]:
    """A file as the export writes it: straight to the device, and by way of the host."""
    import cupy
    import pyarrow as pa
    import pyarrow.parquet as pq

    host = mixture(sizes.points, sizes.dims, 100)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vectors.parquet")
        flat = pa.FixedSizeListArray.from_arrays(pa.array(host.reshape(-1)), host.shape[1])
        pq.write_table(
            pa.table({"vector": flat}),
            path,
            row_group_size=16_384,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )
        runs: dict[str, Callable[[], Any]] = {
            "cuDF to the device": synchronized(lambda: load_on_gpu([path], "vector")),
            "Arrow, then a copy": synchronized(
                lambda: cupy.asarray(load_vectors([path], "vector"))
            ),
            "Arrow to the host": lambda: load_vectors([path], "vector"),
        }
        rows = []
        for who, run in runs.items():
            run()
            timed_row = row("Parquet", who, host.shape, run, sizes.repeats)
            rate = round(host.nbytes / 1e9 / timed_row.best_s, 2)
            rows.append(Row(**{**vars(timed_row), "rate": rate, "unit": "GB/s"}))
    return rows


MEASURES: dict[str, Callable[[Sizes], list[Row]]] = {
    "kmeans": measure_kmeans,
    "hdbscan": measure_hdbscan,
    "steps": measure_steps,
    "parquet": measure_parquet,
}


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("what", "who", "points", "dims", "median s", "best s", "rate", "outcome")
    for line in rows:
        table.add_row(
            line.what,
            line.who,
            f"{line.n_points:,}",
            str(line.n_dims),
            f"{line.median_s:.3f}",
            f"{line.best_s:.3f}",
            "" if line.rate is None else f"{line.rate:.2f} {line.unit}",
            line.outcome,
        )
    Console(width=130).print(table)


def use_allocator(name: str) -> None:
    """Choose how cuML, cuDF and CuPy get device memory: cudaMalloc, or CUDA's own pool."""
    if name == "async":
        rmm = import_module("rmm")
        rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource())


def device_facts() -> dict[str, Any]:
    """Name the device and its driver."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "device": properties["name"].decode(),
        "device_memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--hdbscan-points", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="the CPU back end too, which is slow")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="default")
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json", help="result file")
    options = parser.parse_args()

    if why := gpu_unusable():
        raise SystemExit(f"nothing measured, there is no usable GPU: {why}")
    use_allocator(options.allocator)
    sizes = Sizes(
        points=options.points,
        dims=options.dims,
        clusters=options.clusters,
        hdbscan_points=options.hdbscan_points,
        repeats=options.repeats,
        with_cpu=options.cpu,
    )
    machine = machine_facts(PACKAGES) | device_facts() | {"allocator": options.allocator}
    rows: list[Row] = []
    for part in options.only or PARTS:
        rows += MEASURES[part](sizes)
    Console().print(f"{machine['device']}, allocator {options.allocator}")
    show(rows)
    write_result(options.json, name="gpu", machine=machine, results=list(rows))


if __name__ == "__main__":
    main()
