"""How good a grouping is, without knowing the right one. Noise is left out of every index.

For cosine and dot, silhouette uses the cosine distance, and the other two, which are defined on
means, the Euclidean geometry of the unit rows. For manhattan there is silhouette alone: a mean is
not the centre of what lies around it by that distance.

References
----------
Rousseeuw (1987), doi:10.1016/0377-0427(87)90125-7 (silhouette).
Davies and Bouldin (1979), doi:10.1109/TPAMI.1979.4766909.
Caliński and Harabasz (1974), doi:10.1080/03610927408827101.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from gpu.groups import Members, group_sums, members_of, squared_distances
from gpu.manhattan_distances import block_between
from gpu.parallel import Each, worker_threads
from gpu.params import NOISE
from gpu.sampling import sample_rows
from gpu.squared_distances import SquaredDistances
from gpu.vectors import is_angular, on_host, row_blocks, unit_rows

Array = Any

SILHOUETTE_POINTS = 5_000
"""Most grouped points that silhouette compares, each with every other; the mean of so many errs
by some 0.005."""

PROFILED_GROUPS = 200
"""Groups, the first by number, whose silhouettes are told one by one."""

PROFILE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Sizes(TypedDict):
    """Numbers of members of the groups."""

    min: int
    median: float
    max: int
    all: list[int]


class GroupSilhouette(TypedDict):
    """How well the members of one group lie in it.

    group : its number
    n_points : members that were looked at
    quantiles : their silhouettes at 0, 25, 50, 75 and 100 %, -1 to 1
    """

    group: int
    n_points: int
    quantiles: list[float]


class Quality(TypedDict):
    """The figures of a run.

    silhouette : -1 to 1, the mean over a uniform sample, by distances within it; higher is better
    silhouette_sample_size : points of that sample; 0 where there is no silhouette
    silhouette_profile : the same by group, for the largest of them
    davies_bouldin : 0 upwards; lower is better
    calinski_harabasz : 0 upwards; higher is better
    noise_ratio : share of the points that belong to no group
    n_clusters, sizes : number of groups and their sizes by group number; sizes None without groups

    An index is None where it is undefined: fewer than two groups, as many groups as points, or
    (davies_bouldin, calinski_harabasz) no spread to divide by, or Manhattan distance.
    """

    silhouette: float | None
    silhouette_sample_size: int
    silhouette_profile: list[GroupSilhouette]
    davies_bouldin: float | None
    calinski_harabasz: float | None
    noise_ratio: float
    n_clusters: int
    sizes: Sizes | None


def quality(
    vectors: Array,
    labels: Array,
    *,
    metric: str,
    sample_size: int = SILHOUETTE_POINTS,
    seed: int = 42,
) -> Quality:
    """Measure a grouping.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows; NumPy or CuPy. Not modified.
    labels : array of shape (n_points,), int32
        0 to n_groups - 1, each of them used; `NOISE` for none. NumPy.
    metric : {"cosine", "dot", "euclidean", "manhattan"}
    sample_size : int
        Most grouped points that silhouette looks at.
    seed : int
        Of that sample.
    """
    angular = is_angular(metric)
    points = unit_rows(vectors) if angular else vectors
    n_groups = int(labels.max(initial=NOISE)) + 1
    members = members_of(labels, n_groups)
    grouped = np.flatnonzero(labels != NOISE)
    bouldin = harabasz = None
    with worker_threads() as each:
        if metric != "manhattan":
            bouldin, harabasz = _spread_indices(points, labels, members, each)
        sample = grouped[sample_rows(len(grouped), sample_size, seed)]
        scores = _silhouettes(on_host(points[sample]), labels[sample], metric, each)
    return Quality(
        silhouette=None if scores is None else float(scores.mean()),
        silhouette_sample_size=0 if scores is None else len(scores),
        silhouette_profile=[] if scores is None else _profile(scores, labels[sample]),
        davies_bouldin=bouldin,
        calinski_harabasz=harabasz,
        noise_ratio=(len(labels) - len(grouped)) / max(1, len(labels)),
        n_clusters=n_groups,
        sizes=_sizes(members.sizes),
    )


def _sizes(sizes: NDArray[np.int64]) -> Sizes | None:
    if not len(sizes):
        return None
    return Sizes(
        min=int(sizes.min()),
        median=float(np.median(sizes)),
        max=int(sizes.max()),
        all=sizes.tolist(),
    )


def _spread_indices(
    points: Array, labels: Array, members: Members, each: Each
) -> tuple[float | None, float | None]:
    sizes = members.sizes
    n_groups, n_grouped = len(sizes), int(sizes.sum())
    if not 1 < n_groups < n_grouped:
        return None, None
    sums = group_sums(points, members, each)
    means = sums / sizes[:, None]
    squares = squared_distances(points, means.astype(np.float32), labels, each)
    own = squares[members.rows].astype(np.float64)
    within = np.add.reduceat(own, members.starts[:-1])
    spread = np.add.reduceat(np.sqrt(own), members.starts[:-1]) / sizes

    offsets = means - sums.sum(axis=0) / n_grouped
    between = float(sizes @ np.einsum("ij,ij->i", offsets, offsets))
    total = float(within.sum())
    harabasz = between / total * (n_grouped - n_groups) / (n_groups - 1) if total > 0 else None
    return _davies_bouldin(offsets, spread, each), harabasz


def _davies_bouldin(
    offsets: NDArray[np.float64], spread: NDArray[np.float64], each: Each
) -> float | None:
    squares = np.einsum("ij,ij->i", offsets, offsets)
    if not spread.any():
        return None

    def worst(rows: slice) -> NDArray[np.float64]:
        apart = squares[rows, None] + squares - 2 * offsets[rows] @ offsets.T
        apart = np.sqrt(np.maximum(apart, 0))
        apart[apart == 0] = np.inf  # Itself, and groups in the same place, as scikit-learn does.
        lines = np.arange(len(apart))
        apart[lines, lines + rows.start] = np.inf
        return np.asarray(((spread[rows, None] + spread) / apart).max(axis=1))

    worsts = each(worst, row_blocks(len(offsets), 16 * len(offsets)))
    return float(np.concatenate(worsts).mean())


def _profile(scores: NDArray[np.float64], labels: Array) -> list[GroupSilhouette]:
    groups = np.unique(labels)[:PROFILED_GROUPS]
    of_group = [scores[labels == group] for group in groups]
    return [
        GroupSilhouette(
            group=int(group),
            n_points=len(own),
            quantiles=np.quantile(own, PROFILE_SHARES).round(4).tolist(),
        )
        for group, own in zip(groups, of_group, strict=True)
    ]


def _silhouettes(
    points: Array, labels: Array, metric: str, each: Each
) -> NDArray[np.float64] | None:
    """Give each point's silhouette among these; None where there are too few groups or points."""
    kept, labels = np.unique(labels, return_inverse=True)
    n_groups = len(kept)
    if not 1 < n_groups < len(points):
        return None
    by_group = np.argsort(labels, kind="stable")
    labels = labels[by_group]
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    distances_of = _distances(points[by_group], metric)

    def score(rows: slice) -> NDArray[np.float64]:
        distances = distances_of(rows)
        lines = np.arange(len(distances))
        sums = np.add.reduceat(distances, starts, axis=1, dtype=np.float64)
        own = labels[rows]
        alone = sizes[own] == 1
        inner = sums[lines, own] / np.maximum(sizes[own] - 1, 1)
        means = sums / sizes
        means[lines, own] = np.inf
        outer = means.min(axis=1)
        widest = np.maximum(inner, outer)
        scored: NDArray[np.float64] = np.divide(
            outer - inner, widest, out=np.zeros_like(widest), where=(widest > 0) & ~alone
        )
        return scored

    scores = np.empty(len(points))
    scores[by_group] = np.concatenate(each(score, row_blocks(len(points), 8 * len(points))))
    return scores


def _distances(points: Array, metric: str) -> Callable[[slice], Array]:
    """Give a function that computes some rows of the matrix of distances."""
    if metric == "manhattan":
        return lambda rows: block_between(points[rows], points)
    matrix = SquaredDistances(points)
    everything = slice(0, len(points))
    unit = np.float32(matrix.scale)

    def distances_of(rows: slice) -> Array:
        squares = matrix.block(rows, everything)
        if is_angular(metric):
            squares *= unit * unit / 2
            return squares
        np.sqrt(squares, out=squares)
        squares *= unit
        return squares

    return distances_of
