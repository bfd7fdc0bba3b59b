"""Giving new points to groups that are there already, where they are like them enough."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import array_module
from gpu.groups import own_distances, squared_distances
from gpu.parallel import threads_for, worker_threads
from gpu.params import NOISE
from gpu.sampling import assign_rest
from gpu.vectors import is_angular, on_host, squared_lengths, unit_rows

Array = Any


def assign_similar(
    vectors: Array, centroids: NDArray[np.float32], threshold: float, metric: str
) -> NDArray[np.int32]:
    """Give each row to the group of its nearest centroid, if it points the same way.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows; NumPy or CuPy. Not modified.
    centroids : array of shape (n_groups, n_dims), float32
        NumPy.
    threshold : float
        Least cosine similarity to the nearest centroid, 0 to 1, in every metric; a row below
        it is noise, and so is one without a direction (all zero).
    metric : {"cosine", "dot", "euclidean", "manhattan"}
        In which the nearest centroid is found.

    Returns
    -------
    array of shape (n_points,), int32
        Group numbers, or `NOISE`. NumPy.
    """
    labels = assign_rest(vectors, centroids, None, metric)
    if not len(labels) or not len(centroids):
        return labels
    pointed = on_host(squared_lengths(vectors) > 0)
    named = np.einsum("ij,ij->i", centroids, centroids) > 0
    labels[~(pointed & named[labels])] = NOISE
    rows = np.flatnonzero(labels != NOISE)
    if len(rows):
        xp = array_module(vectors)
        points = unit_rows(vectors[xp.asarray(rows)])
        used, owner = np.unique(labels[rows], return_inverse=True)
        with worker_threads(threads_for(points)) as each:
            squares = squared_distances(points, unit_rows(centroids[used]), owner, each)
        labels[rows[1 - squares / 2 < threshold]] = NOISE
    return labels


def distances_to(
    vectors: Array, centroids: NDArray[np.float32], labels: NDArray[np.int32], metric: str
) -> NDArray[np.float32]:
    """Measure each row's distance to the centroid of its group, as `gpu.summary.Summary` does.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows; NumPy or CuPy. Not modified.
    centroids : array of shape (n_groups, n_dims), float32
        NumPy.
    labels : array of shape (n_points,), int32
        `NOISE` or a row of `centroids`. NumPy.
    metric : {"cosine", "dot", "euclidean", "manhattan"}

    Returns
    -------
    array of shape (n_points,), float32
        In the metric; NaN for noise. NumPy.
    """
    if not len(labels) or not len(centroids):
        return np.full(len(labels), np.nan, dtype=np.float32)
    angular = is_angular(metric)
    points = unit_rows(vectors) if angular else vectors
    targets = unit_rows(centroids) if angular else centroids
    with worker_threads(threads_for(points)) as each:
        return own_distances(points, targets, labels, each, metric)
