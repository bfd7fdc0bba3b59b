"""HDBSCAN on real embeddings: exactness at several sizes, and what approximate search gives.

    python benchmarks/hdbscan_sizes.py --data FOLDER

First ours against scikit-learn's brute mode at 2,000, 6,000 and 12,000 rows with several
parameters: the largest difference between the sorted weights of the spanning trees, and the
adjusted Rand index. Then, with more rows, ours exact, ours approximate and fast-hdbscan in turn;
agreement is with ours exact. Peak memory is that of the exact fit, beyond what was there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
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
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from gpu.backend import choose_backend
from gpu.hdbscan import hdbscan, spanning_tree
from gpu.params import HdbscanParams

PACKAGES = ("numpy", "scikit-learn", "fast-hdbscan", "numba")
EXACT_ROWS = (2_000, 6_000, 12_000)
EXACT_PARAMS: tuple[dict[str, Any], ...] = (
    {},
    {"min_cluster_size": 15, "min_samples": 3},
    {"min_cluster_size": 30, "cluster_selection_method": "leaf"},
    {"min_cluster_size": 10, "cluster_selection_epsilon": 0.5},
)
LARGE_PARAMS: tuple[dict[str, Any], ...] = (
    {"min_cluster_size": 5},
    {"min_cluster_size": 15, "min_samples": 5},
)


@dataclass(frozen=True)
class Row:
    """One fit, or the median of several."""

    n_points: int
    params: str
    who: str
    seconds: float
    groups: int
    ari: float
    max_weight_difference: float | None = None


def ours(points: np.ndarray, params: dict[str, Any], approximate: bool) -> np.ndarray:
    """Fit ours."""
    asked = HdbscanParams(**params, approx_min_span_tree=approximate)
    return np.asarray(hdbscan(points, asked, backend=choose_backend("cpu")).labels)


def timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    """Give what a call gave, and its seconds."""
    start = time.perf_counter()
    found = fit()
    return found, time.perf_counter() - start


def exactness(points: np.ndarray) -> list[Row]:
    """Hold ours against scikit-learn's brute mode."""
    rows = []
    for params in EXACT_PARAMS:
        brute = HDBSCAN(algorithm="brute", copy=True, **params)
        _, brute_s = timed(lambda model=brute: model.fit(points))  # type: ignore[misc]
        weights = np.sort(brute._single_linkage_tree_["value"])
        labels, ours_s = timed(lambda asked=params: ours(points, asked, False))  # type: ignore[misc]
        tree, _ = spanning_tree(points, HdbscanParams(**params, approx_min_span_tree=False))
        difference = float(np.abs(np.sort(tree.weight) - weights).max())
        said = json.dumps(params)
        ari = float(adjusted_rand_score(brute.labels_, labels))
        n_groups = int(brute.labels_.max()) + 1
        rows += [
            Row(len(points), said, "scikit-learn, brute", round(brute_s, 3), n_groups, 1.0),
            Row(
                len(points), said, "shoal, exact", round(ours_s, 3), int(labels.max()) + 1,
                round(ari, 4), difference,
            ),
        ]  # fmt: skip
    return rows


def at_large(points: np.ndarray, repeats: int) -> list[Row]:
    """Let approximate searches take turns; the exact one runs once."""
    from fast_hdbscan import HDBSCAN as FastHDBSCAN

    rows = []
    for params in LARGE_PARAMS:
        exact, exact_s = timed(lambda asked=params: ours(points, asked, False))  # type: ignore[misc]
        contestants: dict[str, Callable[[], np.ndarray]] = {
            "shoal, approximate": lambda asked=params: ours(points, asked, True),  # type: ignore[misc]
            "fast-hdbscan": lambda asked=params: FastHDBSCAN(**asked).fit(points).labels_,  # type: ignore[misc]
        }
        seconds: dict[str, list[float]] = {who: [] for who in contestants}
        labels: dict[str, np.ndarray] = {}
        for counts in [False] + [True] * repeats:
            for who, fit in contestants.items():
                labels[who], taken = timed(fit)
                if counts:
                    seconds[who].append(taken)
        said = json.dumps(params)
        rows.append(
            Row(len(points), said, "shoal, exact", round(exact_s, 3), int(exact.max()) + 1, 1.0)
        )
        rows += [
            Row(
                n_points=len(points),
                params=said,
                who=who,
                seconds=round(statistics.median(seconds[who]), 3),
                groups=int(labels[who].max()) + 1,
                ari=round(float(adjusted_rand_score(exact, labels[who])), 4),
            )
            for who in contestants
        ]
    return rows


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("points", "params", "who", "s", "groups", "ARI", "max weight difference")
    for row in rows:
        difference = row.max_weight_difference
        table.add_row(
            f"{row.n_points:,}",
            row.params,
            row.who,
            f"{row.seconds:.3f}",
            str(row.groups),
            f"{row.ari:.4f}",
            "" if difference is None else f"{difference:.1e}",
        )
    Console(width=140).print(table)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the data set")
    parser.add_argument("--exact-rows", type=int, nargs="*", default=list(EXACT_ROWS))
    parser.add_argument("--large-rows", type=int, nargs="*", default=[20_000, 60_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "hdbscan-sizes.json", help="result file"
    )
    options = parser.parse_args()

    warnings.simplefilter("ignore")  # Of the peers.
    machine = machine_facts(PACKAGES)
    there = debian_rows(options.data)
    rows: list[Row] = []
    ours(debian_vectors(options.data, 600), {}, True)
    for n_rows in options.exact_rows:
        found = exactness(debian_vectors(options.data, n_rows))
        show(found)
        rows += found
    for n_rows in options.large_rows:
        if n_rows > there:
            print(f"{n_rows:,} rows are left out: the file has {there:,}")
            continue
        found = at_large(debian_vectors(options.data, n_rows), options.repeats)
        show(found)
        rows += found
    write_result(
        options.json,
        name="hdbscan-sizes",
        machine=machine,
        results=list(rows),
        about=About(
            title="HDBSCAN on real embeddings: exact and approximate",
            note="384 dimensions. Up to 12,000 rows agreement is with scikit-learn's brute mode, "
            "above with shoal's exact mode.",
            value="seconds",
            labels=("n_points", "params", "who"),
        ),
    )


if __name__ == "__main__":
    main()
