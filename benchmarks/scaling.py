"""Every method beside its peers from 1,000 rows to 1,000,000: time, agreement, peak memory.

    python benchmarks/scaling.py                       # all, some ten minutes on two cores
    python benchmarks/scaling.py --only kmeans --rows 1000 10000

Each cell is a process of its own: it loads the rows, warms up on a few of them, and fits once.
Peak memory is what the fit adds to the process. A cell that would take longer than `--limit`
seconds, by the growth from the size before, is left out and says so. Rows are real sentence
embeddings while there are enough; beyond, jittered copies of them. Agreement is the adjusted Rand
index to the first of the peers that did that size. The floor is the time that the method's
distances take at the machine's rate of matrix products, measured in the same run. The package
hdbscan is measured where it is installed (`pip install hdbscan`), EVoC after ``make warm``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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

from gpu.memory import free_bytes

PACKAGES = ("numpy", "scikit-learn", "fast-hdbscan", "hdbscan", "faiss-cpu", "evoc")
N_CLUSTERS = 64
WARM_UP_ROWS = 300
LIMIT_S = 20.0
START_S = 40.0
"""Seconds that a cell may take beside: to import, to compile, to load the rows, to warm up."""

GROWTH = {"kmeans": 0.8, "evoc": 0.8}
"""Power of the rows by which a time grows at least, from one size to the next; else 1.6."""

NEARLY_LINEAR = ("shoal, approximate", "fast-hdbscan")
"""Of HDBSCAN, those for which it is 0.8, too."""

MATRIX_BYTES = {"scikit-learn, brute": 8}
"""For each pair of rows, of those that hold all their distances at once."""

Labels = np.ndarray
Fit = Callable[[np.ndarray], Labels]


@dataclass(frozen=True)
class Row:
    """One cell; `skipped` says why it is empty."""

    method: str
    n_points: int
    who: str
    seconds: float | None
    floor_s: float | None
    peak_mib: float | None
    groups: int | None
    agreement: float | None
    skipped: str = ""


def shoal(method: str, metric: str = "euclidean", **sent: Any) -> Fit:
    """Fit ours on the CPU; the rows are unit, so cosine changes nothing but what is allowed."""

    def run(points: np.ndarray) -> Labels:
        from gpu.clustering import fit
        from gpu.params import parse_params

        params = parse_params(method, sent).params
        found = fit(points, method=method, params=params, metric=metric, device="cpu")
        return np.asarray(found.labels)

    return run


def sklearn_fit(model: str, **sent: Any) -> Fit:
    """Fit scikit-learn's."""

    def run(points: np.ndarray) -> Labels:
        from importlib import import_module

        module = "sklearn.mixture" if model == "GaussianMixture" else "sklearn.cluster"
        made = getattr(import_module(module), model)(**sent)
        return np.asarray(made.fit_predict(points))

    return run


def faiss_fit(points: np.ndarray) -> Labels:
    """Fit faiss' k-means on all points, 25 iterations."""
    import faiss

    model = faiss.Kmeans(points.shape[1], N_CLUSTERS, seed=1, max_points_per_centroid=len(points))
    model.train(points)
    return np.asarray(model.index.search(points, 1)[1][:, 0])


def fast_hdbscan_fit(points: np.ndarray) -> Labels:
    """Fit fast-hdbscan."""
    from fast_hdbscan import HDBSCAN

    return np.asarray(HDBSCAN(min_cluster_size=5).fit(points).labels_)


def hdbscan_fit(points: np.ndarray) -> Labels:
    """Fit the package hdbscan, whose min_samples leaves the point itself out."""
    from importlib import import_module

    here = str(Path(__file__).parent)  # Whose hdbscan.py is another benchmark.
    sys.path[:] = [folder for folder in sys.path if folder != here]
    model = import_module("hdbscan").HDBSCAN(min_cluster_size=5, min_samples=4)
    return np.asarray(model.fit(points).labels_)


def evoc_fit(points: np.ndarray) -> Labels:
    """Fit EVoC with our seed."""
    from evoc import EVoC

    return np.asarray(EVoC(random_state=42).fit_predict(points))


EPS = 0.7
PEERS: dict[str, dict[str, Fit]] = {
    "kmeans": {
        "shoal": shoal("kmeans", n_clusters=N_CLUSTERS),
        "scikit-learn": sklearn_fit("KMeans", n_clusters=N_CLUSTERS, random_state=42),
        "faiss, 25 iterations": faiss_fit,
    },
    "hdbscan": {
        "shoal, exact": shoal("hdbscan", approx_min_span_tree=False),
        "shoal, approximate": shoal("hdbscan", approx_min_span_tree=True),
        "scikit-learn, brute": sklearn_fit("HDBSCAN", algorithm="brute", copy=True),
        "scikit-learn": sklearn_fit("HDBSCAN", copy=True),
        "fast-hdbscan": fast_hdbscan_fit,
        "hdbscan": hdbscan_fit,
    },
    "evoc": {"shoal": shoal("evoc", "cosine"), "EVoC": evoc_fit},
    "dbscan": {"shoal": shoal("dbscan", eps=EPS), "scikit-learn": sklearn_fit("DBSCAN", eps=EPS)},
    "optics": {"shoal": shoal("optics"), "scikit-learn": sklearn_fit("OPTICS")},
    "agglomerative": {
        "shoal": shoal("agglomerative", n_clusters=8),
        "scikit-learn": sklearn_fit("AgglomerativeClustering", n_clusters=8),
    },
    "spectral": {
        "shoal": shoal("spectral", n_clusters=8, affinity="nearest_neighbors"),
        "scikit-learn": sklearn_fit(
            "SpectralClustering", n_clusters=8, affinity="nearest_neighbors", random_state=42
        ),
    },
    "gaussian_mixture": {
        "shoal": shoal("gaussian_mixture", n_components=8, covariance_type="diag"),
        "scikit-learn": sklearn_fit(
            "GaussianMixture", n_components=8, covariance_type="diag", random_state=42
        ),
    },
    "mean_shift": {"shoal": shoal("mean_shift"), "scikit-learn": sklearn_fit("MeanShift")},
}
ROWS = (1_000, 10_000, 100_000, 1_000_000)
MOST_ROWS = {"kmeans": 1_000_000, "hdbscan": 1_000_000, "evoc": 100_000}
"""Of the methods whose cost grows with the square, 10,000."""


def floor_s(method: str, n_points: int, n_dims: int, gflops: float) -> float | None:
    """Give the least time for the distances: one product with the centroids, or all pairs."""
    others = {"kmeans": N_CLUSTERS, "hdbscan": n_points, "dbscan": n_points}.get(method)
    return None if others is None else 2e-9 * n_points * n_dims * others / gflops


def rows_file(folder: Path, data: Path, n_rows: int) -> Path:
    """Store as many rows as the largest cell needs; real ones first."""
    path = folder / "rows.npy"
    real = debian_vectors(data, min(n_rows, debian_rows(data)))
    stored = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, real.shape[1]))
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, len(real)):
        part = stored[start : start + len(real)]
        part[:] = real[: len(part)]
        if start:
            part += rng.normal(0, 0.02, part.shape).astype(np.float32)
            part /= np.linalg.norm(part, axis=1)[:, None]
    return path


def cell(method: str, who: str, path: Path, n_points: int) -> None:
    """Fit once, in this process, and print what came of it; labels go beside the rows."""
    import warnings

    warnings.simplefilter("ignore")
    rows = np.load(path, mmap_mode="r")
    fit = PEERS[method][who]
    fit(np.array(rows[:WARM_UP_ROWS]))
    points = np.array(rows[:n_points])
    before = memory_kib(since_now=True)
    start = time.perf_counter()
    labels = fit(points)
    seconds = time.perf_counter() - start
    peak_kib = memory_kib() - before
    np.save(path.with_name("labels.npy"), labels)
    print(json.dumps({"seconds": seconds, "peak_mib": peak_kib / 1024}))


def memory_kib(*, since_now: bool = False) -> int:
    """Give the most memory that this process has held, from now on or since it was last asked."""
    if since_now:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def run_cell(
    method: str, who: str, path: Path, n_points: int, limit_s: float
) -> tuple[dict[str, float] | None, str]:
    """Run a cell in a process of its own; give what it printed, or why there is nothing."""
    command = [sys.executable, __file__, "--cell", method, who, str(path), str(n_points)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s + START_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"not done within {limit_s + START_S:.0f} s, imports and compilation included"
    if done.returncode < 0:
        return None, f"ended by signal {-done.returncode}"
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1][:120]
    return json.loads(done.stdout.splitlines()[-1]), ""


def measure(method: str, sizes: list[int], path: Path, gflops: float, limit_s: float) -> list[Row]:
    """Measure one method for all its peers."""
    from sklearn.metrics import adjusted_rand_score

    rows: list[Row] = []
    n_dims = int(np.load(path, mmap_mode="r").shape[1])
    last: dict[str, tuple[int, float]] = {}
    stopped: dict[str, str] = {}
    for n_points in sizes:
        reference: Labels | None = None
        floor = floor_s(method, n_points, n_dims, gflops)
        for who in PEERS[method]:
            seen = None
            why = stopped.get(who, "")
            if not why and who in last:
                size, seconds = last[who]
                power = 0.8 if who in NEARLY_LINEAR else GROWTH.get(method, 1.6)
                expected = seconds * (n_points / size) ** power
                if expected > limit_s:
                    why = f"would take {expected:,.0f} s or more"
            matrix = MATRIX_BYTES.get(who, 0) * n_points**2
            if matrix > free_bytes("cpu"):
                why = f"needs {matrix / 2**30:,.0f} GiB for the distances"
            if not why:
                seen, why = run_cell(method, who, path, n_points, limit_s)
            if seen is None:
                stopped[who] = why
                rows.append(Row(method, n_points, who, None, floor, None, None, None, why))
                continue
            last[who] = (n_points, seen["seconds"])
            labels = np.load(path.with_name("labels.npy"))
            reference = labels if reference is None else reference
            rows.append(
                Row(
                    method=method,
                    n_points=n_points,
                    who=who,
                    seconds=round(seen["seconds"], 4),
                    floor_s=None if floor is None else round(floor, 5),
                    peak_mib=round(seen["peak_mib"], 1),
                    groups=int(labels.max()) + 1,
                    agreement=round(float(adjusted_rand_score(reference, labels)), 4),
                )
            )
    return rows


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("method", "points", "who", "s", "floor s", "MiB", "groups", "ARI", "")
    for row in rows:
        table.add_row(
            row.method,
            f"{row.n_points:,}",
            row.who,
            "" if row.seconds is None else f"{row.seconds:.3f}",
            "" if row.floor_s is None else f"{row.floor_s:.4f}",
            "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
            "" if row.groups is None else str(row.groups),
            "" if row.agreement is None else f"{row.agreement:.3f}",
            row.skipped,
        )
    Console(width=140).print(table)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of a fit")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the data set")
    parser.add_argument("--json", type=Path, default=RESULTS / "scaling.json", help="result file")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        method, who, path, n_points = options.cell
        cell(method, who, Path(path), int(n_points))
        return

    machine = machine_facts(PACKAGES)
    rows: list[Row] = []
    methods = "Every method" if options.only == list(PEERS) else " and ".join(options.only)
    with tempfile.TemporaryDirectory() as folder:
        path = rows_file(Path(folder), options.data, max(options.rows))
        for method in options.only:
            most = MOST_ROWS.get(method, 10_000)
            sizes = [size for size in sorted(options.rows) if size <= most]
            found = measure(method, sizes, path, float(machine["matmul_gflops"]), options.limit)
            show(found)
            rows += found
    write_result(
        options.json,
        name="scaling",
        machine=machine,
        results=list(rows),
        about=About(
            title=f"{methods} from {min(options.rows):,} rows to {max(options.rows):,}",
            note=f"384 dimensions; one fit in a process of its own, at most {options.limit:.0f} s "
            "of it. peak_mib is what the fit adds to the process; agreement is the adjusted Rand "
            "index to the first line of the size; the floor is one product of the points with "
            "the centroids, or of all pairs (of which a symmetric one needs half), at the rate "
            "measured in the same run.",
            value="seconds",
            labels=("method", "n_points", "who"),
        ),
    )


if __name__ == "__main__":
    main()
