"""A whole job in one worker process: its stages' seconds, and its peak of memory.

    python benchmarks/job.py --points 1000000

The job reads replayed pages, exports, loads, clusters by k-means, names the groups, writes its
artifacts, and enriches every document (the replaying server drops those writes). It runs in a
process of its own; the peak is that process's resident memory as the kernel counted it, all
libraries included. The bound is 1.6 times the matrix and 1 GB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from machine import RESULTS, About, machine_facts, write_result
from replay import Size, replaying
from rich.console import Console
from rich.table import Table

from server.jobs.definition import parse_definition
from server.jobs.pipeline import prepare, publish
from server.jobs.spec import RunSpec
from server.qdrant.client import QdrantAddress

PACKAGES = ("numpy", "pyarrow", "scikit-learn", "grpcio", "qdrant-client")
N_DIMS = 384
PAGES_KEPT = 8  # Of the server, so that it does not hold the collection a second time.


@dataclass(frozen=True)
class Row:
    """One job: what it took, and what it was allowed."""

    n_points: int
    n_dims: int
    matrix_mb: float
    peak_mb: float
    allowed_mb: float
    seconds: float
    stage_s: dict[str, float]
    times_slowest_stage: float


def _run(address: QdrantAddress, folder: str, n_clusters: int, answer: Connection) -> None:
    """Do the job and tell its seconds and its peak."""
    definition = parse_definition(
        {
            "collection_ids": ["plain"],
            "vector_config": {
                "clustering_method": "kmeans",
                "algorithm_params": {"n_clusters": n_clusters, "n_init": 1, "max_iter": 10},
            },
            "enrich_source_collection": True,
        }
    )
    spec = RunSpec(
        namespace_id="ns_1",
        cluster_id="clust_1",
        run_id="run_1",
        definition=definition,
        qdrant=address,
        qdrant_names=("plain",),
        artifacts_url=folder,
        outputs=(),
        label_cache=f"{folder}/labels",
        device="cpu",
    )
    started = time.perf_counter()
    prepared = prepare(spec, lambda report: None)
    publishing = time.perf_counter()
    publish(replace(spec, result=prepared.result), lambda report: None)
    ended = time.perf_counter()
    stages = {**prepared.result.timings_s, "enrich": ended - publishing}
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send((stages, ended - started, peak_kib * 1024))


def measure(n_points: int, n_clusters: int) -> Row:
    """Run one job in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    size = Size(n_points, N_DIMS, PAGES_KEPT)
    with (
        replaying(size) as address,
        tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder,
    ):
        process = spawn.Process(target=_run, args=(address, folder, n_clusters, theirs))
        process.start()
        theirs.close()
        try:
            stages, seconds, peak = ours.recv()
        except EOFError:
            raise SystemExit("the job failed; see above") from None
        process.join()
    matrix = 4 * n_points * N_DIMS
    return Row(
        n_points,
        N_DIMS,
        matrix / 1e6,
        peak / 1e6,
        (1.6 * matrix + 1e9) / 1e6,
        seconds,
        stages,
        seconds / max(stages.values()),
    )


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--clusters", type=int, default=32, help="groups of the k-means")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "job.json", help="where the figures go"
    )
    arguments = parser.parse_args()

    machine = machine_facts(PACKAGES)
    rows = [measure(n_points, arguments.clusters) for n_points in arguments.points]
    table = Table(
        title=f"Whole jobs at {N_DIMS} dimensions",
        caption=f"{machine['processor']}, {machine['cores']} cores",
    )
    for name in ("points", "peak MB", "allowed MB", "seconds", "x slowest stage", "by stage"):
        table.add_column(name, justify="left" if name == "by stage" else "right")
    for row in rows:
        table.add_row(
            f"{row.n_points:,}", f"{row.peak_mb:,.0f}", f"{row.allowed_mb:,.0f}",
            f"{row.seconds:.1f}", f"{row.times_slowest_stage:.2f}",
            ", ".join(f"{name} {taken:.1f}" for name, taken in row.stage_s.items()),
        )  # fmt: skip
    Console(width=140).print(table)
    write_result(
        arguments.json,
        name="job",
        machine=machine,
        results=rows,
        about=About(
            "A whole job",
            "Export, load, k-means, names, artifacts and enrichment in one worker process; peak "
            "is that process's resident memory, allowed are 1.6 times the matrix and 1 GB.",
            value="peak_mb",
            labels=("n_points",),
        ),
    )


if __name__ == "__main__":
    main()
