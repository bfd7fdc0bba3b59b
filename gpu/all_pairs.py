"""The nearest neighbours of all points, by the distance of each pair, computed once.

The matrix of distances is symmetric: a tile of it serves the points of its rows and those of its
columns. Tiles are computed in rounds, as in a tournament: in none do two tiles share a point, so
threads never write to the same one.

Time: half of the matrix. Memory: one tile for each thread, beside the neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress
from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.spanning_tree import Distances

TILE = 1024
"""Rows and columns of a tile: products of so many are at full speed."""

_RUN = 32
"""Values that are passed over together."""


def nearest_of_all(
    distances: Distances, n_kept: int, each: Each, progress: Progress, tile: int = TILE
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the neighbours of each point, itself among them, nearest first.

    Parameters
    ----------
    distances : Distances
    n_kept : int
        At most the number of points.
    each : Each
    progress : callable
        Told the share that is done.
    tile : int
        Rows of a tile.

    Returns
    -------
    near : array of shape (n_points, n_kept), int32
        Of equally near points those that come first.
    values : array of shape (n_points, n_kept), float32
        Those of `distances`, ascending.
    """
    n_points = distances.n_points
    near = np.zeros((n_points, n_kept), dtype=np.int32)
    values = np.full((n_points, n_kept), np.inf, dtype=np.float32)
    farthest = np.full(n_points, np.inf, dtype=np.float32)
    starts = range(0, n_points, tile)
    parts = [slice(start, min(start + tile, n_points)) for start in starts]

    def compare(pair: tuple[int, int]) -> None:
        rows, columns = parts[pair[0]], parts[pair[1]]
        block = distances.block(rows, columns)
        _keep(block, rows.start, columns.start, values, near, farthest)

    rounds = list(_rounds(len(parts)))
    for number, pairs in enumerate(rounds):
        each(compare, pairs)
        progress((number + 1) / len(rounds))
    return near, values


def _rounds(n_parts: int) -> Iterator[list[tuple[int, int]]]:
    """Let each part meet itself, then each two parts once; in a round, each meets one at most."""
    yield [(part, part) for part in range(n_parts)]
    places = list(range(n_parts + n_parts % 2))
    for _ in range(len(places) - 1):
        half = len(places) // 2
        pairs = zip(places[:half], places[: -half - 1 : -1], strict=True)
        yield [(min(pair), max(pair)) for pair in pairs if max(pair) < n_parts]
        places[1:] = [places[-1], *places[1:-1]]


@compiled
def _keep(
    block: NDArray[np.float32],
    first_row: int,
    first_column: int,
    values: NDArray[np.float32],
    near: NDArray[np.int32],
    farthest: NDArray[np.float32],
) -> None:
    """Merge a tile into what its rows and its columns have kept before."""
    n_columns = block.shape[1]
    across = farthest[first_column : first_column + n_columns]
    for line in range(len(block)):
        row = first_row + line
        for start in range(0, n_columns, _RUN):
            run, limits = block[line, start : start + _RUN], across[start : start + _RUN]
            limit, n_down, n_across = farthest[row], 0, 0
            for at in range(len(run)):
                n_down += run[at] <= limit
                n_across += run[at] <= limits[at]
            if n_down:
                for at in range(len(run)):
                    if run[at] <= farthest[row]:
                        _insert(values[row], near[row], run[at], first_column + start + at)
                        farthest[row] = values[row, -1]
            if n_across and first_row != first_column:
                for at in range(len(run)):
                    column = first_column + start + at
                    if run[at] <= farthest[column]:
                        _insert(values[column], near[column], run[at], row)
                        farthest[column] = values[column, -1]


@compiled
def _insert(kept: NDArray[np.float32], names: NDArray[np.int32], value: Any, name: Any) -> None:
    """Put a value among those kept, unless equal ones that come first leave no place for it."""
    place = len(kept) - 1
    if kept[place] == value and names[place] < name:
        return
    while place > 0 and (
        kept[place - 1] > value or (kept[place - 1] == value and names[place - 1] > name)
    ):
        kept[place], names[place] = kept[place - 1], names[place - 1]
        place -= 1
    kept[place], names[place] = value, name
