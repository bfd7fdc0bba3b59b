"""What follows a fit, as a share of it: centroids, distances, medoids, figures of the groups.

    python benchmarks/describing.py

A mixture is clustered by k-means to its own stop; then each step that a run takes on the groups
is timed, alone. A run has one kind of centroid, so there is a sum for each kind.
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
from gpu.summary import CENTROIDS, confidence, summarize
from gpu.vectors import unit_rows


@dataclass(frozen=True)
class Row:
    """Seconds of one step, and as a share of the clustering."""

    metric: str
    step: str
    seconds: float
    share: float


def measure(n_points: int, n_dims: int, n_clusters: int, metric: str, repeats: int) -> list[Row]:
    """Time the clustering, every step after it, and what a run pays by its kind of centroid."""
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
        "confidence": partial(confidence, described.distances, labels, None),
        "quality metrics": partial(quality, points, labels, metric=metric),
        "elbow": partial(elbow, points, n_clusters, metric=metric),
    }
    for centroid in CENTROIDS:
        steps[f"centroids ({centroid}), distances, radii"] = partial(
            summarize, points, labels, metric=metric, centroid=centroid
        )
    seconds: dict[str, float] = {}
    for step, run in steps.items():
        run()
        seconds[step] = timed(run, repeats=repeats)[1].median_s
    others = sum(taken for step, taken in seconds.items() if not step.startswith("centroids"))
    for centroid in CENTROIDS:
        own = seconds[f"centroids ({centroid}), distances, radii"]
        seconds[f"together, with centroids as {centroid}s"] = own + others
    whole = clustering.median_s
    return [
        Row(metric, step, round(taken, 3), taken / whole)
        for step, taken in {"k-means": whole, **seconds}.items()
    ]


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
