"""Space cut into cells of some hundred points, by the centroids of a short k-means.

Near points share a cell, or lie in cells side by side: `gpu.cell_neighbours` looks there. To cut
many points takes two steps, regions and the cells within them, and a point looks for its nearest
cells around its region only; else the centroids to look at would grow with the points.

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
from gpu.parallel import Each, one_by_one
from gpu.sketches import Sketch
from gpu.smallest import smallest
from gpu.vectors import row_blocks

POINTS_PER_CELL = 128

MOST_REGIONS = 1024
"""Groups of the first step. Up to so many cells there is no second, but for crowded ones."""

MOST_COMPARED = 4096
"""Cells that a point looks for its nearest among; where there are more, half as many around it."""

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
    regions, centroids, region_of = _centroids(sketch, each)
    n_asked = min(n_asked, len(centroids))
    asked = np.empty((sketch.n_points, n_asked), dtype=np.int32)

    def ask_all(rows: slice) -> None:
        asked[rows] = _nearest(sketch.rows(rows), centroids, n_asked)

    def ask_around(region: int) -> None:
        cells = around[region]
        near = centroids[cells]
        for part in row_blocks(len(within[region]), 4 * len(cells)):  # A region may hold most.
            rows = within[region][part]
            asked[rows] = cells[_nearest(sketch.rows(rows), near, n_asked)]

    if len(centroids) <= MOST_COMPARED:
        each(ask_all, row_blocks(sketch.n_points, 4 * len(centroids)))
    else:
        within = _by_region(sketch, regions, each)
        around = _around(regions, region_of, max(MOST_COMPARED // 2, 4 * n_asked))
        each(ask_around, range(len(regions)))
    return Cells(members_of(asked[:, 0], len(centroids)), asked)


def _centroids(
    sketch: Sketch, each: Each
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Cluster a sample into regions, and into cells the members of regions that hold many.

    Returns
    -------
    regions : array of shape (n_regions, n_dims), float32
    centroids : array of shape (n_cells, n_dims), float32
    region_of : array of shape (n_cells,), int64
    """
    n_points = sketch.n_points
    n_cells = max(1, n_points // POINTS_PER_CELL)
    rng = np.random.default_rng(0)
    n_sampled = min(n_points, _SAMPLE_PER_CELL * n_cells)
    sample = sketch.rows(np.sort(rng.choice(n_points, n_sampled, replace=False)))
    first = sample[rng.choice(n_sampled, min(n_cells, MOST_REGIONS), replace=False)]
    found = lloyd(sample, first, tolerance=0.0, max_iter=_ITERATIONS, each=each)
    members = members_of(found.labels, len(first))
    per_cell = n_sampled / n_cells

    def split(region: int) -> NDArray[np.float32]:
        rows = members.rows[members.starts[region] : members.starts[region + 1]]
        n_parts = round(len(rows) / per_cell)
        if n_parts < 2:
            return found.centroids[region : region + 1]
        crowd = sample[rows]
        start = np.random.default_rng(region).choice(len(rows), n_parts, replace=False)
        return lloyd(
            crowd, crowd[start], tolerance=0.0, max_iter=_ITERATIONS, each=one_by_one
        ).centroids

    parts = each(split, range(len(first)))
    region_of = np.repeat(np.arange(len(first)), [len(part) for part in parts])
    return found.centroids, np.concatenate(parts), region_of


def _nearest(
    points: NDArray[np.float32], centroids: NDArray[np.float32], n_nearest: int
) -> NDArray[np.int32]:
    """Give the numbers of the nearest centroids of each point, nearest first."""
    scores = points @ centroids.T
    np.subtract(np.einsum("ij,ij->i", centroids, centroids) / 2, scores, out=scores)
    at = np.empty((len(points), n_nearest), dtype=np.int32)
    smallest(scores, np.empty(at.shape, dtype=np.float32), at)
    return at


def _by_region(sketch: Sketch, regions: NDArray[np.float32], each: Each) -> list[NDArray[np.int64]]:
    """Give the points of each region."""
    region = np.empty(sketch.n_points, dtype=np.int32)

    def assign(rows: slice) -> None:
        region[rows] = _nearest(sketch.rows(rows), regions, 1)[:, 0]

    each(assign, row_blocks(sketch.n_points, 4 * len(regions)))
    members = members_of(region, len(regions))
    return np.split(members.rows, members.starts[1:-1])


def _around(
    regions: NDArray[np.float32], region_of: NDArray[np.int64], n_cells: int
) -> list[NDArray[np.int64]]:
    """Give, for each region, the cells of the regions nearest to it, so that there are enough."""
    order = _nearest(regions, regions, len(regions))
    cells = members_of(region_of, len(regions))
    n_regions = (np.cumsum(cells.sizes[order], axis=1) < n_cells).sum(axis=1) + 1
    split = np.split(cells.rows, cells.starts[1:-1])
    return [
        np.concatenate([split[near] for near in order[region, : n_regions[region]]])
        for region in range(len(regions))
    ]
