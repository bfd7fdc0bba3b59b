"""HDBSCAN on real sentence embeddings: scikit-learn, fast-hdbscan and shoal in one run.

    python benchmarks/hdbscan.py --rows 6000 --repeats 5

Times are medians of whole fits in a warm process: what a library imports or compiles on its first
fit is left out for all. Exactness is the largest difference between the sorted weights of the
spanning tree and scikit-learn's; agreement is the adjusted Rand index of the groups. fast-hdbscan
searches neighbours approximately beyond a few dimensions, so it is there for its speed only.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import DEFAULT_DATA, debian_vectors, machine_facts, timed, write_result
from rich.console import Console
from rich.table import Table
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from gpu.backend import choose_backend
from gpu.hdbscan import hdbscan, spanning_tree
from gpu.params import HdbscanParams

PACKAGES = ("numpy", "scikit-learn", "fast-hdbscan", "numba", "threadpoolctl")
WARM_UP_ROWS = 300


class Outcome(NamedTuple):
    """What one fit gave."""

    labels: np.ndarray
    sorted_weights: np.ndarray | None


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of a fit, and the median as a multiple of ours."""

    n_points: int
    n_dims: int
    who: str
    is_exact: bool
    median_s: float
    best_s: float
    repeats: int
    times_ours: float
    groups: int
    ari_to_sklearn: float
    max_weight_difference: float | None


def sklearn_fit(algorithm: str) -> Callable[[np.ndarray], Outcome]:
    """Make a fit of scikit-learn with one of its algorithms."""

    def fit(vectors: np.ndarray) -> Outcome:
        model = HDBSCAN(algorithm=algorithm, copy=True).fit(vectors)
        return Outcome(model.labels_, np.sort(model._single_linkage_tree_["value"]))

    return fit


def fast_hdbscan_fit(vectors: np.ndarray) -> Outcome:
    """Fit fast-hdbscan with scikit-learn's defaults, its minimum cluster size being 10."""
    from fast_hdbscan import HDBSCAN as FastHDBSCAN

    return Outcome(FastHDBSCAN(min_cluster_size=5).fit(vectors).labels_, None)


def our_fit(budget_bytes: int | None) -> Callable[[np.ndarray], Outcome]:
    """Make a fit of ours, with a budget for the matrix of distances."""

    def fit(vectors: np.ndarray) -> Outcome:
        found = hdbscan(
            vectors,
            HdbscanParams(),
            backend=choose_backend("cpu"),
            matrix_budget_bytes=budget_bytes,
        )
        return Outcome(found.labels, None)

    return fit


def our_weights(vectors: np.ndarray, budget_bytes: int | None) -> np.ndarray:
    """Give the sorted weights of our spanning tree."""
    tree, _ = spanning_tree(vectors, HdbscanParams(), matrix_budget_bytes=budget_bytes)
    return np.sort(tree.weight)


def measure(vectors: np.ndarray, *, repeats: int, default_repeats: int) -> list[Row]:
    """Time every peer and ours on the same vectors."""
    peers: list[tuple[str, bool, int, Callable[[np.ndarray], Outcome]]] = [
        ("scikit-learn default", True, default_repeats, sklearn_fit("auto")),
        ("scikit-learn brute", True, repeats, sklearn_fit("brute")),
        ("fast-hdbscan (approximate)", False, repeats, fast_hdbscan_fit),
        ("shoal, blocks", True, repeats, our_fit(0)),
        ("shoal", True, repeats, our_fit(None)),
    ]
    if not default_repeats:
        del peers[0]
    measured = []
    for who, is_exact, times, fit in peers:
        fit(vectors[:WARM_UP_ROWS])
        if who != "scikit-learn default":
            fit(vectors)  # fast-hdbscan compiles more for larger input; all get the same.
        outcome, timing = timed(partial(fit, vectors), repeats=times)
        measured.append((who, is_exact, outcome, timing))

    reference = measured[0][2]
    ours_s = measured[-1][3].median_s
    rows = []
    for who, is_exact, outcome, timing in measured:
        weights = outcome.sorted_weights
        if who.startswith("shoal"):
            weights = our_weights(vectors, 0 if "blocks" in who else None)
        difference = (
            None if weights is None else float(np.abs(weights - reference.sorted_weights).max())
        )
        rows.append(
            Row(
                n_points=len(vectors),
                n_dims=vectors.shape[1],
                who=who,
                is_exact=is_exact,
                median_s=timing.median_s,
                best_s=timing.best_s,
                repeats=timing.repeats,
                times_ours=timing.median_s / ours_s,
                groups=int(outcome.labels.max()) + 1,
                ari_to_sklearn=float(adjusted_rand_score(reference.labels, outcome.labels)),
                max_weight_difference=difference,
            )
        )
    return rows


def show(console: Console, rows: list[Row], machine: dict[str, Any]) -> None:
    """Print one table."""
    first = rows[0]
    table = Table(
        title=f"HDBSCAN, {first.n_points:,} x {first.n_dims} Debian package embeddings",
        caption=f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['matmul_gflops']} GFLOP/s float32, load {machine['load_average_1m']}",
    )
    for name in ("", "median s", "best s", "x ours", "groups", "ARI", "max weight difference"):
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        difference = row.max_weight_difference
        table.add_row(
            row.who,
            f"{row.median_s:.3f}",
            f"{row.best_s:.3f}",
            f"{row.times_ours:.1f}",
            str(row.groups),
            f"{row.ari_to_sklearn:.4f}",
            "-" if difference is None else f"{difference:.1e}",
        )
    console.print(table)


def main() -> None:
    """Read the arguments, measure, print, and write the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[6000], help="rows of the file")
    parser.add_argument("--repeats", type=int, default=5, help="fits of each, the median counts")
    parser.add_argument(
        "--default-repeats",
        type=int,
        default=1,
        help="fits of scikit-learn's default, which takes 20 s for 6,000 rows; 0 leaves it out",
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the file")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # Of the peers: deprecations that do not concern the figures.
    console = Console(width=110)
    machine = machine_facts(PACKAGES)
    results: list[Row] = []
    for n_rows in arguments.rows:
        rows = measure(
            debian_vectors(arguments.data, n_rows),
            repeats=arguments.repeats,
            default_repeats=arguments.default_repeats,
        )
        show(console, rows, machine)
        results += rows
        if arguments.json:  # After each size: the larger ones take minutes.
            write_result(arguments.json, name="hdbscan", machine=machine, results=results)
            console.print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
