"""Nearest neighbours, nearly all of them, in much less than the square of the time.

Rows are sketched (`gpu.sketches`), space is cut into cells (`gpu.cells`), each point is compared
with the points of the cells nearest to it (`gpu.cell_neighbours`), and what it found there is
measured and made better (`gpu.neighbour_descent`). Neighbours are approximate, their distances
are exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu.cell_neighbours import CellSearch, cells_to_ask
from gpu.cells import cut
from gpu.clustering import Progress
from gpu.neighbour_descent import descend
from gpu.parallel import Each
from gpu.sketches import Sketch
from gpu.smallest import smallest
from gpu.squared_distances import SquaredDistances
from gpu.vectors import BLOCK_BYTES, row_blocks


def approximate_neighbours(
    vectors: NDArray[np.float32],
    distances: SquaredDistances,
    n_kept: int,
    each: Each,
    progress: Progress,
) -> tuple[NDArray[np.int32], NDArray[np.float32], CellSearch]:
    """Find neighbours of each point, itself first, nearest first.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite.
    distances : SquaredDistances
        Of the same points.
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
    search : CellSearch
        For more questions.
    """
    sketch = Sketch(distances, each)
    search = CellSearch(cut(sketch, cells_to_ask(n_kept), each), sketch, distances, each)
    near, values = search.nearest(n_kept, progress)
    _search_all(np.flatnonzero(np.isinf(values[:, -1])), distances, near, values, each)
    descend(vectors, 1 / distances.scale**2, search.order, near, values, each)
    return near, values, search


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
        block[np.arange(len(block)), rows[part]] = -1  # So that the point comes first.
        found, at = values[rows[part]], near[rows[part]]
        smallest(block, found, at)
        found[:, 0] = 0
        values[rows[part]], near[rows[part]] = found, at

    each(search, row_blocks(len(rows), 4 * distances.n_points, 4 * BLOCK_BYTES))
