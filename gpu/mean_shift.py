"""Mean shift, by scikit-learn; cuML has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpu.backend import Backend
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import UnsupportedOnDeviceError
from gpu.params import MeanShiftParams
from gpu.vectors import on_host, require_finite, require_matrix

Array = Any

BANDWIDTH_POINTS = 2_000
"""Most points that the bandwidth is estimated from; scikit-learn compares each with every other."""

SMALLEST_BANDWIDTH = 1e-6
"""Of the spread of the points, where duplicates make the estimate zero."""


def mean_shift(
    vectors: Array,
    params: MeanShiftParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
) -> Clustering:
    """Move windows to where points are densest, and group the points that end together.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified.
    params : MeanShiftParams
        `bandwidth` is a Euclidean distance.
    backend : Backend
        The CPU.
    progress : callable or None
        Told 1 at the end; scikit-learn reports nothing in between.

    Returns
    -------
    Clustering
        `effective_params` has the bandwidth used. `strength` is None. `details`: ``n_iter``.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    UnsupportedOnDeviceError
        On the GPU.

    Notes
    -----
    Time O(n_points**2) per move; `bin_seeding` starts from fewer windows, but helps in few
    dimensions only.

    References
    ----------
    Comaniciu and Meer (2002), doi:10.1109/34.1000236.
    """
    if backend.device == "gpu":
        raise UnsupportedOnDeviceError(
            parameter="clustering_method", value="mean_shift", why="cuML has no mean shift"
        )
    require_matrix(vectors)
    require_finite(vectors)
    points = on_host(vectors).astype(np.float64)
    spread = float(np.ptp(points, axis=0).max())
    if spread == 0:
        labels, n_iter, used = np.zeros(len(points), dtype=np.int64), 0, params
    else:
        used = replace(params, bandwidth=params.bandwidth or _bandwidth(points, params, spread))
        labels, n_iter = _fit(points, used)
    (progress or no_progress)(1.0)
    return clustered(labels, used, backend, n_iter=n_iter)


def _bandwidth(points: Array, params: MeanShiftParams, spread: float) -> float:
    from sklearn.cluster import estimate_bandwidth

    estimated = estimate_bandwidth(
        points,
        n_samples=min(len(points), BANDWIDTH_POINTS),
        random_state=params.random_state,
        n_jobs=-1,
    )
    return max(float(estimated), SMALLEST_BANDWIDTH * spread)


def _fit(points: Array, params: MeanShiftParams) -> tuple[Array, int]:
    from sklearn.cluster import MeanShift

    model = MeanShift(
        bandwidth=params.bandwidth,
        bin_seeding=params.bin_seeding,
        min_bin_freq=params.min_bin_freq,
        cluster_all=params.cluster_all,
        max_iter=params.max_iter,
    ).fit(points)
    return np.asarray(model.labels_, dtype=np.int64), int(model.n_iter_)
