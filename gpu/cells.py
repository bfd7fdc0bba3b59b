"""Space cut into cells of some hundred points, by the centroids of a short k-means.

Near points share a cell, or lie in cells side by side: `gpu.cell_neighbours` looks there.

References
----------
Jégou, Douze and Schmid (2011), doi:10.1109/TPAMI.2010.57 (inverted files).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu.centroid_search import nearest
from gpu.groups import Members, members_of
from gpu.lloyd import lloyd
from gpu.parallel import Each
from gpu.vectors import row_blocks

POINTS_PER_CELL = 256

_SAMPLE_PER_CELL = 24
_ITERATIONS = 4
_CUT_BYTES = 64 << 20


class Cells(NamedTuple):
    """Points by cell.

    Attributes
    ----------
    centroids : array of shape (n_cells, n_dims), float32
        Seen from `origin`.
    origin : array of shape (n_dims,), float32
    members : Members
        The points of each.
    """

    centroids: NDArray[np.float32]
    origin: NDArray[np.float32]
    members: Members


def cut(vectors: NDArray[np.float32], each: Each) -> Cells:
    """Cut space into cells of some `POINTS_PER_CELL` points.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
    each : Each
    """
    n_points, n_dims = vectors.shape
    n_cells = max(1, n_points // POINTS_PER_CELL)
    rng = np.random.default_rng(0)
    n_sampled = min(n_points, _SAMPLE_PER_CELL * n_cells)
    sample = vectors[np.sort(rng.choice(n_points, n_sampled, replace=False))]
    origin = sample.mean(axis=0)  # Far from it float32 scores lose digits.
    sample -= origin
    first = sample[rng.choice(n_sampled, n_cells, replace=False)]
    centroids = lloyd(sample, first, tolerance=0.0, max_iter=_ITERATIONS, each=each).centroids
    labels = np.empty(n_points, dtype=np.int32)
    for rows in row_blocks(n_points, 4 * n_dims, _CUT_BYTES):
        labels[rows] = nearest(vectors[rows] - origin, centroids, each)
    return _split_crowded(vectors, Cells(centroids, origin, members_of(labels, n_cells)), each)


def _split_crowded(vectors: NDArray[np.float32], cells: Cells, each: Each) -> Cells:
    """Cut cells anew that hold many points: what is compared grows with the square of a cell."""
    centroids, labels = list(cells.centroids), np.empty(len(vectors), dtype=np.int32)
    rng = np.random.default_rng(0)
    for cell in range(len(cells.centroids)):
        rows = cells.members.rows[cells.members.starts[cell] : cells.members.starts[cell + 1]]
        labels[rows] = cell
        n_parts = len(rows) // POINTS_PER_CELL
        if n_parts < 2:
            continue
        points = vectors[rows] - cells.origin
        first = points[rng.choice(len(rows), n_parts, replace=False)]
        part = lloyd(points, first, tolerance=0.0, max_iter=_ITERATIONS, each=each)
        labels[rows] = np.where(part.labels == 0, cell, len(centroids) + part.labels - 1)
        centroids[cell] = part.centroids[0]
        centroids.extend(part.centroids[1:])
    return Cells(np.array(centroids), cells.origin, members_of(labels, len(centroids)))
