"""k-means on real sentence embeddings and on a mixture: scikit-learn, faiss and shoal in one run.

    python benchmarks/kmeans.py --repeats 5

Times are medians of whole fits over several seeds, the same seeds for all, in a warm process.
Inertia is computed for everyone in the same way, from the labels and their means in float64, and
given relative to scikit-learn's mean: 1.01 is one percent worse. faiss runs its default 25
iterations on all points and stops by no tolerance, so its iterations are not comparable.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from machine import DEFAULT_DATA, RESULTS, debian_vectors, machine_facts, timed, write_result
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans

from gpu.backend import choose_backend
from gpu.kmeans import kmeans
from gpu.params import KMeansParams

PACKAGES = ("numpy", "scikit-learn", "faiss-cpu", "threadpoolctl")
Fit = Callable[[np.ndarray, int, int], np.ndarray]
"""Points, number of groups and seed to labels."""


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of a fit, and the median as a multiple of ours."""

    data: str
    n_points: int
    n_dims: int
    n_clusters: int
    who: str
    median_s: float
    best_s: float
    repeats: int
    times_ours: float
    inertia_to_sklearn: float


def shoal_fit(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Fit with the parameters' defaults, those of scikit-learn."""
    params = KMeansParams(n_clusters=n_clusters, random_state=seed)
    labels: np.ndarray = kmeans(points, params, backend=choose_backend("cpu")).labels
    return labels


def sklearn_fit(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Fit with scikit-learn's defaults."""
    labels: np.ndarray = KMeans(n_clusters, random_state=seed).fit(points).labels_
    return labels


def faiss_fit(points: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Fit with faiss on all points, which by default would take a sample."""
    model = faiss.Kmeans(
        points.shape[1], n_clusters, seed=seed, max_points_per_centroid=len(points)
    )
    model.train(points)
    labels: np.ndarray = model.index.search(points, 1)[1][:, 0]
    return labels


FITS: dict[str, Fit] = {"shoal": shoal_fit, "scikit-learn": sklearn_fit, "faiss": faiss_fit}


def mixture(n_points: int, n_dims: int, n_groups: int) -> np.ndarray:
    """Draw points around overlapping centres of unequal weight."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n_groups, n_dims))
    weights = rng.dirichlet(np.full(n_groups, 2.0))
    which = rng.choice(n_groups, size=n_points, p=weights)
    return (centres[which] + rng.normal(size=(n_points, n_dims))).astype(np.float32)


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    """Sum the squared distances to the means of the labels."""
    total = 0.0
    for group in np.unique(labels):
        own = points[labels == group].astype(np.float64)
        total += float(np.square(own - own.mean(axis=0)).sum())
    return total


def measure(name: str, points: np.ndarray, n_clusters: int, repeats: int) -> list[Row]:
    """Fit with everyone over the same seeds, taking turns so that a busy spell hits all."""
    seconds: dict[str, list[float]] = {who: [] for who in FITS}
    inertias: dict[str, list[float]] = {who: [] for who in FITS}
    for fit in FITS.values():
        fit(points[: 40 * n_clusters], n_clusters, 0)
    for seed in range(repeats):
        for who, fit in FITS.items():
            labels, timing = timed(partial(fit, points, n_clusters, seed), repeats=1)
            seconds[who].append(timing.median_s)
            inertias[who].append(inertia(points, labels))
    ours = statistics.median(seconds["shoal"])
    reference = statistics.fmean(inertias["scikit-learn"])
    return [
        Row(
            data=name,
            n_points=points.shape[0],
            n_dims=points.shape[1],
            n_clusters=n_clusters,
            who=who,
            median_s=round(statistics.median(seconds[who]), 4),
            best_s=round(min(seconds[who]), 4),
            repeats=repeats,
            times_ours=round(statistics.median(seconds[who]) / ours, 2),
            inertia_to_sklearn=round(statistics.fmean(inertias[who]) / reference, 4),
        )
        for who in FITS
    ]


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("data", "points", "dims", "k", "who", "median s", "best s", "x ours", "inertia")
    for row in rows:
        table.add_row(
            row.data,
            f"{row.n_points:,}",
            str(row.n_dims),
            str(row.n_clusters),
            row.who,
            f"{row.median_s:.3f}",
            f"{row.best_s:.3f}",
            f"{row.times_ours:.2f}",
            f"{row.inertia_to_sklearn:.4f}",
        )
    Console(width=110).print(table)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the data set")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--clusters", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5, help="seeds")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "kmeans-cpu.json", help="result file"
    )
    options = parser.parse_args()

    machine = machine_facts(PACKAGES)
    rows = measure(
        "debian packages",
        debian_vectors(options.data, options.rows),
        options.clusters,
        options.repeats,
    )
    rows += measure("mixture", mixture(50_000, 128, 100), 64, options.repeats)
    show(rows)
    write_result(options.json, name="kmeans-cpu", machine=machine, results=rows)


if __name__ == "__main__":
    main()
