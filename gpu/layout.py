"""A map of the data: a place in two or three dimensions for every row, near rows near.

UMAP lays out a seeded sample (the landmarks); every other row goes to the weighted mean of its
nearest landmarks' places. So the costly part has a bound, and the rest is linear in the rows.
Equal rows share a place.

References
----------
McInnes, Healy and Melville (2018), arXiv:1802.03426 (UMAP).
Schönemann (1966), doi:10.1007/BF02289451 (the alignment: orthogonal Procrustes).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend, array_module, device_errors
from gpu.errors import InvalidParametersError, InvalidVectorsError, Violation
from gpu.reduction import umap
from gpu.sampling import sample_rows
from gpu.steps import Umap
from gpu.vectors import (
    beside,
    is_angular,
    on_host,
    require_finite,
    require_matrix,
    row_blocks,
    squared_lengths,
    unit_rows,
)

Array = Any
Progress = Callable[[float], None]

N_LANDMARKS = 10_000
"""Measured on 2 busy cores, 384 dimensions: with these 20 000 rows are laid out in 25 s."""

N_NEIGHBORS = 15
"""UMAP's surroundings of a landmark. As few landmarks or fewer have no use for it."""

MIN_DIST = 0.1
"""Enough room between points that a group shows its inside and not one dot."""

N_ANCHORS = 5
"""Landmarks that decide where any other row lies."""

BLOCK_BYTES = 64 << 20
"""Distances to all landmarks are held for so many rows at a time."""

_FIT_SHARE = 0.7


def layout(
    vectors: Array,
    *,
    metric: str,
    n_dims: int = 2,
    previous: NDArray[np.float32] | None = None,
    seed: int = 42,
    n_landmarks: int = N_LANDMARKS,
    backend: Backend,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Give every row a place such that near rows are near.

    Parameters
    ----------
    vectors : array of shape (n_points, n_features), float32
        Finite, and for cosine and dot no row all zero; NumPy or CuPy. Not modified.
    metric : {"cosine", "dot", "euclidean"}
        cosine and dot compare directions.
    n_dims : {2, 3}
    previous : array of shape (n_points, n_dims), float, or None
        Places on an earlier map, NaN for rows that it had not. The new map is turned,
        mirrored, scaled and moved, never bent, to lie over it.
    seed : int
    n_landmarks : int
        Rows that are laid out by UMAP itself.
    backend : Backend
    progress : callable, optional
        Told the share done, from 0 to 1.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        NumPy. Without `previous` centred at the origin. The same on every run of one machine
        and library version.

    Raises
    ------
    InvalidParametersError, InvalidVectorsError
        If an argument cannot be used.
    """
    _check(vectors, n_dims, n_landmarks, previous)
    tell = progress or _tell_nobody
    points = unit_rows(vectors) if is_angular(metric) else vectors
    landmark_rows = _distinct(points, sample_rows(len(points), n_landmarks, seed))
    # Off a common origin near the data: float32 distances lose digits far from it.
    origin = points[landmark_rows].mean(axis=0)
    landmarks = points[landmark_rows] - origin
    tell(0.0)
    if len(landmarks) > N_NEIGHBORS:
        step = Umap(n_dims, n_neighbors=N_NEIGHBORS, min_dist=MIN_DIST, random_state=seed)
        laid_out, _ = umap(landmarks, step, metric="euclidean", backend=backend, tell=_tell_nobody)
        places = on_host(laid_out)
    else:
        places = _by_variance(on_host(landmarks), n_dims)
    tell(_FIT_SHARE)
    everywhere = np.empty((len(points), n_dims), dtype=np.float32)
    is_landmark = np.zeros(len(points), dtype=np.bool_)
    is_landmark[landmark_rows] = True
    everywhere[landmark_rows] = places
    rest = np.flatnonzero(~is_landmark)
    if len(rest):
        _place(everywhere, points, rest, origin, landmarks, places, backend, tell)
    everywhere -= everywhere.mean(axis=0, dtype=np.float64).astype(np.float32)
    if previous is not None:
        everywhere = align(everywhere, previous)
    tell(1.0)
    return everywhere


def align(places: NDArray[np.float32], previous: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Turn, mirror, scale and move a map so that rows it shares with another lie near theirs.

    Parameters
    ----------
    places : array of shape (n_points, n_dims), float32
    previous : array of shape (n_points, n_dims), float
        NaN for rows that are not shared.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        `places` itself where no row is shared. Where the shared rows all lie in one spot, on
        either map, it is only moved: nothing tells a turn or a scale.
    """
    shared = np.isfinite(previous).all(axis=1)
    if not shared.any():
        return places
    ours, theirs = places[shared].astype(np.float64), previous[shared].astype(np.float64)
    our_centre, their_centre = ours.mean(axis=0), theirs.mean(axis=0)
    ours, theirs = ours - our_centre, theirs - their_centre
    spread = float((ours**2).sum())
    left, strengths, right = np.linalg.svd(ours.T @ theirs)
    if spread == 0 or strengths.sum() == 0:
        moved = places + (their_centre - our_centre)
        return np.asarray(moved, dtype=np.float32)
    # The scale that makes both equally wide: least squares would shrink a map that fits badly.
    scale = np.sqrt((theirs**2).sum() / spread)
    turned = (places - our_centre) @ (left @ right) * scale + their_centre
    return np.asarray(turned, dtype=np.float32)


def _check(
    vectors: Array, n_dims: int, n_landmarks: int, previous: NDArray[np.float32] | None
) -> None:
    faults = []
    if n_dims not in (2, 3):
        faults.append(Violation("n_dims", str(n_dims), "must be 2 or 3"))
    if n_landmarks < 1:
        faults.append(Violation("n_landmarks", str(n_landmarks), "must be at least 1"))
    if faults:
        raise InvalidParametersError(faults)
    require_matrix(vectors)
    require_finite(vectors)
    if previous is not None and previous.shape != (len(vectors), n_dims):
        raise InvalidVectorsError(
            f"previous places have shape {previous.shape}, expected {(len(vectors), n_dims)}"
        )


def _distinct(points: Array, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the first of each of the rows that are equal: UMAP would pile them up."""
    content = np.ascontiguousarray(on_host(points[rows]))
    content = content + np.float32(0)  # -0 and 0 are equal, their bytes are not.
    whole_rows = content.view(np.dtype((np.void, content.dtype.itemsize * content.shape[1])))
    _, first = np.unique(whole_rows.ravel(), return_index=True)
    return rows[np.sort(first)]


def _by_variance(landmarks: NDArray[np.float32], n_dims: int) -> NDArray[np.float32]:
    """Place a few points on the directions in which they vary most; what is missing is 0."""
    centred = landmarks.astype(np.float64)
    centred -= centred.mean(axis=0)
    left, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    # A direction is found up to its sign: its largest entry shall be positive.
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(len(directions)), largest] < 0, -1.0, 1.0)
    found = (left * strengths * signs)[:, :n_dims]
    places = np.zeros((len(landmarks), n_dims), dtype=np.float32)
    places[:, : found.shape[1]] = found
    return places


def _place(
    everywhere: NDArray[np.float32],
    points: Array,
    rest: NDArray[np.int64],
    origin: Array,
    landmarks: Array,
    places: NDArray[np.float32],
    backend: Backend,
    tell: Progress,
) -> None:
    """Put rows at the mean of their nearest landmarks' places, the nearer the heavier."""
    on_gpu = backend.device == "gpu"
    to_device = _to_gpu if on_gpu else on_host
    row_bytes = 4 * (len(landmarks) + points.shape[1])
    needed = 4 * landmarks.size + max(row_bytes, BLOCK_BYTES)
    with device_errors(needed) if on_gpu else nullcontext():
        landmarks = to_device(landmarks)
        origin, places = beside(origin, landmarks), beside(places, landmarks)
        half_squares = squared_lengths(landmarks) / 2
        for part in row_blocks(len(rest), row_bytes, BLOCK_BYTES):
            block = to_device(points[rest[part]]) - origin
            everywhere[rest[part]] = on_host(_mean_place(block, landmarks, half_squares, places))
            tell(_FIT_SHARE + (1 - _FIT_SHARE) * part.stop / len(rest))


def _mean_place(block: Array, landmarks: Array, half_squares: Array, places: Array) -> Array:
    xp = array_module(block)
    n_anchors = min(N_ANCHORS, len(landmarks))
    # |x - l|**2 / 2 without |x|**2 / 2, which is the same for every l.
    scores = half_squares - block @ landmarks.T
    anchors = xp.argpartition(scores, n_anchors - 1, axis=1)[:, :n_anchors]
    del scores
    squares = ((block[:, None, :] - landmarks[anchors]) ** 2).sum(axis=2)
    # Against the nearest: weights then depend on ratios, and an equal row takes it all.
    nearest = xp.maximum(squares.min(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    weights = nearest / xp.maximum(squares, nearest)
    weights /= weights.sum(axis=1, keepdims=True)
    return (places[anchors] * weights[:, :, None]).sum(axis=1)


def _to_gpu(array: Array) -> Array:
    import cupy

    return cupy.asarray(array)


def _tell_nobody(share: float) -> None:
    """Take a share that nobody wants to know."""
