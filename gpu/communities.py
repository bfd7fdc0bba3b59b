"""Groups of points that stay together: communities of neighbour graphs, made firm by agreement.

For data whose groups overlap and have no gaps between them, as sentence embeddings. One community
search on one graph gives groups of which a part is accident. So:

1. rows are projected on the principal components that hold about half of the variance, and on
   some fewer and some more: the rest is mostly noise to the order of neighbours;
2. in each projection the graphs of nearest neighbours, at two sizes, are cut into communities at
   six resolutions: 36 partitions;
3. neighbours are joined by the share of partitions that keep them together, and the communities
   of that graph are the groups. How much a point's neighbours in its group agree is its strength;
4. firm points train a linear discriminant on the original vectors, which gives every point its
   nearest group: distances weighted by how the groups differ beat plain ones.

References
----------
Blondel, Guillaume, Lambiotte and Lefebvre (2008), doi:10.1088/1742-5468/2008/10/P10008.
Zelnik-Manor and Perona (2004), NIPS 17 (edge weights by local scale).
Lancichinetti and Fortunato (2012), doi:10.1038/srep00336 (consensus).
Ding and Li (2007), doi:10.1145/1273496.1273562 (discriminants from groups).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress
from gpu.params import NOISE

Array = Any

VARIANCE_SHARES = (0.45, 0.55, 0.65)
"""Of the principal components kept, one projection each; the middle one holds the consensus."""

N_NEIGHBORS = (15, 30)
RESOLUTIONS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)

CONSENSUS_RESOLUTION = 0.5
"""The coarsest of them: what is apart at every resolution is apart here."""

FIRM = 0.5
"""Strength above which a point belongs to its group: more often together than not."""

_DISCRIMINANT_ROUNDS = 2
_SHRINKAGE = 0.05
_LOCAL_NEIGHBOR = 7
"""Whose distance is a point's local scale, after Zelnik-Manor and Perona."""


@dataclass(frozen=True)
class Communities:
    """Groups, how firm they are, and a rule for more points.

    Attributes
    ----------
    labels : array of shape (n_points,), int64
        The nearest group of each point, firm or not.
    strength : array of shape (n_points,), float64
        0 to 1; above `FIRM` the point belongs to the group.
    n_components : list of int
        Of the projections.
    n_partitions : int
    rule : object or None
        A fitted discriminant with ``predict_proba``; None with fewer than two groups.
    """

    labels: NDArray[np.int64]
    strength: NDArray[np.float64]
    n_components: list[int]
    n_partitions: int
    rule: Any


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


def communities(
    points: Array, *, angular: bool, seed: int, tell: Progress, least_size: int
) -> Communities:
    """Find groups of points that stay together.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        NumPy; unit rows where `angular`. More than a few tens of thousands take long:
        neighbours are searched exhaustively.
    angular : bool
        Whether only directions count.
    seed : int
    tell : callable
        Told the share that is done.
    least_size : int
        Smaller groups are given to their neighbours by the discriminant.
    """
    projection = project(points)
    n_components = sorted({projection.n_components(share) for share in VARIANCE_SHARES})
    partitions, joint = _partitions(projection, n_components, angular, seed, tell)
    labels, strength = _consensus(partitions, joint, seed)
    sizes = np.bincount(labels)
    kept = sizes[labels] >= least_size
    tell(0.8)

    rule = None
    firm = kept & (strength > FIRM)
    for _ in range(_DISCRIMINANT_ROUNDS):
        if len(np.unique(labels[firm])) < 2:
            break
        rule = _discriminant(points[firm], labels[firm])
        shares = rule.predict_proba(points)
        labels = rule.classes_[shares.argmax(axis=1)]
        sureness = strength * shares.max(axis=1)
        firm = sureness > FIRM
    if rule is None:
        return Communities(
            np.where(kept, labels, NOISE), strength, n_components, len(partitions), None
        )
    return Communities(labels, sureness, n_components, len(partitions), rule)


def firmness(scores: Array, *, angular: bool, seed: int) -> float:
    """Give the share of points that stay with their neighbours, in partitions of all `scores`."""
    projection = Projection(scores, np.ones(scores.shape[1]))
    partitions, joint = _partitions(projection, [scores.shape[1]], angular, seed, lambda _: None)
    _, strength = _consensus(partitions, joint, seed)
    return float((strength > FIRM).mean())


def _partitions(
    projection: Projection, n_components: list[int], angular: bool, seed: int, tell: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give partitions, one per row, and the neighbours in the middle projection."""
    found: list[Array] = []
    n_points = len(projection.scores)
    joint: Array = None
    for place, count in enumerate(n_components):
        neighbors, distances = _neighbors(projection.scores[:, :count], angular)
        if place == len(n_components) // 2:
            joint = neighbors
        for size in sorted({min(size, n_points - 1) for size in N_NEIGHBORS}):
            graph = _graph(neighbors[:, :size], _weights(neighbors, distances, size))
            found += [_louvain(graph, resolution, seed + len(found)) for resolution in RESOLUTIONS]
        tell(0.75 * (place + 1) / len(n_components))
    return np.array(found), joint


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


def _louvain(graph: Any, resolution: float, seed: int) -> NDArray[np.int64]:
    # Not Leiden: scikit-network's draws from C's rand(), so no seed would repeat a run.
    from sknetwork.clustering import Louvain

    model = Louvain(resolution=resolution, shuffle_nodes=True, random_state=seed)
    return np.asarray(model.fit_predict(graph), dtype=np.int64)


def _consensus(
    partitions: NDArray[np.int64], neighbors: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    together = np.zeros(neighbors.shape)
    for partition in partitions:
        together += partition[neighbors] == partition[:, None]
    together /= len(partitions)
    labels = _louvain(_graph(neighbors, np.maximum(together**2, 1e-6)), CONSENSUS_RESOLUTION, seed)
    own = labels[neighbors] == labels[:, None]
    return labels, (own * together).mean(axis=1)


def _discriminant(points: Array, labels: Array) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_SHRINKAGE).fit(points, labels)
