"""How soon k-means reaches what faiss reaches in 25 iterations on all points.

    python benchmarks/inertia.py --data FOLDER       # real rows: up to 60,000 of the file there are

faiss runs its 25 iterations on all points; the inertia of its final centroids is the target.
Ours and scikit-learn's are fitted with more and more iterations (`max_iter`), each fit from the
start, until one is at the target or below: the time that counts is that whole fit's, seeding,
labels and inertia included, which is what a caller would wait. Peers take turns, seed by seed;
scikit-learn, which takes minutes, runs for the first seed alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from kmeans import mixture
from machine import (
    DEFAULT_DATA,
    RESULTS,
    About,
    debian_rows,
    debian_vectors,
    machine_facts,
    write_result,
)
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans

from gpu.backend import choose_backend
from gpu.kmeans import kmeans
from gpu.params import KMeansParams

PACKAGES = ("numpy", "scikit-learn", "faiss-cpu", "threadpoolctl")
LADDER = (1, 2, 3, 5, 8, 12, 18, 25, 40, 80, 300)
SCIKIT_LADDER = (5, 10, 15, 20, 30, 300)
Fit = Callable[[np.ndarray, int, int, int], float]
"""Points, number of groups, seed and most iterations to inertia."""


@dataclass(frozen=True)
class Row:
    """Seconds to the target, medians over the seeds, and as a multiple of ours."""

    data: str
    n_points: int
    n_clusters: int
    who: str
    seconds: float
    iterations: float
    inertia_to_faiss: float
    times_ours: float
    whole_fit_s: float


def shoal_fit(points: np.ndarray, n_clusters: int, seed: int, max_iter: int) -> float:
    """Fit ours."""
    params = KMeansParams(n_clusters=n_clusters, random_state=seed, max_iter=max_iter)
    return float(kmeans(points, params, backend=choose_backend("cpu")).details["inertia"])


def sklearn_fit(points: np.ndarray, n_clusters: int, seed: int, max_iter: int) -> float:
    """Fit scikit-learn's."""
    model = KMeans(n_clusters, random_state=seed, max_iter=max_iter).fit(points)
    return float(model.inertia_)


def faiss_fit(points: np.ndarray, n_clusters: int, seed: int) -> tuple[float, float]:
    """Train faiss; give the seconds of the training alone, and the inertia of its centroids."""
    model = faiss.Kmeans(
        points.shape[1], n_clusters, seed=seed, max_points_per_centroid=len(points)
    )
    start = time.perf_counter()
    model.train(points)
    seconds = time.perf_counter() - start
    return seconds, float(model.index.search(points, 1)[0].sum(dtype=np.float64))


def time_to(
    fit: Fit, points: np.ndarray, n_clusters: int, seed: int, target: float, ladder: tuple[int, ...]
) -> tuple[float, int, float]:
    """Give seconds, iterations and inertia of the first fit at the target, or of the longest."""
    for max_iter in ladder:
        start = time.perf_counter()
        inertia = fit(points, n_clusters, seed, max_iter)
        seconds = time.perf_counter() - start
        if inertia <= target:
            break
    return seconds, max_iter, inertia


def measure(
    name: str, points: np.ndarray, n_clusters: int, repeats: int, with_sklearn: bool
) -> list[Row]:
    """Let everyone run to the target of each seed."""
    peers: dict[str, tuple[Fit, tuple[int, ...]]] = {"shoal": (shoal_fit, LADDER)}
    if with_sklearn:
        peers["scikit-learn"] = (sklearn_fit, SCIKIT_LADDER)
    seen: dict[str, list[tuple[float, int, float]]] = {who: [] for who in (*peers, "faiss")}
    whole: dict[str, list[float]] = {who: [] for who in seen}
    shoal_fit(points[: 40 * n_clusters], n_clusters, 0, 3)
    for seed in range(1, repeats + 1):
        seconds, target = faiss_fit(points, n_clusters, seed)
        seen["faiss"].append((seconds, 25, 1.0))
        whole["faiss"].append(seconds)
        for who, (fit, ladder) in peers.items():
            if who == "scikit-learn" and seed > 1:
                continue
            taken, iterations, inertia = time_to(fit, points, n_clusters, seed, target, ladder)
            seen[who].append((taken, iterations, inertia / target))
            start = time.perf_counter()
            fit(points, n_clusters, seed, 300)
            whole[who].append(time.perf_counter() - start)
    ours = statistics.median(seconds for seconds, _, _ in seen["shoal"])
    return [
        Row(
            data=name,
            n_points=len(points),
            n_clusters=n_clusters,
            who=who,
            seconds=round(statistics.median(row[0] for row in rows), 3),
            iterations=statistics.median(row[1] for row in rows),
            inertia_to_faiss=round(statistics.fmean(row[2] for row in rows), 4),
            times_ours=round(statistics.median(row[0] for row in rows) / ours, 2),
            whole_fit_s=round(statistics.median(whole[who]), 3),
        )
        for who, rows in seen.items()
    ]


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table(
        "data",
        "points",
        "k",
        "who",
        "s to target",
        "iterations",
        "inertia",
        "x ours",
        "whole fit s",
    )
    for row in rows:
        table.add_row(
            row.data,
            f"{row.n_points:,}",
            str(row.n_clusters),
            row.who,
            f"{row.seconds:.3f}",
            f"{row.iterations:g}",
            f"{row.inertia_to_faiss:.4f}",
            f"{row.times_ours:.2f}",
            f"{row.whole_fit_s:.3f}",
        )
    Console(width=120).print(table)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the data set")
    parser.add_argument("--rows", type=int, default=60_000, help="most real rows")
    parser.add_argument("--mixture-rows", type=int, default=200_000)
    parser.add_argument("--clusters", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3, help="seeds")
    parser.add_argument("--without-sklearn", action="store_true", help="it takes minutes")
    parser.add_argument("--json", type=Path, default=RESULTS / "inertia.json", help="result file")
    options = parser.parse_args()

    machine = machine_facts(PACKAGES)
    real = debian_vectors(options.data, min(options.rows, debian_rows(options.data)))
    rows: list[Row] = []
    for name, points in (
        ("debian packages", real),
        ("mixture", mixture(options.mixture_rows, real.shape[1], options.clusters)),
    ):
        found = measure(
            name, points, options.clusters, options.repeats, not options.without_sklearn
        )
        show(found)
        rows += found
    write_result(
        options.json,
        name="inertia",
        machine=machine,
        results=list(rows),
        about=About(
            title="k-means: time to the inertia of faiss",
            note="Seconds of the shortest whole fit that ends at or below the inertia that faiss "
            "has after 25 iterations on all points, 384 dimensions; whole_fit_s is the fit to "
            "each one's own stop.",
            value="seconds",
            labels=("data", "who"),
        ),
    )


if __name__ == "__main__":
    main()
