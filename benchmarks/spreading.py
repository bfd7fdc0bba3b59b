"""k-means over one, two and three workers of a Dask cluster, beside one process alone.

    python benchmarks/spreading.py --rows 200000

Each worker is a process with one thread of ours, and reads its own row groups of the same Parquet
file. Where there are fewer cores than workers, wall time cannot fall further: the CPU seconds of
the busiest worker then show how the work is shared. Inertia is relative to that of one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dask.distributed import Client, LocalCluster, get_client
from kmeans import mixture
from machine import RESULTS, About, machine_facts, write_result
from rich.console import Console
from rich.table import Table

from gpu import distributed
from gpu.backend import choose_backend
from gpu.clustering import Clustering
from gpu.kmeans import kmeans
from gpu.params import KMeansParams
from gpu.parts import PartSource, cut_parts, suitable_part_bytes

ABOUT = About(
    title="k-means over the workers of a Dask cluster",
    note="One thread in each worker, which reads its own row groups. On fewer cores than workers "
    "wall time cannot fall further; the busiest worker's CPU seconds show how work is shared.",
    value="busiest_cpu_s",
    labels=("n_points", "who"),
)


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds with reading, CPU seconds of the busiest worker."""

    n_points: int
    n_dims: int
    n_clusters: int
    who: str
    n_workers: int
    median_s: float
    busiest_cpu_s: float
    all_cpu_s: float
    n_iter: int
    inertia: float
    repeats: int


def open_file(path: str) -> BinaryIO:
    """Open a part's file."""
    return Path(path).open("rb")


def write(path: Path, points: np.ndarray) -> None:
    """Write points as an export does."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(points.ravel()), points.shape[1])
    pq.write_table(
        pa.table({"vector": lists}), path, row_group_size=16_384, compression="none",
        use_dictionary=False,
    )  # fmt: skip


def in_a_worker(sources: list[PartSource], params: KMeansParams) -> Clustering:
    """Spread from inside a worker, as a run does."""
    setting = distributed.Setting(get_client(), open_file, lambda said: None, n_threads=1)
    return distributed.kmeans(setting, sources, params, angular=False)


def spread(
    sources: list[PartSource], params: KMeansParams, n_workers: int, repeats: int
) -> tuple[Row, Clustering]:
    """Measure a cluster of so many workers."""
    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        client.submit(in_a_worker, sources, params, pure=False).result()  # Loads all it needs.
        seconds, cpu = [], []
        for _ in range(repeats):
            before = client.run(time.process_time)
            start = time.perf_counter()
            found = client.submit(in_a_worker, sources, params, pure=False).result()
            seconds.append(time.perf_counter() - start)
            after = client.run(time.process_time)
            cpu.append([after[worker] - before[worker] for worker in after])
    row = _row(sources, params, f"{n_workers} workers", n_workers, seconds, cpu, found)
    return row, found


def alone(
    sources: list[PartSource], params: KMeansParams, points: np.ndarray, repeats: int
) -> tuple[Row, Clustering]:
    """Measure one process with one thread, the points in its memory."""
    fit = partial(kmeans, points, params, backend=choose_backend("cpu"), n_threads=1)
    fit()
    seconds, cpu = [], []
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        found = fit()
        seconds.append(time.perf_counter() - start)
        cpu.append([time.process_time() - cpu_start])
    return _row(sources, params, "one process", 0, seconds, cpu, found), found


def _row(
    sources: list[PartSource],
    params: KMeansParams,
    who: str,
    n_workers: int,
    seconds: list[float],
    cpu: list[list[float]],
    found: Clustering,
) -> Row:
    return Row(
        n_points=sum(source.n_rows for source in sources),
        n_dims=sources[0].n_dims,
        n_clusters=params.n_clusters,
        who=who,
        n_workers=n_workers,
        median_s=round(statistics.median(seconds), 3),
        busiest_cpu_s=round(statistics.median(max(each) for each in cpu), 3),
        all_cpu_s=round(statistics.median(sum(each) for each in cpu), 3),
        n_iter=found.details["n_iter"],
        inertia=found.details["inertia"],
        repeats=len(seconds),
    )


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("points", "dims", "k", "who", "wall s", "busiest CPU s", "all CPU s", "inertia")
    for row in rows:
        table.add_row(
            f"{row.n_points:,}", str(row.n_dims), str(row.n_clusters), row.who,
            f"{row.median_s:.2f}", f"{row.busiest_cpu_s:.2f}", f"{row.all_cpu_s:.2f}",
            f"{row.inertia / rows[0].inertia:.6f}",
        )  # fmt: skip
    Console(width=110).print(table)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "spreading.json")
    options = parser.parse_args()

    machine = machine_facts(("numpy", "distributed"))
    points = mixture(options.rows, options.dims, options.clusters)
    params = KMeansParams(n_clusters=options.clusters)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.parquet"
        write(path, points)
        sources = cut_parts([str(path)], "vector", open_file, suitable_part_bytes(*points.shape))
        rows, found = zip(
            alone(sources, params, points, options.repeats),
            *(spread(sources, params, n, options.repeats) for n in options.workers),
            strict=True,
        )
    show(list(rows))
    if not all(np.array_equal(one.labels, found[1].labels) for one in found[2:]):
        raise SystemExit("the labels depend on the number of workers")
    write_result(options.json, name="spreading", machine=machine, results=list(rows), about=ABOUT)


if __name__ == "__main__":
    main()
