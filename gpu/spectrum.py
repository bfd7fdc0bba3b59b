"""Mean and covariance of rows, and linear maps of them, block by block.

Whitening and PCA share these. The covariance is summed in float64: its small eigenvalues are
what whitening divides by, and float32 sums lose them. Time O(n d^2 + d^3), memory O(d^2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu.backend import array_module
from gpu.parallel import worker_threads
from gpu.vectors import row_blocks

Array = Any

PARTIAL_BYTES = 256 << 20
"""Most memory for covariances summed side by side."""

ROUNDING = 1e-6
"""Spread that is smaller than this share of the rows' length is rounding of float32."""

Tell = Callable[[float], None]


@dataclass(frozen=True)
class Spectrum:
    """Where rows lie and along which directions they spread.

    Attributes
    ----------
    mean : array of shape (n_dims,), float64
    values : array of shape (n_dims,), float64
        Variance along each direction, largest first; 0 where it is rounding.
    directions : array of shape (n_dims, n_dims), float64
        Column i is the unit direction of ``values[i]``, its largest entry positive.
    """

    mean: Array
    values: Array
    directions: Array


def spectrum(vectors: Array, tell: Tell) -> Spectrum:
    """Measure the covariance and decompose it.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite; NumPy or CuPy. Not modified.
    tell : callable
        Told the share done.

    Returns
    -------
    Spectrum
        On the device of `vectors`. Does not depend on the number of threads.
    """
    xp = array_module(vectors)
    n_points, n_dims = vectors.shape
    mean = vectors.mean(axis=0, dtype=xp.float64)
    n_strips = max(1, min(16, PARTIAL_BYTES // (8 * n_dims**2)))
    step = -(-n_points // n_strips)
    strips = [slice(start, min(start + step, n_points)) for start in range(0, n_points, step)]

    def scatter(strip: slice) -> Array:
        total = xp.zeros((n_dims, n_dims))
        rows = vectors[strip]
        for block in row_blocks(len(rows), 8 * n_dims):
            centred = rows[block] - mean
            total += centred.T @ centred
        return total

    if xp is np:
        with worker_threads() as each:
            partial = each(scatter, strips)
    else:
        partial = [scatter(strip) for strip in strips]
    tell(0.5)
    values, directions = xp.linalg.eigh(sum(partial) / max(1, n_points - 1))
    values, directions = values[::-1].copy(), directions[:, ::-1].copy()
    largest = directions[xp.abs(directions).argmax(axis=0), xp.arange(n_dims)]
    directions *= xp.where(largest < 0, -1.0, 1.0)
    # Relative to the rows' length: points far from the origin are rounded more coarsely.
    floor = ROUNDING**2 * float(mean @ mean + values.clip(0).sum()) / n_dims
    values[values <= floor] = 0
    tell(0.8)
    return Spectrum(mean, values, directions)


def project(vectors: Array, mean: Array, matrix: Array) -> Array:
    """Centre the rows and multiply them by a matrix.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
    mean : array of shape (n_dims,), float64
    matrix : array of shape (n_dims, n_out), float64

    Returns
    -------
    array of shape (n_points, n_out), float32
        C-contiguous, on the device of `vectors`.
    """
    xp = array_module(vectors)
    result = xp.empty((len(vectors), matrix.shape[1]), dtype=xp.float32)

    def fill(rows: slice) -> None:
        # Centred in float64: far from the origin the difference would lose its digits.
        result[rows] = (vectors[rows] - mean).astype(xp.float32) @ narrow

    narrow = matrix.astype(xp.float32)
    blocks = list(row_blocks(len(vectors), 8 * vectors.shape[1]))
    if xp is np:
        with worker_threads() as each:
            each(fill, blocks)
    else:
        for rows in blocks:
            fill(rows)
    return result
