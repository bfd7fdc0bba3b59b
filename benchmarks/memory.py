"""What a fit takes of the machine's memory, beside what was estimated before it starts.

    python benchmarks/memory.py                                  # every method, some minutes
    python benchmarks/memory.py --one '["optics", 3000, 256, {}, "euclidean"]'

Each fit is a process of its own: it fits a few rows first, so that libraries are loaded and loops
compiled, then resets the kernel's peak of its resident memory and fits all rows. Linux only.
tests/gpu/test_memory.py holds the quick ones to a fifth.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, About, machine_facts, write_result
from rich.console import Console
from rich.table import Table

from gpu.clustering import fit
from gpu.memory import estimate
from gpu.params import parse_params

WARM_UP_ROWS = 700

APART, OVERLAPPING = "apart", "overlapping"

Asked = tuple[str, int, int, dict[str, Any], str, str]
"""Method, rows, dimensions, parameters, metric, and how the groups of the rows lie."""

ASKED: tuple[Asked, ...] = (
    ("kmeans", 100_000, 128, {"n_clusters": 32, "max_iter": 2}, "euclidean", APART),
    ("kmeans", 60_000, 384, {"n_clusters": 256, "max_iter": 2}, "cosine", APART),
    ("hdbscan", 6_000, 32, {}, "euclidean", APART),
    ("hdbscan", 8_000, 32, {}, "manhattan", APART),
    ("hdbscan", 40_000, 128, {"approx_min_span_tree": False}, "cosine", APART),
    ("hdbscan", 30_000, 64, {"min_samples": 30}, "euclidean", APART),
    ("hdbscan", 40_000, 128, {"approx_min_span_tree": True}, "cosine", APART),
    ("hdbscan", 100_000, 256, {}, "euclidean", APART),
    ("hdbscan", 60_000, 64, {"approx_min_span_tree": True, "min_samples": 30}, "cosine", APART),
    ("dbscan", 20_000, 64, {"eps": 1.0}, "euclidean", APART),
    ("dbscan", 10_000, 384, {"eps": 0.5}, "cosine", APART),
    ("agglomerative", 5_000, 16, {}, "euclidean", APART),
    ("agglomerative", 3_000, 256, {"linkage": "average"}, "cosine", APART),
    ("agglomerative", 5_000, 16, {"linkage": "single"}, "euclidean", APART),
    ("spectral", 2_500, 16, {"n_clusters": 8}, "euclidean", APART),
    ("spectral", 1_500, 128, {"n_clusters": 4}, "cosine", APART),
    ("spectral", 4_000, 64, {"affinity": "nearest_neighbors"}, "euclidean", OVERLAPPING),
    ("gaussian_mixture", 60_000, 64, {"n_components": 4, "max_iter": 2}, "euclidean", APART),
    (
        *("gaussian_mixture", 20_000, 128),
        *({"n_components": 16, "covariance_type": "diag", "max_iter": 2}, "euclidean", APART),
    ),
    ("mean_shift", 3_000, 256, {"max_iter": 2}, "euclidean", APART),
    ("optics", 8_000, 256, {}, "euclidean", APART),
    ("evoc", 20_000, 64, {}, "cosine", APART),
    ("evoc", 60_000, 128, {}, "cosine", APART),
    ("evoc", 60_000, 384, {}, "cosine", APART),
    ("evoc", 20_000, 64, {"n_neighbors": 30}, "cosine", APART),
    ("auto", 20_000, 64, {}, "cosine", OVERLAPPING),
    ("auto", 60_000, 64, {}, "cosine", OVERLAPPING),
    ("auto", 60_000, 64, {}, "cosine", APART),
)


@dataclass(frozen=True)
class Row:
    """One fit; bytes beyond what the process had before, the rows included."""

    method: str
    n_points: int
    n_dims: int
    params: str
    metric: str
    groups: str
    used_mib: float
    estimated_mib: float
    estimated_to_used: float


def rows(n_points: int, n_dims: int, groups: str) -> np.ndarray:
    """Make eight groups with gaps between them, or twelve without."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n_points, n_dims), dtype=np.float32)
    if groups == OVERLAPPING:
        centres = 0.45 * rng.standard_normal((12, n_dims)).astype(np.float32)
        points += centres[rng.integers(0, 12, n_points)]
        return points
    points *= np.float32(0.5)
    points[np.arange(n_points), np.arange(n_points) % 8] += 3
    return points


def used_and_estimated(
    method: str,
    n_points: int,
    n_dims: int,
    sent: dict[str, Any],
    metric: str,
    groups: str = APART,
) -> tuple[int, int]:
    """Fit in this process, which should be a fresh one; give bytes."""
    params = parse_params(method, sent).params

    def run(points: np.ndarray) -> None:
        fit(points, method=method, params=params, metric=metric, device="cpu")

    run(rows(WARM_UP_ROWS, n_dims, groups))
    points = rows(n_points, n_dims, groups)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    run(points)
    used = _status_bytes("VmHWM") - before
    return used, estimate(method, n_points, n_dims, params, metric=metric)


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def in_fresh_process(asked: Asked) -> Row:
    """Measure one fit."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--one", json.dumps(asked)],
        capture_output=True,
        text=True,
        check=True,
    )
    used, estimated = json.loads(done.stdout.splitlines()[-1])
    method, n_points, n_dims, sent, metric, groups = asked
    return Row(
        method,
        n_points,
        n_dims,
        json.dumps(sent),
        metric,
        groups,
        round(used / 2**20, 1),
        round(estimated / 2**20, 1),
        round(estimated / used, 2),
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=json.loads, help="an entry of ASKED")
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json", help="result file")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(used_and_estimated(*options.one)))
        return

    machine = machine_facts(("numpy", "scikit-learn", "evoc"))
    table = Table("method", "points", "dims", "params", "used MiB", "estimated", "ratio")
    found = []
    for asked in ASKED:
        row = in_fresh_process(asked)
        found.append(row)
        print(row, flush=True)
        table.add_row(
            row.method,
            f"{row.n_points:,}",
            str(row.n_dims),
            row.params,
            f"{row.used_mib:.1f}",
            f"{row.estimated_mib:.1f}",
            f"{row.estimated_to_used:.2f}",
        )
    Console(width=100).print(table)
    write_result(
        options.json,
        name="memory",
        machine=machine,
        results=list(found),
        about=About(
            title="Memory of a fit, and its estimate",
            note="Peak resident memory of a fresh process while it fits, beyond what it had "
            "before, in MiB; the estimate is what a fit is refused by where less is free. Which "
            "way auto goes only the data decide: its estimate is of the one that takes most, by "
            "communities, which overlapping groups take. Spectral clustering by neighbours takes "
            "less than estimated where groups are far apart.",
            value="estimated_to_used",
            labels=("method", "params"),
        ),
    )


if __name__ == "__main__":
    main()
