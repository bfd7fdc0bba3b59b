"""Minimum spanning tree of mutual reachability where the matrix of distances does not fit.

Borůvka's algorithm in rounds: every component but the largest joins along its lightest edge to
any other, so the number of components at least halves. Leaving out the largest keeps the tree
minimal (the lightest edge out of any one component is in some minimum spanning tree) and spares
the points that have the longest way out.

One pass over all distances (`gpu.all_pairs`) keeps each point's nearest neighbours and its core
distance. What lies outside that list is no nearer than its end: a lower bound, which settles most
edges. What else may have a lighter edge is searched (`gpu.outward_search`). No edge is guessed:
the tree is as exact as that of `gpu.spanning_tree`, which says what is minimised. With
approximate neighbours (`gpu.approximate_neighbours`) the same rounds give one that is nearly
minimal.

Memory: `KEPT` neighbours per point and one tile of distances per thread. Time: O(n**2) for the
pass, and a row of distances for each search.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpu.all_pairs import TILE, nearest_of_all
from gpu.approximate_neighbours import approximate_neighbours
from gpu.cell_neighbours import KEPT as KEPT_NEAR
from gpu.clustering import Progress
from gpu.outward_search import Edges, OutwardSearch, Reach
from gpu.parallel import Each
from gpu.smallest import nth_smallest
from gpu.spanning_tree import Distances, SpanningTree
from gpu.squared_distances import SquaredDistances, lengths
from gpu.tree_order import prim_order
from gpu.vectors import row_blocks

KEPT, MOST_KEPT = 32, 128
"""Nearest neighbours that the exact search keeps of each point: these, or `min_samples` of them up
to the second number; beyond, core distances take a pass of their own."""

BLOCK_BYTES = 16 << 20
"""Distances that one thread holds at a time; what is derived from them takes about twice that."""

_PASS_SHARE = 0.6


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
    reach = _nearest(distances, min_samples, alpha, block_bytes, each, progress)
    chosen = _joined(
        OutwardSearch(distances, reach, alpha, rows_per_block, each), n_points, progress
    )
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
    """Build a tree that is nearly minimal (neighbours by `gpu.approximate_neighbours`).

    Edges to known neighbours are taken without proof, and what may have a lighter one looks for it
    in the cells nearby.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite.
    min_samples, alpha, each, progress
        See `gpu.spanning_tree.dense_tree`.
    block_bytes : int
        Of distances that one thread holds at a time.
    """
    # What was searched in is let go before edges are put in order.
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
) -> tuple[list[Edges], float]:
    """Give edges that hold the tree, and the unit that their weights are squares in."""
    n_points = len(vectors)
    distances = SquaredDistances(vectors, each, keeps_centred=False)
    near, values, cells = approximate_neighbours(
        vectors,
        distances,
        min(n_points, max(KEPT_NEAR, 2 * min_samples)),
        each,
        lambda share: progress(_PASS_SHARE * share),
    )
    core = values[:, min_samples - 1].copy()
    reach = _reach(distances, near, values, core, alpha)
    rows_per_block = _rows_per_block(n_points, block_bytes)
    search = OutwardSearch(distances, reach, alpha, rows_per_block, each, cells)
    return [*_joined(search, n_points, progress), _ties(reach)], distances.scale


def _ordered(n_points: int, edges: list[Edges]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give points in the order they join the tree, and the weight each but the first joins with."""
    return prim_order(
        n_points,
        np.concatenate([part.left for part in edges]),
        np.concatenate([part.right for part in edges]),
        np.concatenate([part.weight for part in edges]),
    )


def _rows_per_block(n_points: int, block_bytes: int) -> int:
    return max(1, min(512, block_bytes // (4 * n_points)))


def _joined(search: OutwardSearch, n_points: int, progress: Progress) -> list[Edges]:
    """Join components until there is one; give the edges of each round."""
    component = np.arange(n_points)
    n_components = n_points
    chosen: list[Edges] = []
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
    block_bytes: int,
    each: Each,
    progress: Progress,
) -> Reach:
    n_points = distances.n_points
    n_kept = min(n_points, max(KEPT, min_samples if min_samples <= MOST_KEPT else 0))
    tile = max(1, min(TILE, math.isqrt(block_bytes // 4)))
    near, weight = nearest_of_all(
        distances, n_kept, each, lambda share: progress(_PASS_SHARE * share), tile
    )
    if min_samples <= n_kept:
        core = weight[:, min_samples - 1].copy()
    else:
        core = _core(distances, min_samples, _rows_per_block(n_points, block_bytes), each)
    return _reach(distances, near, weight, core, alpha)


def _core(
    distances: Distances, min_samples: int, rows_per_block: int, each: Each
) -> NDArray[np.float32]:
    core = np.empty(distances.n_points, dtype=np.float32)

    def fill(rows: slice) -> None:
        block = distances.block(rows, slice(0, distances.n_points))
        core[rows] = nth_smallest(block, min_samples)

    each(fill, row_blocks(distances.n_points, 1, rows_per_block))
    return core


def _reach(
    distances: Distances,
    near: NDArray[np.int32],
    weight: NDArray[np.float32],
    core: NDArray[np.float32],
    alpha: float,
) -> Reach:
    """Turn neighbours' distances, in place, into mutual reachabilities."""
    n_points, n_kept = near.shape
    weight /= distances.divisor(alpha)
    bound = np.full(n_points, np.inf, dtype=np.float32)
    if n_kept < n_points:
        bound = np.maximum(core, weight[:, -1])
    np.maximum(weight, core[:, None], out=weight)
    np.maximum(weight, core[near], out=weight)
    return Reach(core, near, weight, bound)


def _ties(reach: Reach) -> Edges:
    """Give the known edges that weigh a core distance of one of their ends."""
    tied = reach.weight == np.maximum(reach.core[:, None], reach.core[reach.near])
    left, at = np.nonzero(tied)
    return Edges(left, reach.near[left, at].astype(np.int64), reach.weight[left, at])


def _join(
    edges: Edges, component: NDArray[np.int64], n_components: int
) -> tuple[Edges, NDArray[np.int64]]:
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
    kept = Edges(edges.left[keep], edges.right[keep], edges.weight[keep])
    return kept, renumbered[component]
