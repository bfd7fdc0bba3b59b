"""Agglomerative clustering: SciPy's merging over our distances; cuML for single linkage.

scikit-learn, without a connectivity matrix, merges with SciPy too, but over distances taken pair
by pair in float64, which at 384 dimensions is most of the time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend, device_errors
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import TooFewPointsError, UnsupportedOnDeviceError
from gpu.memory import estimate
from gpu.parallel import worker_threads
from gpu.params import AgglomerativeParams
from gpu.squared_distances import SquaredDistances
from gpu.vectors import centred_copy, on_host, require_finite, require_matrix

Array = Any
ROWS = 256


def agglomerative(
    vectors: Array,
    params: AgglomerativeParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
    metric: str = "euclidean",
    n_threads: int | None = None,
) -> Clustering:
    """Merge the two nearest groups until as many are left as asked for, or until all are far apart.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite; unit rows for cosine. Not modified.
    params : AgglomerativeParams
        `distance_threshold` is in the metric. For ward under cosine, which has no distance of
        its own there, ``sqrt(2 * distance_threshold)`` is compared, so that two single points
        merge below the same cosine distance as with the other linkages.
    backend : Backend
    progress : callable or None
        Told the share that is done, 0 to 1; merging reports nothing in between.
    metric : {"euclidean", "cosine", "manhattan"}
        manhattan is not for ward.
    n_threads : int or None
        For the distances on the CPU; None: one per core.

    Returns
    -------
    Clustering
        `strength` is None. Every point has a group.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    TooFewPointsError
        With fewer points than groups.
    UnsupportedOnDeviceError
        On the GPU, but for single linkage with a number of groups.
    DeviceMemoryError, DeviceFailedError
        If the GPU runs out of memory, or its library gives up.

    Notes
    -----
    Time and memory O(n_points**2): 8 bytes per pair while merging.

    References
    ----------
    Müllner (2011), arXiv:1109.2378.
    """
    require_matrix(vectors)
    if backend.device == "gpu":
        _require_supported(params, metric)
    n_points = len(vectors)
    if n_points < (params.n_clusters or 1):
        raise TooFewPointsError(n_points=n_points, needed=params.n_clusters or 1)
    require_finite(vectors)
    tell = progress or no_progress
    if n_points == 1:
        labels = np.zeros(1, dtype=np.int64)
    elif backend.device == "gpu":
        labels = _fit_on_gpu(vectors, params)
    else:
        distances = _condensed(on_host(vectors), params, metric, tell, n_threads)
        labels = _cut(_merges(distances, params), n_points, params, metric)
    tell(1.0)
    result = clustered(labels, params, backend)
    return replace(
        result, effective_params=result.effective_params | {"n_clusters": result.n_clusters}
    )


def _condensed(
    points: Array,
    params: AgglomerativeParams,
    metric: str,
    tell: Progress,
    n_threads: int | None,
) -> NDArray[np.float64]:
    """Give the distance of each pair (i, j), i < j, row after row."""
    if metric == "manhattan":
        from scipy.spatial.distance import pdist

        return np.asarray(pdist(points, "cityblock"))
    n_points = len(points)
    squares = SquaredDistances(points)
    condensed = np.empty(n_points * (n_points - 1) // 2)
    is_cosine = metric == "cosine" and params.linkage != "ward"

    def fill(start: int) -> None:
        rows = slice(start, min(start + ROWS, n_points))
        block = squares.block(rows, slice(start, n_points)).astype(np.float64)
        block *= squares.scale**2
        block = block / 2 if is_cosine else np.sqrt(block)
        for row in range(rows.stop - start):
            i = start + row
            first = i * (n_points - 1) - i * (i - 1) // 2
            condensed[first : first + n_points - 1 - i] = block[row, row + 1 :]

    with worker_threads(n_threads) as each:
        each(fill, range(0, n_points, ROWS))
    tell(0.5)
    return condensed


def _merges(distances: NDArray[np.float64], params: AgglomerativeParams) -> NDArray[np.float64]:
    from scipy.cluster.hierarchy import linkage

    return np.asarray(linkage(distances, params.linkage))


def _cut(
    merges: NDArray[np.float64], n_points: int, params: AgglomerativeParams, metric: str
) -> NDArray[np.int64]:
    """Do all merges but those of the last groups; the merge in row i makes node n_points + i."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if params.distance_threshold is None:
        n_merges = n_points - (params.n_clusters or 1)
    else:
        threshold = params.distance_threshold
        if metric == "cosine" and params.linkage == "ward":
            threshold = float(np.sqrt(2 * threshold))
        n_merges = int((merges[:, 2] < threshold).sum())
    made = np.repeat(np.arange(n_points, n_points + n_merges), 2)
    parts = merges[:n_merges, :2].ravel().astype(np.int64)
    n_nodes = n_points + n_merges
    edges = coo_array((np.ones(len(parts), dtype=np.int8), (parts, made)), shape=(n_nodes, n_nodes))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels[:n_points], dtype=np.int64)


def _require_supported(params: AgglomerativeParams, metric: str) -> None:
    if params.linkage != "single":
        raise UnsupportedOnDeviceError(
            parameter="linkage", value=params.linkage, why="cuML has single linkage only"
        )
    if params.distance_threshold is not None:
        raise UnsupportedOnDeviceError(
            parameter="distance_threshold",
            value=params.distance_threshold,
            why="cuML takes a number of groups only",
        )
    if metric == "manhattan":
        raise UnsupportedOnDeviceError(
            parameter="metric",
            value=metric,
            why="cuML takes it only with all pairs in device memory at once",
        )


def _fit_on_gpu(vectors: Array, params: AgglomerativeParams) -> Array:
    import cupy
    from cuml.cluster import AgglomerativeClustering

    needed = estimate("agglomerative", len(vectors), vectors.shape[1], params, "gpu")
    with device_errors(needed):
        model = AgglomerativeClustering(
            n_clusters=params.n_clusters,
            linkage="single",
            metric="euclidean",
            output_type="numpy",
        ).fit(centred_copy(vectors, cupy))
        return np.asarray(model.labels_, dtype=np.int64)
