"""Partitions of the same points: neighbour graphs in projections, cut into communities.

References
----------
Blondel, Guillaume, Lambiotte and Lefebvre (2008), doi:10.1088/1742-5468/2008/10/P10008.
Zelnik-Manor and Perona (2004), NIPS 17 (edge weights by local scale).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress

Array = Any

N_NEIGHBORS = (15, 30)
RESOLUTIONS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)

_LOCAL_NEIGHBOR = 7
"""Whose distance is a point's local scale, after Zelnik-Manor and Perona."""


@dataclass(frozen=True)
class Projection:
    """Rows on their principal components, strongest first.

    Attributes
    ----------
    scores : array of shape (n_points, n_components), float32
    variances : array of shape (n_components,), float64
    """

    scores: NDArray[np.float32]
    variances: NDArray[np.float64]

    def n_components(self, share: float) -> int:
        """Give how many components hold a share of the variance, at least two."""
        held = np.cumsum(self.variances) / max(float(self.variances.sum()), 1e-300)
        return min(len(self.variances), max(2, int(np.searchsorted(held, share)) + 1))


def project(points: Array) -> Projection:
    """Rotate rows to their principal components."""
    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Of columns that are far from unit scale the products would leave float32.
    centred /= max(float(np.abs(centred).max()), 1e-30)
    variances, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(points))
    scores = centred @ axes[:, ::-1].astype(np.float32)
    return Projection(scores, np.maximum(variances[::-1], 0))


@dataclass(frozen=True)
class Partitions:
    """Partitions of the same points, and the neighbours whose agreement is looked at.

    Attributes
    ----------
    found : array of shape (n_partitions, n_points), int64
    neighbors : array of shape (n_points, n_neighbors), int64
    together : array of shape (n_points, n_neighbors), float64
        Share of the partitions that keep the point and that neighbour together.
    """

    found: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    together: NDArray[np.float64]

    def graph(self) -> Any:
        """Join neighbours by how often they are together."""
        return _graph(self.neighbors, np.maximum(self.together**2, 1e-6))


def partitions_of_projections(
    projection: Projection, n_components: list[int], angular: bool, seed: int, tell: Progress
) -> Partitions:
    """Partition each projection; the neighbours are those in the middle one."""
    found: list[NDArray[np.int64]] = []
    joint: NDArray[np.int64] | None = None
    for place, count in enumerate(n_components):
        neighbors, distances = _neighbors(projection.scores[:, :count], angular)
        if place == len(n_components) // 2:
            joint = neighbors
        found += _cuts(neighbors, distances, seed + len(found))
        tell((place + 1) / len(n_components))
    assert joint is not None  # One of them is in the middle.
    return _counted(found, joint)


def partitions_of(scores: Array, *, angular: bool, seed: int) -> Partitions:
    """Partition points as they are; `angular` tells whether only directions count."""
    neighbors, distances = _neighbors(scores, angular)
    return _counted(_cuts(neighbors, distances, seed), neighbors)


def _cuts(
    neighbors: NDArray[np.int64], distances: NDArray[np.float64], seed: int
) -> list[NDArray[np.int64]]:
    """Cut the graphs of one neighbour search at all resolutions."""
    found: list[NDArray[np.int64]] = []
    for size in sorted({min(size, neighbors.shape[1]) for size in N_NEIGHBORS}):
        graph = _graph(neighbors[:, :size], _weights(neighbors, distances, size))
        found += [louvain(graph, resolution, seed + len(found)) for resolution in RESOLUTIONS]
    return found


def _counted(found: list[NDArray[np.int64]], neighbors: NDArray[np.int64]) -> Partitions:
    together = np.zeros(neighbors.shape)
    for partition in found:
        together += partition[neighbors] == partition[:, None]
    return Partitions(np.array(found), neighbors, together / len(found))


def _neighbors(scores: Array, angular: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from sklearn.neighbors import NearestNeighbors

    points = np.ascontiguousarray(scores)
    if angular:
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    count = min(max(N_NEIGHBORS), len(points) - 1)
    model = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points)
    distances, neighbors = model.kneighbors()  # Without the points themselves.
    return neighbors, distances


def _weights(
    neighbors: NDArray[np.int64], distances: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    scale = distances[:, min(_LOCAL_NEIGHBOR, distances.shape[1]) - 1]
    product = np.maximum(scale[:, None] * scale[neighbors[:, :size]], 1e-30)
    # Never quite zero: a duplicate's neighbour farther off is still its neighbour.
    return np.maximum(np.exp(-(distances[:, :size] ** 2) / product), 1e-6)


def _graph(neighbors: NDArray[np.int64], weights: NDArray[np.float64]) -> Any:
    from scipy.sparse import csr_matrix

    n_points, size = neighbors.shape
    starts = np.arange(0, n_points * size + 1, size)
    graph = csr_matrix((weights.ravel(), neighbors.ravel(), starts), shape=(n_points, n_points))
    return (graph + graph.T).tocsr()


def louvain(graph: Any, resolution: float, seed: int) -> NDArray[np.int64]:
    """Cut a graph into communities; the higher the resolution, the smaller they are."""
    # Not Leiden: scikit-network's draws from C's rand(), so no seed would repeat a run.
    from sknetwork.clustering import Louvain

    model = Louvain(resolution=resolution, shuffle_nodes=True, random_state=seed)
    return np.asarray(model.fit_predict(graph), dtype=np.int64)
