"""Squared Euclidean distances by matrix product, exact where the product is not.

``|a - b|**2 = |a|**2 + |b|**2 - 2 a.b`` costs one float32 matrix product, but loses the digits
that the three terms share. What is left is wrong by about 1e-6 of the squared lengths, which
ruins the distance of near-duplicates only. So:

1. rows are centred in float64 and scaled by a power of two, so that a common offset or a huge
   or tiny unit costs no digits and no overflow;
2. distances small beside the lengths of their rows are computed again in float64: pair by pair
   as a sum of squared differences of the original rows when they are few, by a float64 product
   of the rows concerned when they are many (clumps of near-duplicates). Exact duplicates come
   out as exactly 0 either way.

The error of a distance then stays under `RELATIVE_ERROR` of itself, in the second way of 2. under
1e-7 of the largest row length after centring.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.vectors import row_blocks

RELATIVE_ERROR = 1e-5

_SMALL = 0.15
"""Below this share of the row's squared length a distance counts as small, at 384 dimensions.

A pair within 0.05 of the sum of both squared lengths has lengths so alike that it is also within
0.15 of either; so it is enough to look at the row's.
"""

_PAIR_COST = 60
"""What a pair of rows costs, in entries of a float64 matrix product: gathers, no cache reuse."""

_PAIR_BLOCK = 1024
"""Pairs that are computed at a time; so few are never worth a product."""


def lengths(values: NDArray[Any], scale: float) -> NDArray[np.float64]:
    """Give the distances that squares in units of ``scale ** 2`` stand for."""
    distances: NDArray[np.float64] = scale * np.sqrt(values.astype(np.float64))
    return distances


class SquaredDistances:
    """Blocks of the matrix of squared distances between the rows of one matrix.

    Values are in units of ``scale ** 2``, so that they fit float32 whatever the input's unit.
    Safe to call from several threads.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite. Kept, not modified.
    each : Each or None
        Walks over them by several threads; the result is the same.
    keeps_centred : bool
        Keep a centred copy; else rows are centred whenever they are asked for, with the same
        digits: for who compares rows with few others at a time.

    Attributes
    ----------
    n_points : int
    scale : float
        A distance in the input's unit is ``scale * sqrt(value)``.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        each: Each | None = None,
        *,
        keeps_centred: bool = True,
    ) -> None:
        self.n_points, n_dims = vectors.shape
        self._vectors = vectors
        self._mean = vectors.mean(axis=0, dtype=np.float64)
        spread = float((vectors.max(axis=0).astype(np.float64) - vectors.min(axis=0)).max())
        self.scale = 2.0 ** math.floor(math.log2(spread)) if spread else 1.0
        self._points = np.empty_like(vectors, order="C") if keeps_centred else None
        self._lengths = np.empty(self.n_points, dtype=np.float32)

        def centre(rows: slice) -> None:
            centred = self._centred(rows)
            if self._points is not None:
                self._points[rows] = centred
            self._lengths[rows] = np.einsum("ij,ij->i", centred, centred)

        blocks = list(row_blocks(self.n_points, 8 * n_dims))
        if each is None:
            for rows in blocks:
                centre(rows)
        else:
            each(centre, blocks)
        # Rounding errors of a product add up like a random walk over the dimensions.
        self._limits = min(1.0, _SMALL * max(1.0, math.sqrt(n_dims / 384))) * self._lengths

    def block(self, rows: slice | NDArray[Any], columns: slice | NDArray[Any]) -> Any:
        """Compute one block of the matrix.

        Parameters
        ----------
        rows, columns : slice with bounds, or array of int
            Which points.

        Returns
        -------
        array of shape (n_rows, n_columns), float32
            Squared distances in units of ``scale ** 2``, 0 between a point and itself.
        """
        block = self._product(-2 * self.centred(rows), columns)
        limits = self._limits[rows]
        if _add_lengths(block, self._lengths[rows], self._lengths[columns], limits):
            small = block < limits[:, None]
            self._repair(block, small, self._indices(rows), self._indices(columns))
        return block

    def centred(self, rows: slice | NDArray[Any]) -> NDArray[np.float32]:
        """Give rows seen from the mean of all, over `scale`.

        Parameters
        ----------
        rows : slice with bounds, or array of int

        Returns
        -------
        array of shape (n_rows, n_dims), float32
        """
        if self._points is not None:
            return self._points[rows]
        indices = self._indices(rows)
        rounded = np.empty((len(indices), self._vectors.shape[1]), dtype=np.float32)
        _centre(self._vectors, self._mean, 1 / self.scale, indices, rounded)
        return rounded

    @property
    def squares(self) -> NDArray[np.float32]:
        """Squared lengths of the centred rows."""
        return self._lengths

    def divisor(self, alpha: float) -> np.float32:
        """Give what divides the values where `alpha` divides the distances."""
        return np.float32(alpha**2)

    def lengths(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Give the distances, in the input's unit, that values of a block stand for."""
        return lengths(values, self.scale)

    def pairs(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
        """Compute the squared distances of pairs of points from their differences, in float64.

        Parameters
        ----------
        left, right : array of shape (n_pairs,), int

        Returns
        -------
        array of shape (n_pairs,), float64
            In units of ``scale ** 2``; exactly 0 for duplicates only.
        """
        squared = np.empty(len(left), dtype=np.float64)
        for start in range(0, len(left), _PAIR_BLOCK):
            pair = slice(start, start + _PAIR_BLOCK)
            difference = self._vectors[left[pair]].astype(np.float64)
            difference -= self._vectors[right[pair]]
            difference /= self.scale
            squared[pair] = np.einsum("ij,ij->i", difference, difference)
        return squared

    def _repair(
        self,
        block: NDArray[np.float32],
        small: NDArray[np.bool_],
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
    ) -> None:
        at_row, at_column = np.nonzero(small)
        itself = rows[at_row] == columns[at_column]
        block[at_row[itself], at_column[itself]] = 0
        at_row, at_column = at_row[~itself], at_column[~itself]
        some_rows, some_columns = np.unique(at_row), np.unique(at_column)
        if (len(at_row) - _PAIR_BLOCK) * _PAIR_COST <= len(some_rows) * len(some_columns):
            squared = self.pairs(rows[at_row], columns[at_column])
        else:
            product = self._product64(rows[some_rows], columns[some_columns])
            squared = product[
                np.searchsorted(some_rows, at_row), np.searchsorted(some_columns, at_column)
            ]
        block[at_row, at_column] = squared

    def _product64(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
        left, right = self._centred(rows), self._centred(columns)
        product: NDArray[np.float64] = (-2 * left) @ right.T
        product += np.einsum("ij,ij->i", left, left)[:, None]
        product += np.einsum("ij,ij->i", right, right)
        np.maximum(product, 0, out=product)
        same = self._fingerprints[rows][:, None] == self._fingerprints[columns]
        product[same] = 0
        return product

    def _product(
        self, left: NDArray[np.float32], columns: slice | NDArray[Any]
    ) -> NDArray[np.float32]:
        if self._points is not None:
            return left @ self._points[columns].T
        indices = self._indices(columns)
        block = np.empty((len(left), len(indices)), dtype=np.float32)
        for part in row_blocks(len(indices), 4 * left.shape[1]):
            np.matmul(left, self.centred(indices[part]).T, out=block[:, part])
        return block

    def _centred(self, rows: slice | NDArray[Any]) -> NDArray[np.float64]:
        centred: NDArray[np.float64] = self._vectors[rows] - self._mean
        centred /= self.scale
        return centred

    def _indices(self, which: slice | NDArray[Any]) -> NDArray[np.intp]:
        return np.arange(which.start, which.stop) if isinstance(which, slice) else which

    @cached_property
    def _fingerprints(self) -> NDArray[np.uint64]:
        # A sum of the bits of each row with odd random weights, modulo 2**64: alike for rows
        # that are the same, and sorting rows to find those takes a hundred times as long.
        n_dims = self._vectors.shape[1]
        weights = np.random.default_rng(0).integers(2**63, size=(n_dims,), dtype=np.uint64)
        weights = 2 * weights + 1
        fingerprints = np.empty(self.n_points, dtype=np.uint64)
        for rows in row_blocks(self.n_points, 8 * n_dims):
            block = self._vectors[rows] + np.float32(0)  # Makes -0.0 the same as 0.0.
            fingerprints[rows] = block.view(np.uint32).astype(np.uint64) @ weights
        return fingerprints


@compiled
def _centre(
    vectors: NDArray[np.float32],
    mean: NDArray[np.float64],
    unit: float,
    rows: NDArray[np.intp],
    centred: NDArray[np.float32],
) -> None:
    """Take some rows, their mean off; `unit` is a power of two and costs no digit."""
    for line in range(len(rows)):
        row, out = vectors[rows[line]], centred[line]
        for dim in range(len(out)):
            out[dim] = (row[dim] - mean[dim]) * unit


@compiled
def _add_lengths(
    block: NDArray[np.float32],
    row_lengths: NDArray[np.float32],
    column_lengths: NDArray[np.float32],
    limits: NDArray[np.float32],
) -> int:
    """Turn ``-2 a.b`` into squared distances, in place; count those below their row's limit."""
    n_small = 0
    for line in range(block.shape[0]):
        row, length, limit = block[line], row_lengths[line], limits[line]
        for column in range(block.shape[1]):
            value = row[column] + (length + column_lengths[column])
            row[column] = value
            n_small += value < limit
    return n_small
