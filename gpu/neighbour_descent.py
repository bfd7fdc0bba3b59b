"""Neighbours made better by what they know of each other, as in NN-descent.

Who is near to one of two near points is likely near to the other. Each point becomes a neighbour
of those that it found near, and is compared with the neighbours of its neighbours.

References
----------
Dong, Moses and Li (2011), doi:10.1145/1963405.1963487 (NN-descent).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.compiled import compiled
from gpu.parallel import Each
from gpu.smallest import insert

ROUNDS = 1
"""Times that points learn from their neighbours."""

_ASKED = 8
"""Neighbours that are asked for as many of theirs."""

_PARTS = 8


def descend(
    vectors: NDArray[np.float32],
    unit: float,
    order: NDArray[np.int64],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    each: Each,
) -> None:
    """Compute the distances to candidates, and look for nearer ones among their neighbours.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
    unit : float
        What squared distances are multiplied by.
    order : array of shape (n_points,), int64
        All points, near ones close together: so they are met while they are in the cache.
    near : array of shape (n_points, n_kept), int32
        Candidates, the point itself first. Sorted, nearest first, and improved.
    values : array of shape (n_points, n_kept), float32
        Filled with squared distances, times `unit`.
    each : Each
    """
    factor = np.float32(unit)
    parts = np.linspace(0, len(vectors), _PARTS + 1).astype(np.int64)
    each(partial(_measure, vectors, factor, order, near, values, parts), range(_PARTS))
    for _ in range(ROUNDS):  # Without names for them, copies are let go after each step.
        each(partial(_mirror, near.copy(), values.copy(), near, values, parts), range(_PARTS))
        refine = partial(_refine, vectors, factor, order)
        each(partial(refine, near.copy(), near, values, parts), range(_PARTS))


@compiled
def _measure(
    vectors: NDArray[np.float32],
    unit: Any,
    order: NDArray[np.int64],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    parts: NDArray[np.int64],
    part: int,
) -> None:
    """Replace estimates of one part by distances from differences, and sort anew."""
    for place in range(parts[part], parts[part + 1]):
        row = order[place]
        kept, found, vector = near[row], values[row], vectors[row]
        for at in range(1, len(kept)):
            other = kept[at]
            value = _squared(vector, vectors[other]) * unit
            insert(found[: at + 1], kept[: at + 1], value, other)


@compiled
def _squared(left: NDArray[np.float32], right: NDArray[np.float32]) -> Any:
    total = np.float32(0)
    for dim in range(len(left)):
        apart = left[dim] - right[dim]
        total += apart * apart
    return total


@compiled
def _holds(names: NDArray[np.int32], name: Any) -> Any:
    is_there = False
    for place in range(len(names)):  # All of them: vector instructions are faster than a way out.
        is_there |= names[place] == name
    return is_there


@compiled
def _mirror(
    known: NDArray[np.int32],
    lengths: NDArray[np.float32],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    parts: NDArray[np.int64],
    part: int,
) -> None:
    """Make points neighbours of their neighbours in one part, where they are among the nearest."""
    n_kept = near.shape[1]
    for row in range(len(known)):
        for at in range(n_kept):
            other, value = known[row, at], lengths[row, at]
            if other < parts[part] or other >= parts[part + 1]:
                continue
            kept, found = near[other], values[other]
            if value < found[n_kept - 1] and not _holds(kept, row):
                insert(found, kept, value, row)


@compiled
def _refine(
    vectors: NDArray[np.float32],
    unit: Any,
    order: NDArray[np.int64],
    known: NDArray[np.int32],
    near: NDArray[np.int32],
    values: NDArray[np.float32],
    parts: NDArray[np.int64],
    part: int,
) -> None:
    """Compare the points of one part with the neighbours of their neighbours."""
    n_kept = near.shape[1]
    asked = np.full(_ASKED * _ASKED, -1, dtype=np.int32)
    for place in range(parts[part], parts[part + 1]):
        row = order[place]
        kept, found, vector = near[row], values[row], vectors[row]
        n_asked = 0
        for first in range(1, min(_ASKED + 1, n_kept)):
            for second in range(1, min(_ASKED + 1, n_kept)):
                other = known[known[row, first], second]
                if other == row or _holds(asked[:n_asked], other):
                    continue
                asked[n_asked] = other
                n_asked += 1
                if _holds(kept, other):
                    continue
                value = _squared(vector, vectors[other]) * unit
                if value < found[n_kept - 1]:
                    insert(found, kept, value, other)
