"""The lightest edge out of each component, for Borůvka's rounds (`gpu.boruvka`).

Each point knows some of its nearest neighbours, and a bound below which it reaches no other point.
Most components' lightest edge is known from that; only points whose bound is below the best edge
of their component so far are open. They are compared with all others, nearest bound first, and
what such a search finds is their new bound.

Where neighbours are approximate, open points ask cells (`gpu.cell_neighbours`) instead. Points of
a dense clump know nothing but each other, and without that step their clump would hang on by an
edge that is too heavy. Only components that know no way out at all compare some of their points
with all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu.cell_neighbours import CellSearch
from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.spanning_tree import Distances
from gpu.vectors import row_blocks

SEARCHED_TOGETHER = 64
"""Points that one thread compares with all others: so many that their product is worth it."""

LOST_ROWS = 2048
"""Points that look for a way out in one round, when neighbours are approximate."""

BLOCKS_PER_WAVE = 8
"""Blocks of rows that are walked before what they found, or how far they are, is looked at."""


class Reach(NamedTuple):
    """What the pass found: mutual reachabilities, as the values of the distances are.

    Attributes
    ----------
    core : array of shape (n_points,), float32
    near : array of shape (n_points, n_kept), int32
        Nearest points, nearest first, the point itself among them.
    weight : array of shape (n_points, n_kept), float32
        Mutual reachability to each of them.
    bound : array of shape (n_points,), float32
        No point that is not in `near` can be reached for less.
    """

    core: NDArray[np.float32]
    near: NDArray[np.int32]
    weight: NDArray[np.float32]
    bound: NDArray[np.float32]


class Edges(NamedTuple):
    """One edge for each entry: of a point, or of a component."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    weight: NDArray[np.float32]


class OutwardSearch:
    """Finds the lightest edge out of each component, remembering what it learnt.

    Parameters
    ----------
    distances : Distances
    reach : Reach
        What is known; its bounds are raised in place.
    alpha : float
        Divides distances.
    rows_per_block : int
    each : Each
    cells : CellSearch or None
        Where neighbours are approximate.
    """

    def __init__(
        self,
        distances: Distances,
        reach: Reach,
        alpha: float,
        rows_per_block: int,
        each: Each,
        cells: CellSearch | None = None,
    ) -> None:
        self._distances = distances
        self._reach = reach
        self._cells = cells
        self._divisor = distances.divisor(alpha)
        self._rows_per_block = rows_per_block
        self._each = each
        # The nearest point outside its component that a search found, itself where none did.
        self._found = np.arange(distances.n_points)
        self._found_weight = np.full(distances.n_points, np.inf, dtype=np.float32)

    def lightest_edges(self, component: NDArray[np.int64], n_components: int) -> Edges:
        """Give the lightest edge out of every component but the largest.

        Parameters
        ----------
        component : array of shape (n_points,), int64
            Of each point, 0 to n_components - 1.
        n_components : int
        """
        right, weight = self._known_edges(component)
        left = np.full(n_components, -1)
        _lightest_of_components(component, weight, left)
        best = Edges(left, right[left], weight[left])

        largest = int(np.bincount(component).argmax())
        if self._cells is not None:
            self._search_cells(self._open(component, largest, best), component, best)
        for rows in self._open_waves(component, largest, best):
            self._search(rows, component, best)
        smaller = np.arange(n_components) != largest
        return Edges(best.left[smaller], best.right[smaller], best.weight[smaller])

    def _known_edges(
        self, component: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        reach = self._reach
        right, weight = np.empty(len(component), np.int64), np.empty(len(component), np.float32)
        _lightest_outward(component, reach.near, reach.weight, right, weight)
        found = (component[self._found] != component) & (self._found_weight < weight)
        right[found], weight[found] = self._found[found], self._found_weight[found]
        return right, weight

    def _open(self, component: NDArray[np.int64], largest: int, best: Edges) -> NDArray[np.int64]:
        """Give the points that may have a lighter edge than the best known of their component."""
        bound = self._reach.bound
        rows = np.flatnonzero((component != largest) & (bound < best.weight[component]))
        return rows[np.argsort(bound[rows], kind="stable")]

    def _open_waves(
        self, component: NDArray[np.int64], largest: int, best: Edges
    ) -> Iterator[NDArray[np.int64]]:
        """Give these in waves, as far as they are open by then."""
        bound = self._reach.bound
        rows = self._open(component, largest, best)
        if self._cells is not None:
            rows = _first_of_lost(rows, component, best, LOST_ROWS)
        per_wave = self._rows_per_block * BLOCKS_PER_WAVE
        while rows.size:
            yield rows[:per_wave]
            rows = rows[per_wave:]
            rows = rows[bound[rows] < best.weight[component[rows]]]

    def _search(self, rows: NDArray[np.int64], component: NDArray[np.int64], best: Edges) -> None:
        """Find the nearest point outside the component, for each of `rows`."""
        n_points, core = self._distances.n_points, self._reach.core
        found, weight = rows.copy(), np.full(len(rows), np.inf, dtype=np.float32)

        def find(part: slice) -> None:
            for columns in row_blocks(n_points, 4 * SEARCHED_TOGETHER):
                block = self._distances.block(rows[part], columns)
                block /= self._divisor
                _keep_outward(
                    block, rows[part], columns.start, component, core, found[part], weight[part]
                )

        starts = range(0, len(rows), SEARCHED_TOGETHER)
        self._each(find, [slice(at, at + SEARCHED_TOGETHER) for at in starts])
        self._learn(rows, found, weight, component, best)

    def _search_cells(
        self, rows: NDArray[np.int64], component: NDArray[np.int64], best: Edges
    ) -> None:
        """Find a near point outside the component, for those of `rows` that meet one."""
        assert self._cells is not None
        found, weight = self._cells.nearest_outside(
            rows, component, self._reach.core, self._divisor
        )
        met = found != rows
        self._learn(rows[met], found[met], weight[met], component, best)

    def _learn(
        self,
        rows: NDArray[np.int64],
        found: NDArray[np.int64],
        weight: NDArray[np.float32],
        component: NDArray[np.int64],
        best: Edges,
    ) -> None:
        """Remember what a search found, and where it betters the best of a component."""
        self._found[rows], self._found_weight[rows] = found, weight
        bound = self._reach.bound
        bound[rows] = np.maximum(bound[rows], weight)
        for row in rows[weight < best.weight[component[rows]]]:
            at = component[row]
            if self._found_weight[row] < best.weight[at]:
                best.left[at], best.right[at] = row, self._found[row]
                best.weight[at] = self._found_weight[row]


@compiled
def _keep_outward(
    block: NDArray[np.float32],
    rows: NDArray[np.int64],
    start: int,
    component: NDArray[np.int64],
    core: NDArray[np.float32],
    nearest: NDArray[np.int64],
    least: NDArray[np.float32],
) -> None:
    """Keep the first of the nearest points outside, of those whose distances `block` has."""
    n_columns = block.shape[1]
    outside, others = component[start : start + n_columns], core[start : start + n_columns]
    for line in range(len(rows)):
        own, row = component[rows[line]], block[line]
        for column in range(n_columns):
            weight = max(max(row[column], others[column]), core[rows[line]])
            if weight < least[line] and outside[column] != own:
                nearest[line], least[line] = start + column, weight


@compiled
def _lightest_outward(
    component: NDArray[np.int64],
    near: NDArray[np.int32],
    weight: NDArray[np.float32],
    right: NDArray[np.int64],
    lightest: NDArray[np.float32],
) -> None:
    """Find each point's lightest known edge out of its component; infinite where none is known."""
    for point in range(len(component)):
        right[point], least = near[point, 0], np.float32(np.inf)
        for at in range(near.shape[1]):
            other = near[point, at]
            if weight[point, at] < least and component[other] != component[point]:
                right[point], least = other, weight[point, at]
        lightest[point] = least


@compiled
def _lightest_of_components(
    component: NDArray[np.int64], weight: NDArray[np.float32], lightest: NDArray[np.int64]
) -> None:
    """Find the point of each component whose weight is least, the first of several."""
    for point in range(len(component)):
        best = lightest[component[point]]
        if best < 0 or weight[point] < weight[best]:
            lightest[component[point]] = point


def _first_of_lost(
    rows: NDArray[np.int64], component: NDArray[np.int64], best: Edges, n_rows: int
) -> NDArray[np.int64]:
    """Keep the first few rows of each component that knows no way out, `n_rows` of all."""
    rows = rows[np.isinf(best.weight[component[rows]])]
    of_lost = component[rows]
    by_component = np.argsort(of_lost, kind="stable")
    starts = np.flatnonzero(np.diff(of_lost[by_component], prepend=-1))
    place = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    each_may = max(1, n_rows // max(1, len(starts)))
    return rows[np.sort(by_component[place < each_may])]
