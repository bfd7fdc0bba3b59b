"""What describes each group: its centre, its size, and how far its members are from the centre.

Distances are in the vectors' metric: Euclidean, Manhattan, or for cosine and dot the cosine
distance ``1 - cos``, 0 to 2, to the normalized centroid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gpu.backend import array_module
from gpu.centres import COUNTED_ROWS, median_of
from gpu.errors import InvalidParametersError, Violation
from gpu.groups import Members, group_sums, members_of, own_distances
from gpu.manhattan_distances import manhattan_sums
from gpu.medoids import euclidean_medoid, nearest_to_mean
from gpu.parallel import Each, threads_for, worker_threads
from gpu.params import NOISE
from gpu.vectors import (
    beside,
    block_bytes_of,
    is_angular,
    on_host,
    row_blocks,
    unit_rows,
)

Array = Any
Centroid = Literal["mean", "median", "medoid"]
CENTROIDS: tuple[Centroid, ...] = get_args(Centroid)

RADIUS_QUANTILE = 0.95
"""Share of a group's members that its radius reaches."""


@dataclass(frozen=True)
class Summary:
    """The groups of a clustering, described; every array is NumPy.

    Attributes
    ----------
    centroids : array of shape (n_groups, n_dims), float32
        Unit length under cosine and dot.
    sizes : array of shape (n_groups,), int64
    distances : array of shape (n_points,), float32
        To the centroid of the own group, in the metric; NaN for noise, which has none.
    radii : array of shape (n_groups,), float32
        The 95th percentile of the members' distances.
    cohesions : array of shape (n_groups,), float32
        The mean of the members' distances.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    distances: NDArray[np.float32]
    radii: NDArray[np.float32]
    cohesions: NDArray[np.float32]


def summarize(
    vectors: Array, labels: Array, *, metric: str, centroid: Centroid = "mean"
) -> Summary:
    """Describe each group.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows; NumPy or CuPy. Not modified.
    labels : array of shape (n_points,), int32
        0 to n_groups - 1, each of them used; `NOISE` for none. NumPy.
    metric : {"cosine", "dot", "euclidean", "manhattan"}
    centroid : {"mean", "median", "medoid"}
        The mean of the members, the median of each dimension (under manhattan the point with
        the least summed distance to the members), or the member with the least summed distance
        to the others (under euclidean, of more than 512 members among those that are likely,
        see `gpu.medoids`).
        For cosine and dot, of the members scaled to length 1, and then scaled to it again.

    Returns
    -------
    Summary

    Notes
    -----
    Members that cancel out, such as a vector and its opposite, have no mean direction; their
    centroid is then the first member.
    """
    if centroid not in CENTROIDS:
        raise InvalidParametersError(
            [
                Violation(
                    "effective_feature_method",
                    repr(centroid),
                    f"must be one of {', '.join(CENTROIDS)}",
                )
            ]
        )
    angular = is_angular(metric)
    points = unit_rows(vectors) if angular else vectors
    n_groups = int(labels.max(initial=NOISE)) + 1
    members = members_of(labels, n_groups)
    with worker_threads(threads_for(points)) as each:
        centroids = _centroids(points, members, centroid, metric, each)
        if not n_groups:
            distances = np.full(len(points), np.nan, dtype=np.float32)
        else:
            distances = own_distances(points, centroids, labels, each, metric)
    sums = np.bincount(labels[labels != NOISE], distances[labels != NOISE], n_groups)
    cohesions = (sums / np.maximum(members.sizes, 1)).astype(np.float32)
    return Summary(centroids, members.sizes, distances, _radii(distances, members), cohesions)


def _centroids(
    points: Array, members: Members, centroid: Centroid, metric: str, each: Each
) -> NDArray[np.float32]:
    angular = is_angular(metric)
    sums = group_sums(points, members, each)
    means = (sums / np.maximum(members.sizes, 1)[:, None]).astype(np.float32)
    if centroid == "mean":
        return _unit_centroids(means, points, members) if angular else means
    groups = range(len(members.sizes))

    def median(group: int) -> Array:
        return _median(points, _rows(members, group))

    def medoid(group: int) -> Array:
        rows = _rows(members, group)
        if metric == "manhattan":
            return on_host(points[rows[int(manhattan_sums(points, rows).argmin())]])
        choose = nearest_to_mean if angular else euclidean_medoid
        return on_host(points[rows[choose(points, rows, beside(means[group], points))]])

    chosen = each(median if centroid == "median" else medoid, groups)
    centroids = np.array(chosen, dtype=np.float32).reshape(means.shape)
    return _unit_centroids(centroids, points, members) if angular else centroids


def _rows(members: Members, group: int) -> NDArray[np.int64]:
    return members.rows[members.starts[group] : members.starts[group + 1]]


def _unit_centroids(centroids: Array, points: Array, members: Members) -> NDArray[np.float32]:
    lengths = np.linalg.norm(centroids.astype(np.float64), axis=1)
    opposed = lengths < 1e-6  # What is left of unit members that cancel out is rounding.
    centroids[opposed] = on_host(points[members.rows[members.starts[:-1][opposed]]])
    lengths[opposed] = 1
    return np.asarray(centroids / lengths[:, None], dtype=np.float32)


def _median(points: Array, rows: NDArray[np.int64]) -> Array:
    if isinstance(points, np.ndarray) and len(rows) <= COUNTED_ROWS:
        return median_of(points, rows)
    # A few dimensions at a time: a large group is most of the matrix.
    xp = array_module(points)
    columns = row_blocks(points.shape[1], 4 * len(rows), block_bytes_of(points))
    medians = [xp.median(points[rows, part], axis=0) for part in columns]
    return on_host(xp.concatenate(medians))


def _radii(distances: NDArray[np.float32], members: Members) -> NDArray[np.float32]:
    """Interpolate each group's quantile in its sorted distances, as numpy.quantile does."""
    sizes = members.sizes
    if not len(sizes):
        return np.empty(0, dtype=np.float32)
    group = np.repeat(np.arange(len(sizes)), sizes)
    own = distances[members.rows]
    ascending = own[np.lexsort((own, group))].astype(np.float64)
    position = RADIUS_QUANTILE * (sizes - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, sizes - 1)
    low, high = ascending[members.starts[:-1] + below], ascending[members.starts[:-1] + above]
    return np.asarray(low + (high - low) * (position - below), dtype=np.float32)


def confidence(distances: Array, labels: Array, strength: Array | None) -> NDArray[np.float32]:
    """Tell how firmly each point belongs to its group.

    Parameters
    ----------
    distances : array of shape (n_points,), float32
        To the own centroid, as in `Summary`.
    labels : array of shape (n_points,), int32
    strength : array of shape (n_points,), float32, or None
        The method's own, which is taken where there is one.

    Returns
    -------
    array of shape (n_points,), float32
        0 to 1. Without strength: 1 for the nearest member of a group, falling with the rank of
        the distance by 1 / size each; equal distances get equal values. 0 for noise.
    """
    if strength is not None:
        return np.clip(np.asarray(strength, dtype=np.float32), 0, 1)
    n_groups = int(labels.max(initial=NOISE)) + 1
    members = members_of(labels, n_groups)
    group = np.repeat(np.arange(n_groups), members.sizes)
    own = distances[members.rows]
    order = np.lexsort((own, group))
    ascending = own[order]
    place = np.arange(len(own))
    fresh = np.ones(len(own), dtype=bool)  # First of its group, or farther than the one before.
    fresh[1:] = (ascending[1:] != ascending[:-1]) | (group[1:] != group[:-1])
    rank = np.maximum.accumulate(np.where(fresh, place, 0)) - members.starts[group]
    result = np.zeros(len(labels), dtype=np.float32)
    result[members.rows[order]] = 1 - rank / members.sizes[group]
    return result
