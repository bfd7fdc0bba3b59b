"""From a minimum spanning tree to groups: the selection step of HDBSCAN.

Uses the compiled functions that scikit-learn's own HDBSCAN is made of, so groups and strengths
follow from the tree by exactly the same rules. They are private there; `tests/gpu` compare with
scikit-learn's public result, so a release that changes them does not pass unseen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu.params import HdbscanParams
from gpu.spanning_tree import SpanningTree


def select_groups(
    tree: SpanningTree, params: HdbscanParams
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cut the hierarchy of a spanning tree into groups.

    Parameters
    ----------
    tree : SpanningTree
        With at least one edge.
    params : HdbscanParams
        Resolved for the number of points.

    Returns
    -------
    labels : array of shape (n_points,), int64
        Any numbering; `NOISE` for points in no group.
    strength : array of shape (n_points,), float64
        0 to 1, 0 for noise.
    """
    # scikit-learn takes a second to import, and a GPU fit does not need it.
    from sklearn.cluster._hdbscan._linkage import MST_edge_dtype, make_single_linkage
    from sklearn.cluster._hdbscan._tree import tree_to_labels

    by_weight = np.argsort(tree.weight)
    edges = np.empty(len(by_weight), dtype=MST_edge_dtype)
    edges["current_node"] = tree.left[by_weight]
    edges["next_node"] = tree.right[by_weight]
    edges["distance"] = tree.weight[by_weight]
    labels, strength = tree_to_labels(
        make_single_linkage(edges),
        int(params.min_cluster_size),
        params.cluster_selection_method,
        params.allow_single_cluster,
        params.cluster_selection_epsilon,
        params.max_cluster_size,
    )
    return labels, strength
