"""Put the edges of a spanning tree into the order in which Prim's algorithm adds them.

Mutual reachability is full of ties: all edges inside a point's neighbourhood weigh its core
distance. Which of them comes first decides where the hierarchy splits, so trees of the very same
weights can give groups that agree to 0.97 only (adjusted Rand index). Walking every tree in one
order, that of scikit-learn, makes the groups the same whichever way the tree was found: start at
point 0, always add the nearest point outside, of several the one with the lowest number.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray


def prim_order(
    n_points: int, left: NDArray[np.int64], right: NDArray[np.int64], weight: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Order the points of a sparse graph that contains a minimum spanning tree.

    Parameters
    ----------
    n_points : int
    left, right : array of shape (n_edges,), int64
        Ends of the edges: those of the tree, and any that tie with one of them. Repetitions do
        no harm; the lightest counts.
    weight : array of shape (n_edges,), float32

    Returns
    -------
    order : array of shape (n_points,), int64
        Points as they are added, 0 first.
    joined_at : array of shape (n_points - 1,), float32
        Weight at which each but the first is added.
    """
    tails = np.concatenate([left, right]).astype(np.int32)
    by_tail = np.argsort(tails, kind="stable")
    starts = np.searchsorted(tails[by_tail], np.arange(n_points + 1)).tolist()
    heads = np.concatenate([right, left]).astype(np.int32)[by_tail]
    weights = np.concatenate([weight, weight])[by_tail]

    lightest = [float("inf")] * n_points
    is_added = [False] * n_points
    order, joined_at = [], []
    ahead: list[tuple[float, int]] = [(0.0, 0)]
    while ahead:
        reached_at, point = heapq.heappop(ahead)
        if is_added[point]:
            continue
        is_added[point] = True
        order.append(point)
        joined_at.append(reached_at)
        edges = slice(starts[point], starts[point + 1])
        for head, reached in zip(heads[edges].tolist(), weights[edges].tolist(), strict=True):
            if not is_added[head] and reached < lightest[head]:
                lightest[head] = reached
                heapq.heappush(ahead, (reached, head))
    return np.array(order, dtype=np.int64), np.array(joined_at[1:], dtype=np.float32)
