"""A condensed tree as bars: one for each cluster, its children side by side below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADROOM = 1.05
"""How far a cluster of equal documents, which never splits, reaches below the lowest other."""


def tree_bars(tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, list[Any]]:
    """Lay out the clusters of a tree's outline.

    Returns
    -------
    dict
        Parallel lists: `left` and `width` in documents, `top` and `bottom` in lambda, `size`,
        and `label`, the name of the group that the cluster was selected as, or None.
    """
    parents = [int(parent) for parent in tree["parent"]]
    sizes = [int(size) for size in tree["size"]]
    ends = [value for value in (*tree["birth"], *tree["death"]) if value is not None]
    deepest = max(ends, default=0.0) * HEADROOM or 1.0
    taken = [0] * len(parents)
    left = [0] * len(parents)
    for cluster, parent in enumerate(parents[1:], start=1):  # A parent stands before its children.
        left[cluster] = left[parent] + taken[parent]
        taken[parent] += sizes[cluster]
    return {
        "left": left,
        "width": sizes,
        "top": [deepest if value is None else value for value in tree["birth"]],
        "bottom": [deepest if value is None else value for value in tree["death"]],
        "size": sizes,
        "label": [None if name is None else names.get(name, name) for name in tree["group"]],
    }
