"""Minimum spanning tree of mutual reachability where the matrix of distances does not fit.

Borůvka's algorithm in rounds: every component but the largest joins along its lightest edge to
any other, so the number of components at least halves. Leaving out the largest keeps the tree
minimal (the lightest edge out of any one component is in some minimum spanning tree) and spares
the points that have the longest way out.

One pass over all blocks of distances keeps each point's nearest neighbours and its core distance.
What lies outside that list is no nearer than its end: a lower bound, which settles most edges.
Only points whose bound is below the best edge of their component so far are compared with all
others again, nearest bound first, and what such a search finds is the point's new bound. No edge
is guessed: the tree is as exact as that of `gpu.spanning_tree`, which says what is minimised.

Memory: `KEPT` neighbours per point and one block of distances per thread. Time: O(n**2) for the
pass, and a row of distances for each search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu import cell_neighbours, cells
from gpu.clustering import Progress
from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.smallest import nth_smallest, smallest
from gpu.spanning_tree import Distances, SpanningTree
from gpu.squared_distances import SquaredDistances, lengths
from gpu.tree_order import prim_order
from gpu.vectors import row_blocks

KEPT = 32
"""Nearest neighbours that the exact search keeps of each point."""

BLOCK_BYTES = 16 << 20
"""Distances that one thread holds at a time; what is derived from them takes about twice that."""

SEARCHED_TOGETHER = 64
"""Points that one thread compares with all others: so many that their product is worth it."""

LOST_ROWS = 2048
"""Points that look for a way out in one round, when neighbours are approximate."""

_BLOCKS_PER_WAVE = 8
_PASS_SHARE = 0.6


class _Reach(NamedTuple):
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


class _Edges(NamedTuple):
    """One edge for each entry: of a point, or of a component."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    weight: NDArray[np.float32]


def boruvka_tree(
    distances: Distances,
    *,
    min_samples: int,
    alpha: float,
    each: Each,
    progress: Progress,
    block_bytes: int = BLOCK_BYTES,
) -> SpanningTree:
    """Build the tree from blocks of distances; see `gpu.spanning_tree.dense_tree`."""
    n_points = distances.n_points
    rows_per_block = _rows_per_block(n_points, block_bytes)
    reach = _nearest(distances, min_samples, alpha, rows_per_block, each, progress)
    chosen = _joined(_Search(distances, reach, alpha, rows_per_block, each), progress)
    order, weight = _ordered(n_points, [*chosen, _ties(reach)])
    return SpanningTree(order[:-1], order[1:], distances.lengths(weight))


def approximate_tree(
    vectors: NDArray[np.float32],
    *,
    min_samples: int,
    alpha: float,
    each: Each,
    progress: Progress,
    block_bytes: int = BLOCK_BYTES,
) -> SpanningTree:
    """Build a tree that is nearly minimal, from approximate neighbours (`gpu.cell_neighbours`).

    Edges to known neighbours are taken without proof. Components that know of no way out look
    for the nearest point outside from some of their points, by true distances.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite.
    min_samples, alpha, each, progress
        See `gpu.spanning_tree.dense_tree`.
    block_bytes : int
        Of distances that one thread holds at a time.
    """
    # The rows in the order of their cells are let go before edges are put in order.
    edges, scale = _approximate_edges(vectors, min_samples, alpha, each, progress, block_bytes)
    order, weight = _ordered(len(vectors), edges)
    return SpanningTree(order[:-1], order[1:], lengths(weight, scale))


def _approximate_edges(
    vectors: NDArray[np.float32],
    min_samples: int,
    alpha: float,
    each: Each,
    progress: Progress,
    block_bytes: int,
) -> tuple[list[_Edges], float]:
    """Give edges that hold the tree, and the unit that their weights are squares in."""
    n_points = len(vectors)
    cut = cells.cut(vectors, each)
    rows = cut.members.rows
    vectors = _taken(vectors, rows, each)
    distances = SquaredDistances(vectors, each, keeps_centred=False)
    near, values = cell_neighbours.nearest_in_cells(
        cut,
        vectors,
        distances,
        min(n_points, max(cell_neighbours.KEPT, 2 * min_samples)),
        each,
        lambda share: progress(_PASS_SHARE * share),
    )
    core = values[:, min_samples - 1].copy()
    reach = _reach(distances, near, values, core, alpha)
    rows_per_block = _rows_per_block(n_points, block_bytes)
    search = _Search(distances, reach, alpha, rows_per_block, each, lost_rows=LOST_ROWS)
    edges = [*_joined(search, progress), _ties(reach)]
    named = [_Edges(rows[part.left], rows[part.right], part.weight) for part in edges]
    return named, distances.scale


def _taken(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], each: Each
) -> NDArray[np.float32]:
    taken = np.empty(vectors.shape, dtype=np.float32)

    def take(part: slice) -> None:
        taken[part] = vectors[rows[part]]

    each(take, row_blocks(len(rows), 4 * vectors.shape[1]))
    return taken


def _ordered(n_points: int, edges: list[_Edges]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give points in the order they join the tree, and the weight each but the first joins with."""
    return prim_order(
        n_points,
        np.concatenate([part.left for part in edges]),
        np.concatenate([part.right for part in edges]),
        np.concatenate([part.weight for part in edges]),
    )


def _rows_per_block(n_points: int, block_bytes: int) -> int:
    return max(1, min(512, block_bytes // (4 * n_points)))


def _joined(search: _Search, progress: Progress) -> list[_Edges]:
    """Join components until there is one; give the edges of each round."""
    n_points = search.distances.n_points
    component = np.arange(n_points)
    n_components = n_points
    chosen: list[_Edges] = []
    while n_components > 1:
        edges = search.lightest_edges(component, n_components)
        joined, component = _join(edges, component, n_components)
        chosen.append(joined)
        n_components -= len(joined.left)
        done = 1 - math.log(n_components) / math.log(n_points)
        progress(_PASS_SHARE + (1 - _PASS_SHARE) * done)
    return chosen


def _nearest(
    distances: Distances,
    min_samples: int,
    alpha: float,
    rows_per_block: int,
    each: Each,
    progress: Progress,
) -> _Reach:
    n_points = distances.n_points
    n_kept = min(KEPT, n_points)
    near = np.empty((n_points, n_kept), dtype=np.int32)
    weight = np.empty((n_points, n_kept), dtype=np.float32)
    core = np.empty(n_points, dtype=np.float32)

    def fill(rows: slice) -> None:
        block = distances.block(rows, slice(0, n_points))
        smallest(block, weight[rows], near[rows])
        if min_samples <= n_kept:
            core[rows] = weight[rows, min_samples - 1]
        else:
            core[rows] = nth_smallest(block, min_samples)

    starts = range(0, n_points, rows_per_block)
    blocks = [slice(at, min(at + rows_per_block, n_points)) for at in starts]
    for start in range(0, len(blocks), _BLOCKS_PER_WAVE):
        each(fill, blocks[start : start + _BLOCKS_PER_WAVE])
        progress(_PASS_SHARE * min(1.0, (start + _BLOCKS_PER_WAVE) / len(blocks)))

    return _reach(distances, near, weight, core, alpha)


def _reach(
    distances: Distances,
    near: NDArray[np.int32],
    weight: NDArray[np.float32],
    core: NDArray[np.float32],
    alpha: float,
) -> _Reach:
    """Turn neighbours' distances, in place, into mutual reachabilities."""
    n_points, n_kept = near.shape
    weight /= distances.divisor(alpha)
    bound = np.full(n_points, np.inf, dtype=np.float32)
    if n_kept < n_points:
        bound = np.maximum(core, weight[:, -1])
    np.maximum(weight, core[:, None], out=weight)
    np.maximum(weight, core[near], out=weight)
    return _Reach(core, near, weight, bound)


def _ties(reach: _Reach) -> _Edges:
    """Give the known edges that weigh a core distance of one of their ends."""
    tied = reach.weight == np.maximum(reach.core[:, None], reach.core[reach.near])
    left, at = np.nonzero(tied)
    return _Edges(left, reach.near[left, at].astype(np.int64), reach.weight[left, at])


class _Search:
    """Finds the lightest edge out of each component, remembering what it learnt."""

    def __init__(
        self,
        distances: Distances,
        reach: _Reach,
        alpha: float,
        rows_per_block: int,
        each: Each,
        lost_rows: int | None = None,
    ) -> None:
        self.distances = distances
        self.reach = reach
        self._lost_rows = lost_rows
        self._divisor = distances.divisor(alpha)
        self._rows_per_block = rows_per_block
        self._each = each
        # The nearest point outside its component that a search found, itself where none did.
        self._found = np.arange(distances.n_points)
        self._found_weight = np.full(distances.n_points, np.inf, dtype=np.float32)

    def lightest_edges(self, component: NDArray[np.int64], n_components: int) -> _Edges:
        """Give the lightest edge out of every component but the largest."""
        right, weight = self._known_edges(component)
        left = np.full(n_components, -1)
        _lightest_of_components(component, weight, left)
        best = _Edges(left, right[left], weight[left])

        largest = int(np.bincount(component).argmax())
        for rows in self._open_rows(component, largest, best):
            self._search(rows, component)
            for row in rows[self._found_weight[rows] < best.weight[component[rows]]]:
                at = component[row]
                if self._found_weight[row] < best.weight[at]:
                    best.left[at], best.right[at] = row, self._found[row]
                    best.weight[at] = self._found_weight[row]
        smaller = np.arange(n_components) != largest
        return _Edges(best.left[smaller], best.right[smaller], best.weight[smaller])

    def _known_edges(
        self, component: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        reach = self.reach
        right, weight = np.empty(len(component), np.int64), np.empty(len(component), np.float32)
        _lightest_outward(component, reach.near, reach.weight, right, weight)
        found = (component[self._found] != component) & (self._found_weight < weight)
        right[found], weight[found] = self._found[found], self._found_weight[found]
        return right, weight

    def _open_rows(
        self, component: NDArray[np.int64], largest: int, best: _Edges
    ) -> Iterator[NDArray[np.int64]]:
        """Give waves of points that may have a lighter edge than the best known by then."""
        bound = self.reach.bound
        rows = np.flatnonzero((component != largest) & (bound < best.weight[component]))
        rows = rows[np.argsort(bound[rows], kind="stable")]
        if self._lost_rows is not None:
            rows = _first_of_lost(rows, component, best, self._lost_rows)
        per_wave = self._rows_per_block * _BLOCKS_PER_WAVE
        while rows.size:
            yield rows[:per_wave]
            rows = rows[per_wave:]
            rows = rows[bound[rows] < best.weight[component[rows]]]

    def _search(self, rows: NDArray[np.int64], component: NDArray[np.int64]) -> None:
        """Find the nearest point outside the component, for each of `rows`."""
        n_points, core = self.distances.n_points, self.reach.core

        def find(rows: NDArray[np.int64]) -> None:
            nearest, least = rows.copy(), np.full(len(rows), np.inf, dtype=np.float32)
            for columns in row_blocks(n_points, 4 * len(rows)):
                block = self.distances.block(rows, columns)
                block /= self._divisor
                _keep_outward(block, rows, columns.start, component, core, nearest, least)
            self._found[rows], self._found_weight[rows] = nearest, least

        starts = range(0, len(rows), SEARCHED_TOGETHER)
        self._each(find, [rows[at : at + SEARCHED_TOGETHER] for at in starts])
        bound = self.reach.bound
        bound[rows] = np.maximum(bound[rows], self._found_weight[rows])


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
    rows: NDArray[np.int64], component: NDArray[np.int64], best: _Edges, n_rows: int
) -> NDArray[np.int64]:
    """Keep the first few rows of each component that knows no way out, `n_rows` of all."""
    rows = rows[np.isinf(best.weight[component[rows]])]
    of_lost = component[rows]
    by_component = np.argsort(of_lost, kind="stable")
    starts = np.flatnonzero(np.diff(of_lost[by_component], prepend=-1))
    place = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    each_may = max(1, n_rows // max(1, len(starts)))
    return rows[np.sort(by_component[place < each_may])]


def _join(
    edges: _Edges, component: NDArray[np.int64], n_components: int
) -> tuple[_Edges, NDArray[np.int64]]:
    """Join components, leaving out edges between what is joined already.

    Two components often choose the same edge; among edges of one weight, more of them can close
    a ring.
    """
    parent = list(range(n_components))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    keep = []
    order = np.argsort(edges.weight, kind="stable")
    ends = zip(
        order.tolist(),
        component[edges.left[order]].tolist(),
        component[edges.right[order]].tolist(),
        strict=True,
    )
    for edge, left, right in ends:
        left, right = root(left), root(right)
        if left != right:
            parent[left] = right
            keep.append(edge)
    roots = np.array([root(at) for at in range(n_components)])
    renumbered = np.unique(roots, return_inverse=True)[1]
    kept = _Edges(edges.left[keep], edges.right[keep], edges.weight[keep])
    return kept, renumbered[component]
