"""A whole job in one worker process: its stages' seconds, and its peak of memory.

    python benchmarks/job.py

The job reads replayed pages, exports, loads, clusters by k-means or HDBSCAN, names the groups and
writes its artifacts. "enriched" then writes its fields into every document; "named" asks a language
model that takes two seconds for each reply, as they do, and fills an output collection (the
replaying server drops those writes). Everything runs on this machine, so stages that compute share
its cores. The job has a process of its own, which has done a small one of the same kind before, as
workers in service have; the peak is that process's resident memory as the kernel counted it, all
libraries included. The bound is 1.6 times the matrix and 1 GB.

How much more could run side by side: the CPU seconds of the job and of the servers that it talks
to, over the cores, are the least that it could take here; "busy" is their share of what it took.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from machine import RESULTS, About, machine_facts, write_result
from model_server import thinking
from replay import Size, replaying
from rich.console import Console
from rich.table import Table

from gpu.warm import warm_ours
from server.export.parquet import ExportRequest, ExportSource, export
from server.jobs.definition import ClusterDefinition, parse_definition
from server.jobs.pipeline import prepare, publish
from server.jobs.spec import RunSpec
from server.labeling.request import LLMLabeling
from server.labeling.samples import payload_fields
from server.labeling.settings import LabelingSettings, Provider
from server.qdrant.client import QdrantAddress
from server.results.outputs import plan_output

PACKAGES = ("numpy", "pyarrow", "scikit-learn", "grpcio", "qdrant-client")
N_DIMS = 384
REPLY_S = 2.0
HZ = os.sysconf("SC_CLK_TCK")
N_GROUPS = 300
"""Of the vectors that HDBSCAN is given; k-means takes vectors without any."""
SMALL = 5_000
"""Points of the job that a worker has done before."""
PAGES_KEPT = 8  # Of the server, so that it does not hold a large collection a second time.
MOST_POINTS_KEPT = 300_000  # Smaller ones lie ready when the job begins.


@dataclass(frozen=True)
class Kind:
    """What a job does."""

    distance: str = "Cosine"
    method: str = "hdbscan"
    params: dict[str, Any] = field(default_factory=dict)
    steps: tuple[dict[str, Any], ...] = ()
    is_named: bool = False

    def definition(self) -> ClusterDefinition:
        """Give the job's definition."""
        labeling = {
            "enabled": self.is_named,
            "provider": "openai_compatible",
            "model_name": "loopback",
            "labeling_inputs": {
                "input_mappings": [{"input_key": "section", "path": "section"}],
            },
            "cache_ttl_seconds": 0,
        }
        return parse_definition(
            {
                "collection_ids": ["plain"],
                "vector_config": {
                    "clustering_method": self.method,
                    "algorithm_params": self.params,
                    "preprocessing_steps": list(self.steps),
                },
                "enrich_source_collection": not self.is_named,
                "llm_labeling": labeling if self.is_named else None,
            }
        )


def _kmeans(n_clusters: int) -> dict[str, Any]:
    return {"n_clusters": n_clusters, "n_init": 1, "max_iter": 10}


UMAP = {"method": "umap", "n_components": 10}
KINDS = {
    "enriched": Kind(method="kmeans", params=_kmeans(32)),
    "enriched, Dot": Kind("Dot", "kmeans", _kmeans(32)),
    "named": Kind(method="kmeans", params=_kmeans(64), is_named=True),
    "hdbscan, enriched": Kind(),
    "umap and hdbscan, enriched": Kind(steps=(UMAP,)),
}
DEFAULT_KINDS = ("enriched", "named", "hdbscan, enriched")


@dataclass(frozen=True)
class Row:
    """One job: what it took, and what it was allowed."""

    job: str
    n_points: int
    n_dims: int
    matrix_mb: float
    peak_mb: float
    allowed_mb: float
    seconds: float
    stage_s: dict[str, float]
    times_slowest_stage: float
    cpu_s: float
    floor_s: float
    busy: float


def _run(small: RunSpec, spec: RunSpec, answer: Connection) -> None:
    """Do the small job and the job, and tell the seconds of this one and the peak."""
    warm_ours()
    _do(small)
    answer.send("ready")
    answer.recv()
    started = time.perf_counter()
    stages = _do(spec)
    seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send((stages, seconds, peak_kib * 1024))
    answer.recv()  # While the other side counts, this process is there.


def _do(spec: RunSpec) -> dict[str, float]:
    prepared = prepare(spec, lambda report: None)
    publishing = time.perf_counter()
    publish(replace(spec, result=prepared.result), lambda report: None)
    return {**prepared.result.timings_s, "publish": time.perf_counter() - publishing}


def _spec(kind: Kind, address: QdrantAddress, folder: str, model_url: str) -> RunSpec:
    output = plan_output("bench", "clust_1", "run_1", "ns_1", "{collection_id}")
    return RunSpec(
        namespace_id="ns_1",
        cluster_id="clust_1",
        run_id="run_1",
        definition=kind.definition(),
        qdrant=address,
        qdrant_names=("plain",),
        artifacts_url=folder,
        outputs=(output,) if kind.is_named else (),
        labeling=LabelingSettings((Provider("openai_compatible", model_url),)),
        label_cache=f"{folder}/labels",
        device="cpu",
    )


def _make_pages(spec: RunSpec) -> None:
    """Let the server make the pages that the job will ask for."""
    fields = payload_fields(spec.definition.llm_labeling or LLMLabeling())
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        source = ExportSource("plain", "plain", ("",))
        export(ExportRequest(spec.qdrant, (source,), None, fields, folder))


def _in_own_process(small: RunSpec, spec: RunSpec) -> tuple[dict[str, float], float, int, float]:
    """Give the stages' seconds, the seconds of the whole, the peak, and all CPU seconds."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(small, spec, theirs))
    process.start()
    theirs.close()
    try:
        ours.recv()
        before = _cpu_s()
        ours.send("go")
        stages, seconds, peak = ours.recv()
        cpu_s = _cpu_s() - before
        ours.send("done")
    except EOFError:
        raise SystemExit("the job failed; see above") from None
    process.join()
    return stages, seconds, peak, cpu_s


def _cpu_s() -> float:
    """Count the CPU seconds of the worker and of the servers so far."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(user) + int(system) for *_, user, system in (stat[:13] for stat in stats)) / HZ


def measure(name: str, n_points: int) -> Row:
    """Run one job in a process of its own."""
    kind = KINDS[name]
    lies_ready = n_points <= MOST_POINTS_KEPT
    n_groups = N_GROUPS if kind.method == "hdbscan" else 0
    size = Size(n_points, N_DIMS, 4096 if lies_ready else PAGES_KEPT, kind.distance, n_groups)
    with (
        replaying(replace(size, n_points=SMALL)) as small,
        replaying(size) as address,
        thinking(REPLY_S) as model_url,
        tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder,
    ):
        spec = _spec(kind, address, folder, model_url)
        if lies_ready:
            _make_pages(spec)
        first = _spec(kind, small, f"{folder}/small", model_url)
        stages, seconds, peak, cpu_s = _in_own_process(first, spec)
    floor_s = cpu_s / (os.cpu_count() or 1)
    matrix = 4 * n_points * N_DIMS
    return Row(
        name,
        n_points,
        N_DIMS,
        matrix / 1e6,
        peak / 1e6,
        (1.6 * matrix + 1e9) / 1e6,
        seconds,
        stages,
        seconds / max(stages.values()),
        cpu_s,
        floor_s,
        floor_s / seconds,
    )


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200_000, help="of every kind of job")
    parser.add_argument("--large", type=int, default=1_000_000, help="of those in `--large-jobs`")
    parser.add_argument("--jobs", nargs="*", choices=KINDS, default=list(DEFAULT_KINDS))
    parser.add_argument("--large-jobs", nargs="*", choices=KINDS, default=["enriched, Dot"])
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "job.json", help="where the figures go"
    )
    arguments = parser.parse_args()

    machine = machine_facts(PACKAGES)
    rows = [measure(name, arguments.points) for name in arguments.jobs]
    rows += [measure(name, arguments.large) for name in arguments.large_jobs]
    table = Table(
        title=f"Whole jobs at {N_DIMS} dimensions",
        caption=f"{machine['processor']}, {machine['cores']} cores",
    )
    for name in (
        "job",
        "points",
        "peak MB",
        "allowed MB",
        "seconds",
        "x slowest stage",
        "CPU s / cores",
        "busy",
        "by stage",
    ):
        table.add_column(name, justify="left" if name == "by stage" else "right")
    for row in rows:
        table.add_row(
            row.job, f"{row.n_points:,}", f"{row.peak_mb:,.0f}", f"{row.allowed_mb:,.0f}",
            f"{row.seconds:.1f}", f"{row.times_slowest_stage:.2f}", f"{row.floor_s:.1f}",
            f"{row.busy:.0%}",
            ", ".join(f"{name} {taken:.1f}" for name, taken in row.stage_s.items()),
        )  # fmt: skip
    Console(width=150).print(table)
    write_result(
        arguments.json,
        name="job",
        machine=machine,
        results=rows,
        about=About(
            "A whole job",
            "Export, load, k-means or HDBSCAN, names, artifacts, and enrichment of every document "
            f"or (named) an output collection; a model takes {REPLY_S:g} s for a reply. Qdrant is "
            "the replaying server, all on one machine; each job has one worker process, which has "
            "done a small one before. Peak is that process's resident memory, allowed are 1.6 "
            "times the matrix and 1 GB. Stages that overlap add up to more than the whole. "
            "floor_s: the CPU seconds of the worker and of the servers over the cores, the least "
            "that the job could take here; busy: its share of the seconds.",
            value="seconds",
            labels=("n_points", "job"),
        ),
    )


if __name__ == "__main__":
    main()
