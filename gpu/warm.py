"""Compiles ahead of time what would else be compiled at its first use: ``python -m gpu.warm``.

Compiled code is kept beside the source, so this is needed once for an installation. Our own
loops take half a minute (``--ours``, part of ``make setup``). EVoC and UMAP take minutes, and the
first run that uses them pays those where this was not done; what UMAP never keeps (about 1 s in
every new process) stays.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend
from gpu.clustering import fit
from gpu.hdbscan import hdbscan
from gpu.kmeans import kmeans
from gpu.params import HdbscanParams, KMeansParams, parse_params
from gpu.preprocess import apply_steps
from gpu.steps import parse_steps
from gpu.summary import CENTROIDS, summarize

N_POINTS = 400
N_DIMS = 16
BACKEND = Backend("cpu", "warming the caches")


def warm_ours() -> None:
    """Run every loop of ours, on rows that may be written and on rows that may not."""
    for is_writeable in (True, False):
        points = _mixture()
        points.flags.writeable = is_writeable
        labels = kmeans(points, KMeansParams(n_clusters=8), backend=BACKEND).labels
        for centroid in CENTROIDS:
            summarize(points, labels, metric="euclidean", centroid=centroid)
        for budget_bytes in (None, 0):
            hdbscan(points, HdbscanParams(), backend=BACKEND, matrix_budget_bytes=budget_bytes)
        hdbscan(points, HdbscanParams(approx_min_span_tree=True), backend=BACKEND)


def warm_libraries() -> None:
    """Fit EVoC and UMAP."""
    points = _mixture()
    params = parse_params("evoc", {}).params
    fit(points, method="evoc", params=params, metric="cosine", device="cpu")
    steps = parse_steps([{"method": "umap", "n_components": 2}])
    apply_steps(points, steps, metric="cosine", backend=BACKEND)


def _mixture() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    centers = np.eye(4, N_DIMS)[np.arange(N_POINTS) % 4]
    return (centers + rng.normal(0, 0.1, (N_POINTS, N_DIMS))).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", action="store_true", help="our own loops only")
    options = parser.parse_args()
    warm_ours()
    if not options.ours:
        warm_libraries()
