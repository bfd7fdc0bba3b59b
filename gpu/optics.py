"""OPTICS, by scikit-learn; cuML has none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpu.backend import Backend
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import TooFewPointsError, UnsupportedOnDeviceError
from gpu.params import OpticsParams
from gpu.quiet import warnings_as_notes
from gpu.vectors import on_host, require_finite, require_matrix

Array = Any


def optics(
    vectors: Array,
    params: OpticsParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
    metric: str = "euclidean",
) -> Clustering:
    """Order the points by density, and read groups of any density off the order.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified.
    params : OpticsParams
        `max_eps` and `eps` are Euclidean distances unless `metric` is manhattan; for cosine
        pass unit rows and ``sqrt(2 * distance)``, as `gpu.clustering.fit` does.
    backend : Backend
        The CPU.
    progress : callable or None
        Told 1 at the end; scikit-learn reports nothing in between.
    metric : {"euclidean", "cosine", "manhattan"}
        cosine says that the rows are unit, and changes nothing else.

    Returns
    -------
    Clustering
        `strength` is None.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    TooFewPointsError
        With fewer points than `min_samples` or `min_cluster_size`.
    UnsupportedOnDeviceError
        On the GPU.

    Notes
    -----
    Time O(n_points**2 * n_dims), one point after the other: some minutes for 20 000 points of
    384 dimensions.

    References
    ----------
    Ankerst, Breunig, Kriegel and Sander (1999), doi:10.1145/304181.304187.
    """
    if backend.device == "gpu":
        raise UnsupportedOnDeviceError(
            parameter="clustering_method", value="optics", why="cuML has no OPTICS"
        )
    require_matrix(vectors)
    used = params.resolved(len(vectors))
    needed = int(max(used.min_samples, used.min_cluster_size or 0))
    if len(vectors) < needed:
        raise TooFewPointsError(n_points=len(vectors), needed=needed)
    require_finite(vectors)
    with warnings_as_notes() as notes:
        labels = _fit(on_host(vectors), used, "manhattan" if metric == "manhattan" else "euclidean")
    (progress or no_progress)(1.0)
    return clustered(labels, used, backend, notes=notes)


def _fit(points: Array, params: OpticsParams, metric: str) -> Array:
    from sklearn.cluster import OPTICS

    model = OPTICS(
        min_samples=int(params.min_samples),
        max_eps=math.inf if params.max_eps is None else params.max_eps,
        metric=metric,
        cluster_method=params.cluster_method,
        eps=params.eps,
        xi=params.xi,
        predecessor_correction=params.predecessor_correction,
        min_cluster_size=params.min_cluster_size,
        n_jobs=-1,
    ).fit(points)
    return np.asarray(model.labels_, dtype=np.int64)
