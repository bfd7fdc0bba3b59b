"""DBSCAN: blocks of exact distances on the CPU (our own), cuML on the GPU.

scikit-learn keeps the neighbours of every point at once, which in the worst case is every pair.
Here a block of pairs is looked at, joins the groups that it connects, and is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend, device_errors
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import UnsupportedOnDeviceError
from gpu.memory import DBSCAN_BATCH_MB, estimate
from gpu.parallel import Each, worker_threads
from gpu.params import NOISE, DbscanParams
from gpu.squared_distances import SquaredDistances
from gpu.vectors import centred_copy, on_host, require_finite, require_matrix

Array = Any
Indices = NDArray[np.int64]
Near = Callable[[Indices, Indices], NDArray[np.bool_]]
"""Tells for rows and columns which pairs are neighbours."""

ROWS, COLUMNS = 256, 8192
"""Pairs looked at together; the float32 block takes 8 MB."""


def dbscan(
    vectors: Array,
    params: DbscanParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
    metric: str = "euclidean",
    n_threads: int | None = None,
) -> Clustering:
    """Find groups of points that are connected through dense neighbourhoods.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified.
    params : DbscanParams
        `eps` is a Euclidean distance unless `metric` is manhattan. For cosine pass unit rows and
        ``sqrt(2 * eps)``, as `gpu.clustering.fit` does: ``|a - b|**2 / 2`` is the cosine
        distance of unit rows.
    backend : Backend
    progress : callable or None
        Told the share that is done, 0 to 1.
    metric : {"euclidean", "cosine", "manhattan"}
        cosine says that the rows are unit, and changes nothing else.
    n_threads : int or None
        On the CPU; None: one per core. The result does not depend on it.

    Returns
    -------
    Clustering
        The groups are scikit-learn's: a point on the border of two belongs to the one whose
        first core point comes first. `strength` is None. `details`: ``n_core_points`` (CPU).

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    UnsupportedOnDeviceError
        On the GPU with manhattan distance.
    DeviceMemoryError, DeviceFailedError
        If the GPU runs out of memory, or its library gives up.

    Notes
    -----
    Time O(n_points**2 * n_dims). Euclidean distances err by less than 1e-5 of themselves, so
    only pairs that close to `eps` may differ from another implementation.

    References
    ----------
    Ester, Kriegel, Sander and Xu (1996), KDD-96.
    """
    require_matrix(vectors)
    if backend.device == "gpu" and metric == "manhattan":
        raise UnsupportedOnDeviceError(
            parameter="metric", value=metric, why="cuML's DBSCAN has no Manhattan distance"
        )
    require_finite(vectors)
    tell = progress or no_progress
    details: dict[str, Any] = {}
    if backend.device == "gpu":
        labels = _fit_on_gpu(vectors, params)
    else:
        points = on_host(vectors)
        with worker_threads(n_threads) as each:
            near = _manhattan(points, params) if metric == "manhattan" else _near(points, params)
            core = _core_points(near, len(points), params, each)
            tell(0.5)
            labels = _groups(near, core, len(points), each)
        details["n_core_points"] = len(core)
    tell(1.0)
    return clustered(labels, params, backend, **details)


def _near(points: Array, params: DbscanParams) -> Near:
    distances = SquaredDistances(points)
    limit = (params.eps / distances.scale) ** 2
    return lambda rows, columns: distances.block(rows, columns) <= limit


def _manhattan(points: Array, params: DbscanParams) -> Near:
    from scipy.spatial.distance import cdist

    return lambda rows, columns: cdist(points[rows], points[columns], "cityblock") <= params.eps


def _cut(indices: Indices, size: int) -> Iterator[Indices]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _core_points(near: Near, n_points: int, params: DbscanParams, each: Each) -> Indices:
    every = np.arange(n_points)

    def count(rows: Indices) -> Indices:
        found = np.zeros(len(rows), dtype=np.int64)
        for columns in _cut(every, COLUMNS):
            found += near(rows, columns).sum(axis=1)
        return found

    counts = np.concatenate(each(count, _cut(every, ROWS)))
    return np.flatnonzero(counts >= params.min_samples)


def _groups(near: Near, core: Indices, n_points: int, each: Each) -> Indices:
    labels = np.full(n_points, NOISE, dtype=np.int64)
    if not len(core):
        return labels
    components = _Components(len(core))
    places = np.arange(len(core))

    def join(rows: Indices) -> None:
        for columns in _cut(places[rows[0] :], COLUMNS):  # The matrix is symmetric.
            at_row, at_column = np.nonzero(near(core[rows], core[columns]))
            components.join(rows[at_row], columns[at_column])

    each(join, _cut(places, ROWS))
    # Numbered by the first core point, which decides whose a point on two borders is.
    _, first, group = np.unique(components.of, return_index=True, return_inverse=True)
    labels[core] = np.argsort(np.argsort(first))[group]
    others = np.setdiff1d(np.arange(n_points), core, assume_unique=True)

    def first_group(rows: Indices) -> None:
        lowest = np.full(len(rows), len(core))
        for columns in _cut(core, COLUMNS):
            reached = np.where(near(rows, columns), labels[columns], len(core))
            np.minimum(lowest, reached.min(axis=1), out=lowest)
        labels[rows] = np.where(lowest < len(core), lowest, NOISE)

    each(first_group, _cut(others, ROWS))
    return labels


class _Components:
    """The connected components of a graph whose edges come in any order, from any thread."""

    def __init__(self, n_nodes: int) -> None:
        self.of = np.arange(n_nodes)
        self._lock = Lock()

    def join(self, left: Indices, right: Indices) -> None:
        """Add edges."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        with self._lock:
            a, b = self.of[left], self.of[right]
            apart = a != b
            if not apart.any():
                return
            n_nodes = len(self.of)
            edges = coo_array(
                (np.ones(int(apart.sum()), dtype=np.int8), (a[apart], b[apart])),
                shape=(n_nodes, n_nodes),
            )
            _, joined = connected_components(edges, directed=False)
            self.of = joined[self.of]


def _fit_on_gpu(vectors: Array, params: DbscanParams) -> Array:
    import cupy
    from cuml.cluster import DBSCAN

    needed = estimate("dbscan", len(vectors), vectors.shape[1], params, "gpu")
    with device_errors(needed):
        model = DBSCAN(
            eps=params.eps,
            min_samples=params.min_samples,
            metric="euclidean",
            max_mbytes_per_batch=DBSCAN_BATCH_MB,
            calc_core_sample_indices=False,
            output_type="numpy",
        ).fit(centred_copy(vectors, cupy))
        return np.asarray(model.labels_, dtype=np.int64)
