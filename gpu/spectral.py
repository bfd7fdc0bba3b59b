"""Spectral clustering: scikit-learn on the CPU, cuML for nearest-neighbour graphs on the GPU."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from gpu.backend import Backend, device_errors
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import TooFewPointsError, UnsupportedOnDeviceError
from gpu.memory import estimate
from gpu.params import SpectralParams
from gpu.quiet import warnings_as_notes
from gpu.vectors import centred_copy, on_host, require_finite, require_matrix

Array = Any


def spectral(
    vectors: Array,
    params: SpectralParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
) -> Clustering:
    """Cut the graph of similar points where it is weakest.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified.
    params : SpectralParams
    backend : Backend
    progress : callable or None
        Told 1 at the end; the libraries report nothing in between.

    Returns
    -------
    Clustering
        `strength` is None. Notes say when the graph falls into parts.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    TooFewPointsError
        With fewer points than groups, or than neighbours of the graph.
    UnsupportedOnDeviceError
        On the GPU, for what cuML does not take.
    DeviceMemoryError, DeviceFailedError
        If the GPU runs out of memory, or its library gives up.

    Notes
    -----
    With the affinity "rbf" memory is O(n_points**2) on the CPU.

    References
    ----------
    Ng, Jordan and Weiss (2001), NIPS 14; von Luxburg (2007), doi:10.1007/s11222-007-9033-z.
    """
    require_matrix(vectors)
    if backend.device == "gpu":
        _require_supported(params)
    by_graph = params.affinity == "nearest_neighbors"
    needed = max(params.n_clusters, params.n_components or 1, params.n_neighbors if by_graph else 1)
    if len(vectors) < needed:
        raise TooFewPointsError(n_points=len(vectors), needed=needed)
    require_finite(vectors)
    notes: list[str] = []
    if len(vectors) == 1 or params.n_clusters == 1:
        labels = np.zeros(len(vectors), dtype=np.int64)  # Nothing to cut.
    elif backend.device == "gpu":
        labels = _fit_on_gpu(vectors, params)
    else:
        with warnings_as_notes() as notes:
            labels = _fit_on_cpu(on_host(vectors), params)
    (progress or no_progress)(1.0)
    return clustered(labels, params, backend, notes=notes)


def _fit_on_cpu(points: Array, params: SpectralParams) -> Array:
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(**asdict(params), n_jobs=-1).fit(points)
    return np.asarray(model.labels_, dtype=np.int64)


def _require_supported(params: SpectralParams) -> None:
    fixed = {
        "affinity": ("nearest_neighbors", "cuML builds the graph of nearest neighbours only"),
        "eigen_solver": ("arpack", "cuML has its own Lanczos solver"),
        "assign_labels": ("kmeans", "cuML ends with k-means"),
    }
    for name, (taken, why) in fixed.items():
        if getattr(params, name) != taken:
            raise UnsupportedOnDeviceError(parameter=name, value=getattr(params, name), why=why)


def _fit_on_gpu(vectors: Array, params: SpectralParams) -> Array:
    import cupy
    from cuml.cluster import SpectralClustering

    needed = estimate("spectral", len(vectors), vectors.shape[1], params, "gpu")
    with device_errors(needed):
        model = SpectralClustering(
            n_clusters=params.n_clusters,
            n_components=params.n_components,
            n_neighbors=params.n_neighbors,
            n_init=params.n_init,
            eigen_tol=params.eigen_tol,
            affinity="nearest_neighbors",
            random_state=params.random_state,
            output_type="numpy",
        ).fit(centred_copy(vectors, cupy))
        return np.asarray(model.labels_, dtype=np.int64)
