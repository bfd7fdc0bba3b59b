"""What a clustering gives back, and the one door to all methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu.params import NOISE

Array = Any
"""A NumPy array (host) or a CuPy array (device); type checkers know only the first."""


Progress = Callable[[float], None]
"""Told the share of a fit that is done, 0 to 1, from the computing thread."""


@dataclass(frozen=True)
class Clustering:
    """Groups of points.

    Attributes
    ----------
    labels : array of shape (n_points,), int32
        Group of each point, 0 the largest group; `NOISE` for none. NumPy.
    strength : array of shape (n_points,), float32, or None
        How firmly each point belongs to its group, 0 to 1; None where the method has no such
        notion. NumPy.
    n_clusters : int
        Number of groups, noise not counted.
    effective_params : dict
        What was used, with every default and share filled in.
    device : {"gpu", "cpu"}
        Where the fit ran.
    notes : list of str
        What the caller should know, in plain words: fallbacks, odd input.
    details : dict
        Figures of the method's own, such as ``inertia`` and ``n_iter``.
    """

    labels: Array
    strength: Array | None
    n_clusters: int
    effective_params: dict[str, Any]
    device: str
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def renumber_by_size(labels: Array) -> tuple[Array, Array]:
    """Number the groups by size, the largest first; ties by their first member.

    Parameters
    ----------
    labels : array of shape (n_points,), int
        Any non-negative numbers, gaps allowed; `NOISE` for none. NumPy.

    Returns
    -------
    labels : array of shape (n_points,), int32
        0 to n_groups - 1, and `NOISE` where it was.
    order : array of shape (n_groups,), int64
        The old number of each new one, to reorder what belongs to the groups.
    """
    labels = np.asarray(labels)
    grouped = labels != NOISE
    old, first, counts = np.unique(labels[grouped], return_index=True, return_counts=True)
    by_size = np.lexsort((first, -counts))
    order = old[by_size].astype(np.int64)

    renumbered = np.full(len(labels), NOISE, dtype=np.int32)
    new_of_old = np.empty(len(old), dtype=np.int32)
    new_of_old[by_size] = np.arange(len(old), dtype=np.int32)
    renumbered[grouped] = new_of_old[np.searchsorted(old, labels[grouped])]
    return renumbered, order
