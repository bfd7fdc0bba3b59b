"""What follows a fit, as a share of it: centroids, distances, medoids, figures of the groups.

    python benchmarks/describing.py

A mixture is clustered by k-means to its own stop; then each step that a run takes on the groups
is timed, alone. The sum is what a run with centroids as means pays; medians and medoids stand
beside, since a run has one kind of centroid.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kmeans import mixture
from machine import RESULTS, About, machine_facts, timed, write_result
from rich.console import Console
from rich.table import Table

from gpu.backend import choose_backend
from gpu.elbow import elbow
from gpu.kmeans import kmeans
from gpu.metrics import quality
from gpu.params import KMeansParams
from gpu.summary import confidence, summarize
from gpu.vectors import unit_rows


@dataclass(frozen=True)
class Row:
    """Seconds of one step, and as a share of the clustering."""

    metric: str
    step: str
    seconds: float
    share: float


def measure(n_points: int, n_dims: int, n_clusters: int, metric: str, repeats: int) -> list[Row]:
    """Time the clustering, every step after it, and the sum of those that every run takes."""
    points = mixture(n_points, n_dims, n_clusters)
    if metric == "cosine":
        points = unit_rows(points)
    params = KMeansParams(n_clusters=n_clusters)
    cpu = choose_backend("cpu")
    kmeans(points[: 40 * n_clusters], params, backend=cpu)
    found, clustering = timed(lambda: kmeans(points, params, backend=cpu), repeats=repeats)
    labels = found.labels
    described = summarize(points, labels, metric=metric)
    steps: dict[str, Callable[[], Any]] = {
        "centroids (mean), distances, radii": partial(summarize, points, labels, metric=metric),
        "confidence": partial(confidence, described.distances, labels, None),
        "quality metrics": partial(quality, points, labels, metric=metric),
        "elbow": partial(elbow, points, n_clusters, metric=metric),
    }
    rows = [Row(metric, "k-means", round(clustering.median_s, 3), 1.0)]
    total = 0.0
    for step, run in steps.items():
        run()
        _, taken = timed(run, repeats=repeats)
        total += taken.median_s
        rows.append(
            Row(metric, step, round(taken.median_s, 3), taken.median_s / clustering.median_s)
        )
    rows.append(Row(metric, "these together", round(total, 3), total / clustering.median_s))
    for centroid in ("median", "medoid"):
        run = partial(summarize, points, labels, metric=metric, centroid=centroid)
        run()
        _, taken = timed(run, repeats=repeats)
        share = taken.median_s / clustering.median_s
        rows.append(Row(metric, f"centroids ({centroid})", round(taken.median_s, 3), share))
    return rows


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "describing.json", help="result file"
    )
    options = parser.parse_args()

    machine = machine_facts(("numpy", "numba"))
    rows: list[Row] = []
    table = Table("metric", "step", "s", "share")
    for metric in ("euclidean", "cosine"):
        rows += measure(options.points, options.dims, options.clusters, metric, options.repeats)
    for row in rows:
        table.add_row(row.metric, row.step, f"{row.seconds:.3f}", f"{row.share:.0%}")
    Console(width=100).print(table)
    write_result(
        options.json,
        name="describing",
        machine=machine,
        results=list(rows),
        about=About(
            title="What follows a fit",
            note=f"{options.points:,} x {options.dims}, k-means with {options.clusters} groups.",
            value="seconds",
            labels=("metric", "step"),
        ),
    )


if __name__ == "__main__":
    main()
