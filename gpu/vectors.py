"""Rows of vectors: which are usable, and how a metric maps to Euclidean distance.

Cosine and dot go through unit rows, for which ``|a - b|**2 / 2`` is the cosine distance; so
everything downstream knows three kinds of metric: angular, Euclidean and Manhattan.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpu.backend import array_module
from gpu.errors import (
    InvalidParametersError,
    InvalidVectorsError,
    UnsupportedOnDeviceError,
    Violation,
)
from gpu.params import METRICS

Array = Any
"""A NumPy array (host) or a CuPy array (device); type checkers know only the first."""

BLOCK_BYTES = 4 << 20
"""Rows are walked in blocks of about this size, so that what is derived from them stays small."""

DEVICE_BLOCK_BYTES = 64 << 20
"""The same for rows on the GPU, where each block costs several kernel launches."""

SMALLEST_ON_DEVICE, LARGEST_ON_DEVICE = 1e-12, 1e15
"""Largest coordinate, seen from the mean, between which float32 holds the squares of distances."""

UNIT_TOLERANCE = 1e-5
"""Rows whose length is this close to 1 count as unit: a cosine distance then errs by 1e-10."""


def row_blocks(n_points: int, row_bytes: int, block_bytes: int | None = None) -> Iterator[slice]:
    """Cut rows into slices of about `block_bytes`; the cut depends on the shape alone.

    Parameters
    ----------
    n_points, row_bytes : int
    block_bytes : int or None
        None: `BLOCK_BYTES`.
    """
    step = max(1, (block_bytes or BLOCK_BYTES) // max(1, row_bytes))
    for start in range(0, n_points, step):
        yield slice(start, min(start + step, n_points))


def block_bytes_of(vectors: Array) -> int:
    """Give the size of block that suits where the vectors are."""
    return BLOCK_BYTES if isinstance(vectors, np.ndarray) else DEVICE_BLOCK_BYTES


def is_angular(metric: str) -> bool:
    """Tell whether distances are between directions (cosine, dot) rather than positions.

    Raises
    ------
    InvalidParametersError
        For a metric that there is not.
    """
    if metric not in METRICS:
        allowed = f"must be one of {', '.join(METRICS)}"
        raise InvalidParametersError([Violation("metric", repr(metric), allowed)])
    return metric in ("cosine", "dot")


def require_matrix(vectors: Array) -> None:
    """Refuse what is not a float32 matrix with at least one row and one column."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InvalidVectorsError(
            f"expected a matrix with rows and columns, got shape {tuple(vectors.shape)}"
        )
    if vectors.dtype != np.float32:
        raise InvalidVectorsError(f"expected float32 vectors, got {vectors.dtype}")


def usable_rows(vectors: Array, metric: str) -> Array:
    """Tell which rows can be clustered: finite, and for an angular metric not all zero.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy. Not modified.
    metric : str
        See `gpu.params.METRICS`.

    Returns
    -------
    array of shape (n_points,), bool
        On the same device as `vectors`.
    """
    xp = array_module(vectors)
    require_direction = metric in ("cosine", "dot")
    usable = xp.empty(len(vectors), dtype=bool)
    for rows in row_blocks(len(vectors), 4 * vectors.shape[1], block_bytes_of(vectors)):
        block = vectors[rows]
        usable[rows] = xp.isfinite(block).all(axis=1)
        if require_direction:
            usable[rows] &= (block != 0).any(axis=1)
    return usable


def require_finite(vectors: Array) -> None:
    """Refuse rows with a NaN or an infinity; names the first."""
    unusable = array_module(vectors).flatnonzero(~usable_rows(vectors, "euclidean"))
    if unusable.size:
        raise InvalidVectorsError(
            f"{unusable.size:,} of {len(vectors):,} rows are not finite, "
            f"first: row {int(unusable[0])}"
        )


def unit_rows(vectors: Array, *, in_place: bool = False) -> Array:
    """Scale each row to length 1, so that Euclidean distance orders pairs as cosine does.

    For unit rows ``|a - b|**2 / 2`` is the cosine distance, so a cosine epsilon ``c`` becomes
    ``cluster_selection_epsilon = sqrt(2 * c)``.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy (host) or CuPy (device). Not modified, unless `in_place`.
    in_place : bool
        Scale `vectors` itself: the same numbers, without a second matrix.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        On the same device as `vectors`; `vectors` itself where its rows are unit already, as
        Qdrant stores them under Cosine, or with `in_place`. Otherwise one copy.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is zero or not finite; names the first.

    Notes
    -----
    Apart from ties, neighbour order and spanning tree match a cosine run. Cluster stability
    uses 1 / distance, so HDBSCAN's "eom" selection may still differ from one.

    References
    ----------
    Campello, Moulavi and Sander (2013), doi:10.1007/978-3-642-37456-2_14.
    """
    require_matrix(vectors)
    xp = array_module(vectors)
    lengths = _row_lengths(vectors)
    unusable = xp.flatnonzero(~(xp.isfinite(lengths) & (lengths > 0)))
    if unusable.size:
        raise InvalidVectorsError(
            f"{unusable.size} of {len(vectors)} rows are zero or not finite, "
            f"first: row {int(unusable[0])}"
        )
    if _all_ones(lengths):
        return vectors
    scaled = vectors if in_place else xp.empty_like(vectors)
    for rows in row_blocks(len(vectors), 8 * vectors.shape[1], block_bytes_of(vectors)):
        scaled[rows] = vectors[rows] / lengths[rows, None]
    return scaled


def are_unit(vectors: Array) -> bool:
    """Tell whether `unit_rows` would give back `vectors` themselves."""
    return _all_ones(_row_lengths(vectors))


def _all_ones(lengths: Array) -> bool:
    return bool((array_module(lengths).abs(lengths - 1) <= UNIT_TOLERANCE).all())


def _row_lengths(vectors: Array) -> Array:
    # In float64: the square of a large or tiny float32 is beyond float32's range.
    xp = array_module(vectors)
    lengths = xp.empty(len(vectors), dtype=xp.float64)
    for rows in row_blocks(len(vectors), 8 * vectors.shape[1], block_bytes_of(vectors)):
        block = vectors[rows].astype(xp.float64)
        lengths[rows] = xp.sqrt(squared_lengths(block))
    return lengths


def squared_lengths(rows: Array) -> Array:
    """Sum the squares of each row, on the rows' device and in their type."""
    if isinstance(rows, np.ndarray):
        return np.einsum("ij,ij->i", rows, rows)
    # CuPy's einsum would make this a batch of one-row matrix products.
    return (rows * rows).sum(axis=1)


def absolute_sums(rows: Array) -> Array:
    """Sum the absolute values of each row, on the rows' device and in their type."""
    return array_module(rows).abs(rows).sum(axis=1)


def on_host(array: Array) -> Array:
    """Give the array as NumPy; no copy when it is one."""
    return array if isinstance(array, np.ndarray) else array.get()


def on_device(array: Array, xp: Any) -> Array:
    """Give the array on the GPU, whose module is `xp`; no copy when it is there.

    Straight from where it lies: `cupy.asarray` first copies a matrix into locked memory of the
    same size, and keeps that for later ones.
    """
    if not isinstance(array, np.ndarray):
        return array
    there = xp.empty(array.shape, dtype=array.dtype)
    there.set(array)
    return there


def beside(array: Array, other: Array) -> Array:
    """Give the array where the other one is; no copy when it is there."""
    return on_host(array) if isinstance(other, np.ndarray) else array_module(other).asarray(array)


def centred_copy(vectors: Array, xp: Any) -> Array:
    """Copy vectors to a device with their mean taken off.

    cuML's distances come from a float32 matrix product, which a common offset costs digits.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or an array of `xp`. Not modified.
    xp : module
        cupy.

    Returns
    -------
    array of shape (n_points, n_dims), float32
        Of `xp`, C-contiguous.

    Raises
    ------
    UnsupportedOnDeviceError
        If squares of distances would leave float32's range.
    """
    points = on_device(vectors, xp) if isinstance(vectors, np.ndarray) else vectors.copy()
    points -= points.mean(axis=0, dtype=xp.float64).astype(xp.float32)
    largest = float(xp.maximum(points.max(), -points.min()))
    if largest and not SMALLEST_ON_DEVICE <= largest <= LARGEST_ON_DEVICE:
        raise UnsupportedOnDeviceError(
            parameter="vectors",
            value=largest,
            why=f"of coordinates so far from their mean (cuML takes {SMALLEST_ON_DEVICE:g} to "
            f"{LARGEST_ON_DEVICE:g}) float32 cannot hold the squares of distances",
        )
    return points
