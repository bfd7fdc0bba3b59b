"""Which groups of one clustering lie inside groups of another, found from shared members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from gpu.params import NOISE

Array = Any

MEMBERSHIP_OVERLAP = "membership_overlap"
RECLUSTERING = "reclustering"

BEYOND_CHANCE = 0.5
"""Least overlap above the one chance would give, as a share of what was left to reach."""


class Relation(TypedDict):
    """One row of ``hierarchy_relationships``.

    parent_cluster_id, child_cluster_id : ids of groups
    overlap : share of the child's members inside the parent, 0 to 1
    method : how it is known, ``membership_overlap`` or ``reclustering``
    """

    parent_cluster_id: str
    child_cluster_id: str
    overlap: float
    method: str


@dataclass(frozen=True)
class Overlaps:
    """Pairs of groups that share members.

    Attributes
    ----------
    parents, children : arrays of shape (n_pairs,), int64
        Group numbers of the first and of the second clustering, sorted by both.
    shared : array of shape (n_pairs,), int64
        Members in both; at least 1.
    overlaps : array of shape (n_pairs,), float64
        Share of the child's members inside the parent, noise of the first clustering included
        in what it is a share of.
    """

    parents: NDArray[np.int64]
    children: NDArray[np.int64]
    shared: NDArray[np.int64]
    overlaps: NDArray[np.float64]


def membership_overlap(labels_a: Array, labels_b: Array) -> Overlaps:
    """Count shared members of every pair of groups, without a Python step per point.

    Parameters
    ----------
    labels_a, labels_b : arrays of shape (n_points,), int
        Groups of the same points, `NOISE` for none: of parents and of children.
    """
    labels_a, labels_b = np.asarray(labels_a), np.asarray(labels_b)
    if labels_a.shape != labels_b.shape:
        raise ValueError(f"labels of {len(labels_a)} and of {len(labels_b)} points")
    sizes = np.bincount(labels_b[labels_b != NOISE])
    both = (labels_a != NOISE) & (labels_b != NOISE)
    keys = labels_a[both].astype(np.int64) * max(1, len(sizes)) + labels_b[both]
    pairs, shared = np.unique(keys, return_counts=True)
    parents, children = np.divmod(pairs, max(1, len(sizes)))
    return Overlaps(parents, children, shared, shared / sizes[children])


def relations(
    labels_by_feature: Mapping[str, Array],
    ids_by_feature: Mapping[str, Sequence[str]] | None = None,
    *,
    min_overlap: float = 0.8,
) -> list[Relation]:
    """Find the parents of groups among the groups of other features.

    Parameters
    ----------
    labels_by_feature : mapping of str to array of shape (n_points,), int
        One clustering of the same points per feature.
    ids_by_feature : mapping of str to sequence of str, or None
        The id of each group of each feature. None: group g of feature f is ``f.cl_g``.
    min_overlap : float
        Least share of a child's members inside its parent.

    Returns
    -------
    list of Relation
        Sorted by feature pair, then by group numbers. A parent is larger than its child; of two
        groups of one size that hold the same members the first feature's is the parent. A group
        that holds nearly everything is no parent of what it holds by chance alone.
    """

    def id_of(feature: str, group: int) -> str:
        return f"{feature}.cl_{group}" if ids_by_feature is None else ids_by_feature[feature][group]

    found: list[Relation] = []
    for first, second in combinations(labels_by_feature, 2):
        for parent, child, ties in ((first, second, True), (second, first, False)):
            pairs, kept = _between(
                np.asarray(labels_by_feature[parent]),
                np.asarray(labels_by_feature[child]),
                min_overlap,
                ties,
            )
            found += [
                Relation(
                    parent_cluster_id=id_of(parent, pairs.parents[i]),
                    child_cluster_id=id_of(child, pairs.children[i]),
                    overlap=float(pairs.overlaps[i]),
                    method=MEMBERSHIP_OVERLAP,
                )
                for i in np.flatnonzero(kept)
            ]
    return found


def _between(
    parent_labels: Array, child_labels: Array, min_overlap: float, ties: bool
) -> tuple[Overlaps, NDArray[np.bool_]]:
    """Give all pairs of groups that share members, and which of them are parent and child."""
    pairs = membership_overlap(parent_labels, child_labels)
    parent_sizes = np.bincount(parent_labels[parent_labels != NOISE])[pairs.parents]
    child_sizes = np.bincount(child_labels[child_labels != NOISE])[pairs.children]
    by_chance = parent_sizes / max(1, len(parent_labels))
    beyond = np.divide(
        pairs.overlaps - by_chance, 1 - by_chance, out=np.zeros(len(by_chance)), where=by_chance < 1
    )
    kept = (pairs.overlaps >= min_overlap) & (beyond >= BEYOND_CHANCE)
    kept &= (parent_sizes > child_sizes) | (ties & (parent_sizes == child_sizes))
    return pairs, kept
