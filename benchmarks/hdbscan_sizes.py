"""HDBSCAN on real embeddings: exactness at several sizes, and what approximate search gives.

    python benchmarks/hdbscan_sizes.py --data FOLDER

First ours against scikit-learn's brute mode at 2,000, 6,000 and 12,000 rows with several
parameters: the largest difference between the sorted weights of the spanning trees, and the
adjusted Rand index. Then, with more rows, ours exact, ours approximate and fast-hdbscan in turn;
agreement is with ours exact, which runs once. What it takes grows with the square of the rows:
the rows that it would do in `AFFORDABLE_S` are told, above which a default of approximate search
is due.

The folder is any with a file ``debian_packages.parquet`` whose column ``text_embedding`` holds
lists of floats of one length, in random order: a size takes the first rows. The published figures
are of two sets, each embedded by MiniLM-L6-v2 (mean of the last layer, unit rows, kept as
float16): "name: description" of all packages of Debian 12, and "lemma: definition" of all synsets
of WordNet 3.1, on which nothing was tuned.
"""

from __future__ import annotations

import argparse
import json
import math
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
from gpu.condensed_tree import condense, select_groups
from gpu.hdbscan import hdbscan, spanning_tree
from gpu.params import APPROXIMATE_FROM, HdbscanParams
from gpu.spanning_tree import SpanningTree

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
    {"min_cluster_size": 10, "min_samples": 10, "cluster_selection_method": "leaf"},
)
AFFORDABLE_S = 30.0
"""Seconds on two cores that an exact answer is worth."""


@dataclass(frozen=True)
class Row:
    """One fit, or the median of several."""

    data: str
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


def exactness(data: str, points: np.ndarray) -> list[Row]:
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
            Row(data, len(points), said, "scikit-learn, brute", round(brute_s, 3), n_groups, 1.0),
            Row(
                data, len(points), said, "shoal, exact", round(ours_s, 3), int(labels.max()) + 1,
                round(ari, 4), difference,
            ),
        ]  # fmt: skip
    return rows


class Exact:
    """Exact fits of the same points; parameters that share a spanning tree build it once."""

    def __init__(self, points: np.ndarray) -> None:
        self._points = points
        self._trees: dict[int, tuple[SpanningTree, float]] = {}

    def fit(self, asked: dict[str, Any]) -> tuple[np.ndarray, float]:
        """Give labels, and the seconds that tree and groups took."""
        params = HdbscanParams(**asked, approx_min_span_tree=False).resolved(len(self._points))
        assert params.min_samples is not None  # Resolved.
        if params.min_samples not in self._trees:
            found, taken = timed(lambda: spanning_tree(self._points, params))
            self._trees[params.min_samples] = found[0], taken
        tree, tree_s = self._trees[params.min_samples]
        labels, groups_s = timed(
            lambda: select_groups(condense(tree, int(params.min_cluster_size)), params)[0]
        )
        return np.asarray(labels), tree_s + groups_s


def at_large(data: str, points: np.ndarray, repeats: int) -> list[Row]:
    """Let approximate searches take turns; the exact one runs once."""
    from fast_hdbscan import HDBSCAN as FastHDBSCAN

    rows = []
    reference = Exact(points)
    for params in LARGE_PARAMS:
        exact, exact_s = reference.fit(params)
        contestants: dict[str, Callable[[], np.ndarray]] = {
            "shoal, approximate": lambda asked=params: ours(points, asked, True),  # type: ignore[misc]
            "fast-hdbscan": lambda asked=params: FastHDBSCAN(**asked).fit(points).labels_,  # type: ignore[misc]
        }
        seconds: dict[str, list[float]] = {who: [] for who in contestants}
        agreed: dict[str, list[float]] = {who: [] for who in contestants}
        groups: dict[str, list[int]] = {who: [] for who in contestants}
        for counts in [False] + [True] * repeats:
            for who, fit in contestants.items():
                labels, taken = timed(fit)
                if counts:
                    seconds[who].append(taken)
                    agreed[who].append(adjusted_rand_score(exact, labels))
                    groups[who].append(int(labels.max()) + 1)
        said = json.dumps(params)
        n_groups = len(np.unique(exact[exact >= 0]))
        rows.append(Row(data, len(points), said, "shoal, exact", round(exact_s, 3), n_groups, 1.0))
        rows += [
            Row(
                data=data,
                n_points=len(points),
                params=said,
                who=who,
                seconds=round(statistics.median(seconds[who]), 3),
                groups=int(statistics.median(groups[who])),
                ari=round(statistics.median(agreed[who]), 4),
            )
            for who in contestants
        ]
    return rows


def affordable_rows(rows: list[Row]) -> int:
    """Tell how many rows an exact fit would do in `AFFORDABLE_S`, by the largest that was run."""
    exact = [row for row in rows if row.who == "shoal, exact"]
    largest = max(row.n_points for row in exact)
    seconds = statistics.median(row.seconds for row in exact if row.n_points == largest)
    return int(largest * math.sqrt(AFFORDABLE_S / seconds))


def show(rows: list[Row]) -> None:
    """Print the figures as a table."""
    table = Table("data", "points", "params", "who", "s", "groups", "ARI", "max weight difference")
    for row in rows:
        difference = row.max_weight_difference
        table.add_row(
            row.data,
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
    parser.add_argument(
        "--large-rows", type=int, nargs="*", default=[10_000, 20_000, 40_000, 60_000]
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "hdbscan-sizes.json", help="result file"
    )
    options = parser.parse_args()

    warnings.simplefilter("ignore")  # Of the peers.
    machine = machine_facts(PACKAGES)
    there = debian_rows(options.data)
    data = "sample" if options.data == DEFAULT_DATA else options.data.resolve().name
    rows: list[Row] = []
    ours(debian_vectors(options.data, 600), {}, True)
    for n_rows in options.exact_rows:
        found = exactness(data, debian_vectors(options.data, n_rows))
        show(found)
        rows += found
    for n_rows in options.large_rows:
        if n_rows > there:
            print(f"{n_rows:,} rows are left out: the file has {there:,}")
            continue
        found = at_large(data, debian_vectors(options.data, n_rows), options.repeats)
        show(found)
        rows += found
    affordable = affordable_rows(rows)
    print(f"by the largest size, exact takes {AFFORDABLE_S:.0f} s at {affordable:,} rows")
    write_result(
        options.json,
        name="hdbscan-sizes",
        machine=machine,
        results=list(rows),
        about=About(
            title=f"HDBSCAN on real embeddings ({data}): exact and approximate",
            note="384 dimensions. Agreement (ARI, adjusted Rand index) of exact fits is with "
            "scikit-learn's brute mode where that stands beside; of approximate ones, a median of "
            f"{options.repeats}, with shoal's exact mode. An ARI near 0 beside the others' is the "
            "choice of the most stable groups tipping over to a few huge ones, which small "
            "differences in the tree can decide. The rule for the default: exact as long as that "
            f"takes {AFFORDABLE_S:.0f} s on two cores, by the largest size here up to "
            f"{affordable:,} rows; the default of the CPU is approximate above "
            f"{APPROXIMATE_FROM['cpu']:,}. On the GPU it is {APPROXIMATE_FROM['gpu']:,}, which was "
            "not measured.",
            value="seconds",
            labels=("n_points", "params", "who"),
        ),
    )


if __name__ == "__main__":
    main()
