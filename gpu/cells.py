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

from gpu.groups import Members, members_of
from gpu.lloyd import lloyd
from gpu.parallel import Each
from gpu.sketches import Sketch
from gpu.smallest import smallest
from gpu.vectors import row_blocks

POINTS_PER_CELL = 128

_SAMPLE_PER_CELL = 16
_ITERATIONS = 3


class Cells(NamedTuple):
    """Points by cell, and cells by nearness.

    Attributes
    ----------
    members : Members
        The points of each cell: those whose nearest centroid is the cell's.
    asked : array of shape (n_points, n_asked), int32
        The cells with the nearest centroids, nearest first; so each point's own comes first.
    """

    members: Members
    asked: NDArray[np.int32]


def cut(sketch: Sketch, n_asked: int, each: Each) -> Cells:
    """Cut space into cells of some `POINTS_PER_CELL` points.

    Parameters
    ----------
    sketch : Sketch
        Of the points.
    n_asked : int
        Cells that each point asks for, as far as there are so many.
    each : Each
    """
    centroids = _centroids(sketch, each)
    halves = np.einsum("ij,ij->i", centroids, centroids) / 2
    asked = np.empty((sketch.n_points, min(n_asked, len(centroids))), dtype=np.int32)

    def ask(rows: slice) -> None:
        scores = sketch.rows(rows) @ centroids.T
        np.subtract(halves, scores, out=scores)
        smallest(scores, np.empty(asked[rows].shape, dtype=np.float32), asked[rows])

    each(ask, row_blocks(sketch.n_points, 4 * len(centroids)))
    return Cells(members_of(asked[:, 0], len(centroids)), asked)


def _centroids(sketch: Sketch, each: Each) -> NDArray[np.float32]:
    """Cluster a sample, and once more the members of groups that hold many."""
    n_points = sketch.n_points
    n_cells = max(1, n_points // POINTS_PER_CELL)
    rng = np.random.default_rng(0)
    n_sampled = min(n_points, _SAMPLE_PER_CELL * n_cells)
    sample = sketch.rows(np.sort(rng.choice(n_points, n_sampled, replace=False)))
    first = sample[rng.choice(n_sampled, n_cells, replace=False)]
    found = lloyd(sample, first, tolerance=0.0, max_iter=_ITERATIONS, each=each)
    centroids, members = [found.centroids], members_of(found.labels, n_cells)
    per_cell = n_sampled / n_cells
    for cell in np.flatnonzero(members.sizes >= 2 * per_cell).tolist():
        crowd = sample[members.rows[members.starts[cell] : members.starts[cell + 1]]]
        first = crowd[rng.choice(len(crowd), int(len(crowd) / per_cell), replace=False)]
        split = lloyd(crowd, first, tolerance=0.0, max_iter=_ITERATIONS, each=each).centroids
        found.centroids[cell] = split[0]
        centroids.append(split[1:])
    return np.concatenate(centroids)
