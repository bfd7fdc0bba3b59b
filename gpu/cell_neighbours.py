"""Nearest neighbours by cells: near points share a cell, or lie in cells side by side.

Each point is compared with the points of the few cells whose centroids are nearest to it, by one
matrix product for all that ask for the same cell. What lies farther is missed: the neighbours are
approximate, their distances are exact.

A second step, as NN-descent, makes each point a neighbour of those that it found near, since they
may not have asked its cell, and compares it with the neighbours of its neighbours.

Time: O(n * POINTS_PER_CELL) for the distances, and a row of distances to n / POINTS_PER_CELL
centroids for each point.

References
----------
Dong, Moses and Li (2011), doi:10.1145/1963405.1963487 (NN-descent).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.cells import POINTS_PER_CELL, Cells
from gpu.clustering import Progress
from gpu.compiled import compiled
from gpu.groups import members_of
from gpu.parallel import Each
from gpu.smallest import insert, smallest
from gpu.squared_distances import SquaredDistances
from gpu.vectors import BLOCK_BYTES, row_blocks

KEPT = 24
"""Neighbours of each point, at least."""

FEWEST_CELLS = 8
"""Nearest cells whose points a point is compared with; more, the more neighbours are kept: what is
far among the nearest lies in other cells. The tree of 60,000 package embeddings weighs 0.36 % more
than the exact one with 8, 0.54 % with 6, 0.27 % with 10; two cells cost a tenth of the time."""

CROWD = 8 * POINTS_PER_CELL
"""Most points of a cell that others are compared with: an even choice of them."""

MOST_QUERIES, FEWEST_QUERIES = 16_384, 1024
"""Points that are compared at a time: many, so that products are large, but in several parts."""

ROUNDS = 2
"""Times that points learn from their neighbours."""

_ASKED = 8
_PARTS = 8
_RUN = 64
_CHUNKS_PER_WAVE = 4


def nearest_in_cells(
    cells: Cells,
    vectors: NDArray[np.float32],
    distances: SquaredDistances,
    n_kept: int,
    each: Each,
    progress: Progress,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find neighbours of each point, itself among them, nearest first.

    Points go by their place in `cells.members.rows`: those of a cell are then side by side in
    memory.

    Parameters
    ----------
    cells : Cells
    vectors : array of shape (n_points, n_dims), float32
        In that order.
    distances : SquaredDistances
        Of the same points, in that order.
    n_kept : int
        At most the number of points.
    each : Each
    progress : callable
        Told the share that is done.

    Returns
    -------
    near : array of shape (n_points, n_kept), int32
    values : array of shape (n_points, n_kept), float32
        Those of `distances`.
    """
    centroids, origin, members = cells
    halves = np.einsum("ij,ij->i", centroids, centroids) / 2
    n_points = len(vectors)
    n_asked = min(len(centroids), FEWEST_CELLS + max(0, n_kept - KEPT) // 2)
    near = np.zeros((n_points, n_kept), dtype=np.int32)
    values = np.full((n_points, n_kept), np.inf, dtype=np.float32)
    near[:, 0], values[:, 0] = np.arange(n_points), 0

    n_queries = min(MOST_QUERIES, max(FEWEST_QUERIES, -(-n_points // _PARTS)))
    queries_at = [slice(at, min(at + n_queries, n_points)) for at in range(0, n_points, n_queries)]

    def compare(part: slice) -> None:
        own = vectors[part]
        asked = np.concatenate(
            [
                _first_cells(own[rows] - origin, centroids, halves, n_asked)
                for rows in row_blocks(len(own), 4 * len(centroids))
            ]
        )
        queries = members_of(asked.ravel(), len(centroids))
        for cell in np.flatnonzero((queries.sizes > 0) & (members.sizes > 0)).tolist():
            rows = queries.rows[queries.starts[cell] : queries.starts[cell + 1]]
            asking = part.start + rows // n_asked
            columns, others = _columns(int(members.starts[cell]), int(members.starts[cell + 1]))
            _keep_nearest(*distances.products(asking, columns), asking, others, values, near)

    for start in range(0, len(queries_at), _CHUNKS_PER_WAVE):
        each(compare, queries_at[start : start + _CHUNKS_PER_WAVE])
        progress(min(1.0, (start + _CHUNKS_PER_WAVE) / len(queries_at)))
    _search_all(np.flatnonzero(np.isinf(values[:, -1])), distances, near, values, each)
    unit = np.float32(1 / distances.scale**2)
    parts = np.linspace(0, n_points, _PARTS + 1).astype(np.int64)
    sharpen = partial(_sharpen, vectors, unit, distances.limits, near, values, parts)
    each(sharpen, range(_PARTS))
    for _ in range(ROUNDS):  # Without names for them, copies are let go after each step.
        each(partial(_mirror, near.copy(), values.copy(), near, values, parts), range(_PARTS))
        each(partial(_refine, vectors, unit, near.copy(), near, values, parts), range(_PARTS))
    return near, values


def _first_cells(
    points: NDArray[np.float32],
    centroids: NDArray[np.float32],
    halves: NDArray[np.float32],
    n_cells: int,
) -> NDArray[np.int32]:
    """Give the cells with the nearest centroids, nearest first."""
    scores = points @ centroids.T
    np.subtract(halves, scores, out=scores)
    at = np.empty((len(points), n_cells), dtype=np.int32)
    smallest(scores, np.empty(at.shape, dtype=np.float32), at)
    return at


def _columns(start: int, stop: int) -> tuple[slice | NDArray[np.int64], NDArray[np.int64]]:
    """Give a cell's points, as what cuts them out and as numbers; of a crowd an even choice."""
    if stop - start <= CROWD:
        return slice(start, stop), np.arange(start, stop)
    chosen = np.linspace(start, stop - 1, CROWD).astype(np.int64)
    return chosen, chosen


def _search_all(
    rows: NDArray[np.int64],
    distances: SquaredDistances,
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    each: Each,
) -> None:
    """Find the neighbours of points that met too few, exactly."""

    def search(part: slice) -> None:
        block = distances.block(rows[part], slice(0, distances.n_points))
        found, at = values[rows[part]], near[rows[part]]
        smallest(block, found, at)
        values[rows[part]], near[rows[part]] = found, at

    each(search, row_blocks(len(rows), 4 * distances.n_points, 4 * BLOCK_BYTES))


@compiled
def _keep_nearest(
    products: NDArray[np.float32],
    row_squares: NDArray[np.float32],
    column_squares: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    values: NDArray[np.float32],
    near: NDArray[np.int32],
) -> None:
    """Merge the points of a cell into the nearest that some others have found before."""
    last = values.shape[1] - 1
    for line in range(len(rows)):
        kept, names = values[rows[line]], near[rows[line]]
        for start in range(0, len(columns), _RUN):
            product, square = products[line, start : start + _RUN], row_squares[line]
            others = column_squares[start : start + _RUN]
            least = np.float32(np.inf)
            for column in range(len(product)):
                least = min(least, others[column] - 2 * product[column])
            if square + least >= kept[last]:
                continue
            for column in range(len(product)):
                value = max(square + (others[column] - 2 * product[column]), np.float32(0))
                other = columns[start + column]
                if value < kept[last] and other != rows[line]:
                    insert(kept, names, value, other)


@compiled
def _sharpen(
    vectors: NDArray[np.float32],
    unit: Any,
    limits: NDArray[np.float32],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    parts: NDArray[np.int64],
    part: int,
) -> None:
    """Compute small distances again from differences: products lost their digits."""
    for row in range(parts[part], parts[part + 1]):
        kept, found, vector = near[row], values[row], vectors[row]
        for at in range(1, len(kept)):
            other, value = kept[at], found[at]
            if value < limits[row]:
                value = _squared(vector, vectors[other]) * unit
            insert(found[: at + 1], kept[: at + 1], value, other)


@compiled
def _squared(left: NDArray[np.float32], right: NDArray[np.float32]) -> Any:
    total = np.float32(0)
    for dim in range(len(left)):
        apart = left[dim] - right[dim]
        total += apart * apart
    return total


@compiled
def _holds(names: NDArray[np.int32], name: Any) -> Any:
    is_there = False
    for place in range(len(names)):  # All of them: vector instructions are faster than a way out.
        is_there |= names[place] == name
    return is_there


@compiled
def _mirror(
    known: NDArray[np.int32],
    lengths: NDArray[np.float32],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    parts: NDArray[np.int64],
    part: int,
) -> None:
    """Make points neighbours of their neighbours in one part, where they are among the nearest."""
    n_kept = near.shape[1]
    for row in range(len(known)):
        for at in range(n_kept):
            other, value = known[row, at], lengths[row, at]
            if other < parts[part] or other >= parts[part + 1]:
                continue
            kept, found = near[other], values[other]
            if value < found[n_kept - 1] and not _holds(kept, row):
                insert(found, kept, value, row)


@compiled
def _refine(
    vectors: NDArray[np.float32],
    unit: Any,
    known: NDArray[np.int32],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    parts: NDArray[np.int64],
    part: int,
) -> None:
    """Compare the points of one part with the neighbours of their neighbours."""
    n_kept = near.shape[1]
    asked = np.full(_ASKED * _ASKED, -1, dtype=np.int32)
    for row in range(parts[part], parts[part + 1]):
        kept, found, vector = near[row], values[row], vectors[row]
        n_asked = 0
        for first in range(1, min(_ASKED + 1, n_kept)):
            for second in range(1, min(_ASKED + 1, n_kept)):
                other = known[known[row, first], second]
                if other == row or _holds(asked[:n_asked], other):
                    continue
                asked[n_asked] = other
                n_asked += 1
                if _holds(kept, other):
                    continue
                value = _squared(vector, vectors[other]) * unit
                if value < found[n_kept - 1]:
                    insert(found, kept, value, other)
