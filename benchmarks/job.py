"""A whole job in one worker process: its stages' seconds, and its peak of memory.

    python benchmarks/job.py

The job reads replayed pages, exports, loads, clusters by k-means, names the groups and writes its
artifacts. "enriched" then writes its fields into every document; "named" asks a language model
that takes two seconds for each reply, as they do, and fills an output collection (the replaying
server drops those writes). Everything runs on this machine, so stages that compute share its
cores. The job has a process of its own; the peak is that process's resident memory as the kernel
counted it, all libraries included. The bound is 1.6 times the matrix and 1 GB.
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
from model_server import thinking
from replay import Size, replaying
from rich.console import Console
from rich.table import Table

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
PAGES_KEPT = 8  # Of the server, so that it does not hold a large collection a second time.
MOST_POINTS_KEPT = 300_000  # Smaller ones lie ready when the job begins.


@dataclass(frozen=True)
class Kind:
    """What a job does besides clustering."""

    distance: str
    n_clusters: int
    is_named: bool

    def definition(self) -> ClusterDefinition:
        """Give the job's definition."""
        params = {"n_clusters": self.n_clusters, "n_init": 1, "max_iter": 10}
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
                "vector_config": {"clustering_method": "kmeans", "algorithm_params": params},
                "enrich_source_collection": not self.is_named,
                "llm_labeling": labeling if self.is_named else None,
            }
        )


KINDS = {
    "enriched": Kind("Cosine", 32, is_named=False),
    "enriched, Dot": Kind("Dot", 32, is_named=False),
    "named": Kind("Cosine", 64, is_named=True),
}


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


def _run(spec: RunSpec, answer: Connection) -> None:
    """Do the job and tell its seconds and its peak."""
    import openai  # noqa: F401 - a worker keeps its libraries from run to run.

    started = time.perf_counter()
    prepared = prepare(spec, lambda report: None)
    publishing = time.perf_counter()
    publish(replace(spec, result=prepared.result), lambda report: None)
    ended = time.perf_counter()
    stages = {**prepared.result.timings_s, "publish": ended - publishing}
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send((stages, ended - started, peak_kib * 1024))


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


def _in_own_process(spec: RunSpec) -> tuple[dict[str, float], float, int]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(spec, theirs))
    process.start()
    theirs.close()
    try:
        stages, seconds, peak = ours.recv()
    except EOFError:
        raise SystemExit("the job failed; see above") from None
    process.join()
    return stages, seconds, peak


def measure(name: str, n_points: int) -> Row:
    """Run one job in a process of its own."""
    kind = KINDS[name]
    lies_ready = n_points <= MOST_POINTS_KEPT
    size = Size(n_points, N_DIMS, 4096 if lies_ready else PAGES_KEPT, kind.distance)
    with (
        replaying(size) as address,
        thinking(REPLY_S) as model_url,
        tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder,
    ):
        spec = _spec(kind, address, folder, model_url)
        if lies_ready:
            _make_pages(spec)
        stages, seconds, peak = _in_own_process(spec)
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
    )


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200_000, help="of every kind of job")
    parser.add_argument("--large", type=int, default=1_000_000, help="of those in `--large-jobs`")
    parser.add_argument("--jobs", nargs="*", choices=KINDS, default=["enriched", "named"])
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
        "by stage",
    ):
        table.add_column(name, justify="left" if name == "by stage" else "right")
    for row in rows:
        table.add_row(
            row.job, f"{row.n_points:,}", f"{row.peak_mb:,.0f}", f"{row.allowed_mb:,.0f}",
            f"{row.seconds:.1f}", f"{row.times_slowest_stage:.2f}",
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
            "Export, load, k-means, names, artifacts, and enrichment of every document or (named) "
            f"an output collection; a model takes {REPLY_S:g} s for a reply. Qdrant is the "
            "replaying server, all on one machine; each job has one worker process. Peak is that "
            "process's resident memory, allowed are 1.6 times the matrix and 1 GB. Stages that "
            "overlap add up to more than the whole.",
            value="seconds",
            labels=("n_points", "job"),
        ),
    )


if __name__ == "__main__":
    main()
