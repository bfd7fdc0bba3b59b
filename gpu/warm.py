"""Compiles ahead of time what EVoC and UMAP compile at their first use: ``python -m gpu.warm``.

Their compiled code is kept beside the packages, so this is needed once for an installation;
without it the first run that uses them pays some minutes. What UMAP never keeps (about 18 s in
every new process) stays.
"""

from __future__ import annotations

import numpy as np

from gpu.backend import Backend
from gpu.clustering import fit
from gpu.params import parse_params
from gpu.preprocess import apply_steps
from gpu.steps import parse_steps

N_POINTS = 400
N_DIMS = 16


def warm() -> None:
    """Fit both on a small mixture."""
    rng = np.random.default_rng(0)
    centers = np.eye(4, N_DIMS)[np.arange(N_POINTS) % 4]
    points = (centers + rng.normal(0, 0.1, (N_POINTS, N_DIMS))).astype(np.float32)
    params = parse_params("evoc", {}).params
    fit(points, method="evoc", params=params, metric="cosine", device="cpu")
    apply_steps(
        points,
        parse_steps([{"method": "umap", "n_components": 2}]),
        metric="cosine",
        backend=Backend("cpu", "warming the caches"),
    )


if __name__ == "__main__":
    warm()
