"""Nearest points by cells: near points share a cell, or lie in cells side by side.

Each point is compared with the points of the few cells whose centroids are nearest to it, by one
matrix product for all that ask for the same cell. What lies farther is missed. Distances are
estimates by a sketch (`gpu.sketches`), to be measured by who uses them.

Time: O(n * FEWEST_CELLS * POINTS_PER_CELL) for the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.cells import POINTS_PER_CELL, Cells
from gpu.clustering import Progress
from gpu.compiled import compiled
from gpu.groups import members_of
from gpu.parallel import Each
from gpu.sketches import Sketch
from gpu.smallest import insert
from gpu.squared_distances import SquaredDistances
from gpu.vectors import row_blocks

KEPT = 24
"""Neighbours of each point, at least."""

FEWEST_CELLS = 24
"""Nearest cells whose points a point is compared with; more, the more neighbours are kept: what is
far among the nearest lies in other cells. The tree of 60,000 package embeddings weighs 0.19 % more
than the exact one with 24, 0.13 % with 32, 0.30 % with 16; eight cells cost an eighth of the
time."""

CELLS_OUTSIDE = 8
"""Cells that a point looks for a way out of its component in: each component has many points."""

CROWD = 16 * POINTS_PER_CELL
"""Most points of a cell that others are compared with: an even choice of them."""

MOST_QUERIES, FEWEST_QUERIES = 16_384, 1024
"""Points that are compared at a time: many, so that products are large, but in several parts."""

_PARTS = 8
_RUN = 32
_CHUNKS_PER_WAVE = 4


def cells_to_ask(n_kept: int) -> int:
    """Give the number of cells that a point has to ask for so many neighbours."""
    return FEWEST_CELLS + max(0, n_kept - KEPT)


class CellSearch:
    """Compares points with those of the cells that they ask.

    Parameters
    ----------
    cells : Cells
    sketch : Sketch
    distances : SquaredDistances
        Of the same points.
    each : Each
    """

    def __init__(
        self, cells: Cells, sketch: Sketch, distances: SquaredDistances, each: Each
    ) -> None:
        self._members, self._asked = cells
        self._sketch, self._distances, self._each = sketch, distances, each

    @property
    def order(self) -> NDArray[np.int64]:
        """All points, cell by cell: an array of shape (n_points,)."""
        return self._members.rows

    def nearest(
        self, n_kept: int, progress: Progress
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find neighbours of each point, itself first.

        Parameters
        ----------
        n_kept : int
            At most the number of points.
        progress : callable
            Told the share that is done.

        Returns
        -------
        near : array of shape (n_points, n_kept), int32
        estimates : array of shape (n_points, n_kept), float32
            Squared distances by the sketch, ascending; infinite where a point met too few others.
        """
        n_points = len(self.order)
        near = np.zeros((n_points, n_kept), dtype=np.int32)
        estimates = np.full((n_points, n_kept), np.inf, dtype=np.float32)
        near[:, 0], estimates[:, 0] = np.arange(n_points), 0

        def compare(points: NDArray[np.int64]) -> None:
            # Each point's own cell first: what it finds there spares it most of the others.
            for ranks in (slice(0, 1), slice(1, None)):
                for at, others in self._queries(self._asked[points, ranks]):
                    asking = points[at]
                    products = self._products(asking, others)
                    _keep_nearest(*products, asking, others, estimates, near)

        parts = self._parts(self.order)
        for start in range(0, len(parts), _CHUNKS_PER_WAVE):
            self._each(compare, parts[start : start + _CHUNKS_PER_WAVE])
            progress(min(1.0, (start + _CHUNKS_PER_WAVE) / len(parts)))
        return near, estimates

    def nearest_outside(
        self,
        points: NDArray[np.int64],
        component: NDArray[np.int64],
        core: NDArray[np.float32],
        divisor: np.float32,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the point outside its component that each point reaches for least.

        Parameters
        ----------
        points : array of shape (n_asking,), int64
        component : array of shape (n_points,), int64
        core : array of shape (n_points,), float32
            Squared core distances, over `divisor`.
        divisor : float
            Of squared distances.

        Returns
        -------
        found : array of shape (n_asking,), int64
            Nearest by the sketch; the point itself where it met no other component.
        weight : array of shape (n_asking,), float32
            Mutual reachability, squared; measured.
        """
        found = points.copy()

        def compare(part: slice) -> None:
            asking = points[part]
            reached = np.full(len(asking), np.inf, dtype=np.float32)
            for at, others in self._queries(self._asked[asking, :CELLS_OUTSIDE]):
                products = self._products(asking[at], others)
                _keep_outside(
                    *products, at, asking, others, component, core, divisor, reached, found[part]
                )

        step = max(1, -(-len(points) // _PARTS))
        self._each(compare, [slice(at, at + step) for at in range(0, len(points), step)])
        weight = (self._distances.pairs(points, found) / divisor).astype(np.float32)
        return found, np.maximum(weight, np.maximum(core[points], core[found]))

    def _parts(self, points: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        step = min(MOST_QUERIES, max(FEWEST_QUERIES, -(-len(points) // _PARTS)))
        return [points[at : at + step] for at in range(0, len(points), step)]

    def _queries(
        self, asked: NDArray[np.int32]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Give for each cell the rows of `asked` that name it, some at a time, and its points."""
        if not asked.size:
            return
        members = self._members
        queries = members_of(asked.ravel(), len(members.sizes))
        for cell in np.flatnonzero((queries.sizes > 0) & (members.sizes > 0)).tolist():
            asking = queries.rows[queries.starts[cell] : queries.starts[cell + 1]]
            held = members.rows[members.starts[cell] : members.starts[cell + 1]]
            if len(held) > CROWD:
                held = held[np.linspace(0, len(held) - 1, CROWD).astype(np.int64)]
            for some in row_blocks(len(asking), 4 * len(held)):
                yield asking[some] // asked.shape[1], held

    def _products(
        self, asking: NDArray[np.int64], others: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        sketch = self._sketch
        products: NDArray[np.float32] = sketch.rows(asking) @ sketch.rows(others).T
        return products, sketch.squares[asking], sketch.squares[others]


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
def _keep_outside(
    products: NDArray[np.float32],
    row_squares: NDArray[np.float32],
    column_squares: NDArray[np.float32],
    lines: NDArray[np.int64],
    points: NDArray[np.int64],
    columns: NDArray[np.int64],
    component: NDArray[np.int64],
    core: NDArray[np.float32],
    divisor: Any,
    reached: NDArray[np.float32],
    found: NDArray[np.int64],
) -> None:
    """Keep, of the points of a cell, the one of another component that is reached for least."""
    for row in range(len(lines)):
        at = lines[row]
        point = points[at]
        for column in range(len(columns)):
            value = (
                row_squares[row] + (column_squares[column] - 2 * products[row, column])
            ) / divisor
            if value >= reached[at]:
                continue
            other = columns[column]
            value = max(value, core[point], core[other])
            if value < reached[at] and component[other] != component[point]:
                reached[at], found[at] = value, other
