"""Minimum spanning tree of mutual reachability, from the whole matrix of distances.

The mutual reachability of two points is the largest of their distance (over `alpha`) and their
two core distances; a core distance reaches the `min_samples`-th nearest point, the point itself
counted as the first. Euclidean distances are kept squared until the tree is there: that changes
no order.

Prim's algorithm grows the tree from point 0 and needs one row of the matrix per step, so it is
vectorised over the row: O(n**2) time, and the matrix as memory. `gpu.boruvka` needs no matrix.

References
----------
Campello, Moulavi and Sander (2013), doi:10.1007/978-3-642-37456-2_14.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress
from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.smallest import nth_smallest

TILE = 384
"""Rows and columns of a tile; its values stay in a core's own cache until they are mirrored."""

_CORE_ROWS = 64
_MIRRORED_ROWS = 16
_REPORTS = 20

_INFINITY = np.float32(np.inf).view(np.int32)

_RUN = 256
"""Points whose least distance to the tree is kept, so that the nearest is found without a walk."""

_TILES_PER_REPORT = 32
"""At least: threads wait for each other at each report, which costs half a tile every time."""


class SpanningTree(NamedTuple):
    """A minimum spanning tree as flat arrays, one entry per edge.

    Attributes
    ----------
    left, right : array of shape (n_points - 1,), int64
        Points that an edge joins. From Prim's algorithm, `left` is the point added before
        `right`, as in scikit-learn: not always its neighbour in the tree, but the hierarchy
        that follows is the same.
    weight : array of shape (n_points - 1,), float64
        Mutual reachability, in the input's unit.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    weight: NDArray[np.float64]


class Distances(Protocol):
    """Blocks of values that order pairs as their distances do; safe to ask from several threads."""

    n_points: int

    def block(self, rows: slice | NDArray[Any], columns: slice | NDArray[Any]) -> Any:
        """Compute one block of the matrix, float32."""

    def divisor(self, alpha: float) -> np.float32:
        """Give what divides the values where `alpha` divides the distances."""

    def lengths(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Give the distances, in the input's unit, that values stand for."""


def dense_tree(
    distances: Distances,
    *,
    min_samples: int,
    alpha: float,
    each: Each,
    progress: Progress,
) -> SpanningTree:
    """Build the tree from the full matrix.

    Parameters
    ----------
    distances : SquaredDistances or ManhattanDistances
    min_samples : int
        At most the number of points.
    alpha : float
        Divides distances, but not core distances, as in scikit-learn's default algorithm.
    each : callable
        Maps over threads, see `gpu.parallel.worker_threads`.
    progress : callable
        Told the share that is done.
    """
    matrix = _matrix(distances, each, lambda share: progress(0.6 * share))
    core = _core_distances(matrix, min_samples, each)
    if alpha != 1:
        matrix /= distances.divisor(alpha)
    order, weight = _prim(matrix, core, lambda share: progress(0.7 + 0.3 * share))
    return SpanningTree(order[:-1], order[1:], distances.lengths(weight))


def _matrix(distances: Distances, each: Each, progress: Progress) -> NDArray[np.float32]:
    n_points = distances.n_points
    matrix = np.empty((n_points, n_points), dtype=np.float32)
    cuts = [slice(at, min(at + TILE, n_points)) for at in range(0, n_points, TILE)]

    def fill(tile: tuple[slice, slice]) -> None:
        rows, columns = tile
        block = distances.block(rows, columns)
        matrix[rows, columns] = block
        if rows != columns:
            _mirror(block, matrix[columns, rows])

    tiles = [(rows, columns) for at, rows in enumerate(cuts) for columns in cuts[at:]]
    share = max(_TILES_PER_REPORT, -(-len(tiles) // _REPORTS))
    for start in range(0, len(tiles), share):
        each(fill, tiles[start : start + share])
        progress(min(1.0, (start + share) / len(tiles)))
    return matrix


def _core_distances(
    matrix: NDArray[np.float32], min_samples: int, each: Each
) -> NDArray[np.float32]:
    core = np.empty(len(matrix), dtype=np.float32)

    def fill(start: int) -> None:
        rows = slice(start, start + _CORE_ROWS)
        core[rows] = nth_smallest(matrix[rows], min_samples)

    each(fill, range(0, len(matrix), _CORE_ROWS))
    return core


def _prim(
    matrix: NDArray[np.float32], core: NDArray[np.float32], progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give the points in the order they join the tree, and the weight each joins with."""
    n_points = len(matrix)
    growing = _Growing(
        order=np.zeros(n_points, dtype=np.int64),
        weight=np.empty(n_points - 1, dtype=np.int32),
        nearest=np.full(n_points, _INFINITY),
        outside=core.view(np.int32).copy(),
        least=np.empty(-(-n_points // _RUN), dtype=np.int32),
    )
    growing.outside[0] = _INFINITY
    share = max(1, n_points // _REPORTS)
    for start in range(1, n_points, share):
        stop = min(start + share, n_points)
        _grow(matrix.view(np.int32), core.view(np.int32), growing, start, stop)
        progress(stop / n_points)
    return growing.order, growing.weight.view(np.float32)


class _Growing(NamedTuple):
    """A tree that Prim's algorithm is building.

    Values are held by their bits: those of non-negative float32 are in the order of
    their values, and only of integers do vector instructions take the least.

    Attributes
    ----------
    order : array of shape (n_points,), int64
        Points in the order they join.
    weight : array of shape (n_points - 1,), int32
        Weight at which each but the first joins.
    nearest : array of shape (n_points,), int32
        Lightest edge from the tree to each point; infinite for points in the tree.
    outside : array of shape (n_points,), int32
        Core distances, infinite for points in the tree: one maximum both applies core distances
        and leaves those points out.
    least : array of shape (n_runs,), int32
        The least of `nearest` in each run of points.
    """

    order: NDArray[np.int64]
    weight: NDArray[np.int32]
    nearest: NDArray[np.int32]
    outside: NDArray[np.int32]
    least: NDArray[np.int32]


@compiled
def _grow(
    matrix: NDArray[np.int32], core: NDArray[np.int32], tree: _Growing, start: int, stop: int
) -> None:
    """Let the points number `start` to `stop` join, each time the nearest, the first of several."""
    for step in range(start, stop):
        point = tree.order[step - 1]
        for run in range(len(tree.least)):
            others = slice(run * _RUN, (run + 1) * _RUN)
            row, outside, nearest = (
                matrix[point, others],
                tree.outside[others],
                tree.nearest[others],
            )
            least = _INFINITY
            for other in range(len(row)):
                reach = min(nearest[other], max(max(row[other], outside[other]), core[point]))
                nearest[other] = reach
                least = min(least, reach)
            tree.least[run] = least
        run = int(tree.least.argmin())
        joining = run * _RUN
        while tree.nearest[joining] != tree.least[run]:
            joining += 1
        tree.order[step] = joining
        tree.weight[step - 1] = tree.least[run]
        tree.outside[joining] = tree.nearest[joining] = _INFINITY


@compiled
def _mirror(tile: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write the transpose of a tile, a few of its rows at a time so that they stay cached."""
    n_rows, n_columns = tile.shape
    for start in range(0, n_rows, _MIRRORED_ROWS):
        stop = min(start + _MIRRORED_ROWS, n_rows)
        for column in range(n_columns):
            for row in range(start, stop):
                out[column, row] = tile[row, column]
