"""From a minimum spanning tree to groups: the selection step of HDBSCAN.

The hierarchy and its condensation come from the compiled functions that scikit-learn's HDBSCAN is
made of. Its selection is done again here by the same rules, since scikit-learn 1.9 fails under
NumPy 2.4 for most values of ``cluster_selection_epsilon`` (a one-element array is no number any
more), and takes time that grows with the square of the number of candidate groups. The functions
are private there; `tests/gpu` compare with scikit-learn's public results, so a release that
changes them does not pass unseen.

A *cluster* here is a node of the condensed tree, whether it is selected or not; lambda is
1 / distance. Clusters are numbered from the root down, children after their parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from gpu.params import NOISE, HdbscanParams
from gpu.spanning_tree import SpanningTree

ROOT = 0

OUTLINED_CLUSTERS = 300
"""Most clusters of an outline; more would not be told apart in a picture."""


@dataclass(frozen=True)
class CondensedTree:
    """The hierarchy without splits that leave fewer than `min_cluster_size` points on a side.

    Attributes
    ----------
    parent : array of shape (n_clusters,), int64
        Parent of each cluster; the root's is the root.
    birth : array of shape (n_clusters,), float64
        Lambda at which it splits off its parent; 0 for the root.
    size : array of shape (n_clusters,), int64
        Points at birth; for the root those of the clusters it splits into.
    stability : array of shape (n_clusters,), float64
        Sum over its points of the span of lambda that they spend in it.
    death : array of shape (n_clusters,), float64
        Largest lambda at which something leaves it.
    point_cluster : array of shape (n_points,), int64
        The smallest cluster that each point is in.
    point_lambda : array of shape (n_points,), float64
        Where the point leaves that cluster.
    """

    parent: NDArray[np.int64]
    birth: NDArray[np.float64]
    size: NDArray[np.int64]
    stability: NDArray[np.float64]
    death: NDArray[np.float64]
    point_cluster: NDArray[np.int64]
    point_lambda: NDArray[np.float64]


def select_groups(
    condensed: CondensedTree, params: HdbscanParams
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cut the hierarchy of a condensed tree into groups.

    Parameters
    ----------
    condensed : CondensedTree
        Of a spanning tree with at least one edge.
    params : HdbscanParams
        Resolved for the number of points.

    Returns
    -------
    labels : array of shape (n_points,), int64
        The cluster that each point is in; `NOISE` for points in no group.
    strength : array of shape (n_points,), float64
        0 to 1, 0 for noise.
    """
    if params.cluster_selection_method == "leaf":
        selected = _leaves(condensed)
    else:
        selected = _most_stable(condensed, params.allow_single_cluster, params.max_cluster_size)
    if params.cluster_selection_epsilon and not selected[ROOT]:
        selected = _merged_below(
            condensed, selected, params.cluster_selection_epsilon, params.allow_single_cluster
        )
    labels = _labels(condensed, selected, params.cluster_selection_epsilon)
    return labels, _strength(condensed, labels)


def condense(tree: SpanningTree, min_cluster_size: int) -> CondensedTree:
    """Build the condensed tree of a spanning tree."""
    # scikit-learn takes a second to import, and a GPU fit does not need it.
    from sklearn.cluster._hdbscan._linkage import MST_edge_dtype, make_single_linkage
    from sklearn.cluster._hdbscan._tree import _condense_tree

    by_weight = np.argsort(tree.weight)
    edges = np.empty(len(by_weight), dtype=MST_edge_dtype)
    edges["current_node"] = tree.left[by_weight]
    edges["next_node"] = tree.right[by_weight]
    edges["distance"] = tree.weight[by_weight]
    rows = _condense_tree(make_single_linkage(edges), min_cluster_size)
    return from_rows(
        len(edges) + 1, rows["parent"], rows["child"], rows["value"], rows["cluster_size"]
    )


def from_rows(
    n_points: int,
    parents: NDArray[np.int64],
    children: NDArray[np.int64],
    row_lambda: NDArray[np.float64],
    row_size: NDArray[np.int64],
) -> CondensedTree:
    """Build the tree from one row for each child: a point or, numbered after them, a cluster."""
    row_parent = parents - n_points
    is_point = children < n_points
    cluster = children[~is_point] - n_points
    n_clusters = 1 + len(cluster)

    parent = np.zeros(n_clusters, dtype=np.int64)
    birth = np.zeros(n_clusters)
    size = np.zeros(n_clusters, dtype=np.int64)
    parent[cluster], birth[cluster] = row_parent[~is_point], row_lambda[~is_point]
    size[cluster] = row_size[~is_point]
    size[ROOT] = row_size[~is_point & (row_parent == ROOT)].sum()
    with np.errstate(invalid="ignore"):  # Both infinite among duplicates: no number, never stabler.
        spans = (row_lambda - birth[row_parent]) * row_size
    stability: NDArray[np.float64] = np.bincount(row_parent, spans, n_clusters).astype(np.float64)
    death = np.zeros(n_clusters)
    np.maximum.at(death, row_parent, row_lambda)

    point_cluster = np.empty(n_points, dtype=np.int64)
    point_lambda = np.empty(n_points)
    point_cluster[children[is_point]] = row_parent[is_point]
    point_lambda[children[is_point]] = row_lambda[is_point]
    return CondensedTree(
        parent=parent,
        birth=birth,
        size=size,
        stability=stability,
        death=death,
        point_cluster=point_cluster,
        point_lambda=point_lambda,
    )


def selected_as(
    condensed: CondensedTree, labels: NDArray[np.int32], params: HdbscanParams
) -> NDArray[np.int64]:
    """Find the cluster that each group of another's selection stands for, by common points."""
    chosen, _ = select_groups(condensed, params)
    return np.array(
        [
            np.bincount(np.maximum(chosen[labels == group], ROOT)).argmax()
            for group in range(int(labels.max(initial=NOISE)) + 1)
        ],
        dtype=np.int64,
    )


class Outline(TypedDict):
    """The largest clusters of a condensed tree, the root first, for a picture.

    parent : position of the parent in these lists; of the root its own
    birth, death : lambda at which it splits off and at which its last part leaves; None: infinite
    size : points at birth
    group : number of the group that it was selected as, or -1
    n_clusters : clusters of the whole tree
    """

    parent: list[int]
    birth: list[float | None]
    death: list[float | None]
    size: list[int]
    group: list[int]
    n_clusters: int


def outline(condensed: CondensedTree, selected: NDArray[np.int64]) -> Outline:
    """Draw the outline of a tree; `selected` has the cluster that each group was selected as."""
    # No cluster is larger than its parent, so the largest ones are a tree, too.
    size = condensed.size.copy()
    size[ROOT] = len(condensed.point_cluster)
    kept = np.sort(np.argsort(-size, kind="stable")[:OUTLINED_CLUSTERS])
    position = np.zeros(len(size), dtype=np.int64)
    position[kept] = np.arange(len(kept))
    group = np.full(len(size), NOISE, dtype=np.int64)
    group[selected] = np.arange(len(selected))
    return Outline(
        parent=position[condensed.parent[kept]].tolist(),
        birth=_finite(condensed.birth[kept]),
        death=_finite(condensed.death[kept]),
        size=size[kept].tolist(),
        group=group[kept].tolist(),
        n_clusters=len(size),
    )


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _leaves(condensed: CondensedTree) -> NDArray[np.bool_]:
    selected = np.ones(len(condensed.parent), dtype=bool)
    selected[condensed.parent] = False  # The root too, being its own parent.
    return selected


def _most_stable(
    condensed: CondensedTree, allow_single_cluster: bool, max_cluster_size: int | None
) -> NDArray[np.bool_]:
    """Select the clusters that are at least as stable as what they split into (eom)."""
    parent, size = condensed.parent.tolist(), condensed.size.tolist()
    stability = condensed.stability.tolist()
    n_clusters = len(parent)
    below = [0.0] * n_clusters
    selected = [False] * n_clusters
    last = ROOT if allow_single_cluster else ROOT + 1
    for cluster in range(n_clusters - 1, last - 1, -1):
        is_too_large = max_cluster_size is not None and size[cluster] > max_cluster_size
        if below[cluster] > stability[cluster] or is_too_large:
            stability[cluster] = below[cluster]
        else:
            selected[cluster] = True
        if cluster != ROOT:
            below[parent[cluster]] += stability[cluster]

    is_inside = [False] * n_clusters
    for cluster in range(1, n_clusters):
        above = parent[cluster]
        is_inside[cluster] = is_inside[above] or selected[above]
    outermost: NDArray[np.bool_] = np.array(selected) & ~np.array(is_inside)
    return outermost


def _merged_below(
    condensed: CondensedTree,
    selected: NDArray[np.bool_],
    epsilon: float,
    allow_single_cluster: bool,
) -> NDArray[np.bool_]:
    """Replace clusters that split off below `epsilon` by the ancestor that did not."""
    parent = condensed.parent.tolist()
    merged = np.zeros(len(parent), dtype=bool)

    def is_covered(cluster: int) -> bool:
        while cluster != ROOT:
            cluster = parent[cluster]
            if merged[cluster] and not selected[cluster]:
                return True
        return False

    for cluster in np.flatnonzero(selected).tolist():
        is_close = condensed.birth[cluster] * epsilon > 1
        if not is_close or not is_covered(cluster):
            merged[_ancestor_at(condensed, cluster, epsilon, allow_single_cluster)] = True
    return merged


def _ancestor_at(
    condensed: CondensedTree, cluster: int, epsilon: float, allow_single_cluster: bool
) -> int:
    while condensed.birth[cluster] * epsilon > 1:
        above = int(condensed.parent[cluster])
        if above == ROOT:
            return ROOT if allow_single_cluster else cluster
        cluster = above
    return cluster


def _labels(
    condensed: CondensedTree, selected: NDArray[np.bool_], epsilon: float
) -> NDArray[np.int64]:
    """Give each point the nearest selected cluster around it."""
    group = [NOISE] * len(selected)
    for cluster in range(1, len(selected)):
        above = group[condensed.parent[cluster]]
        group[cluster] = cluster if selected[cluster] else above
    labels = np.array(group, dtype=np.int64)[condensed.point_cluster]
    if selected[ROOT] and selected.sum() == 1:
        # Everything is one group, but for the points that leave it early.
        least = 1 / epsilon if epsilon else condensed.death[ROOT]
        labels[condensed.point_lambda >= least] = ROOT
    return labels


def _strength(condensed: CondensedTree, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    death = condensed.death[labels]
    is_certain = (death == 0) | np.isinf(condensed.point_lambda)
    least = np.minimum(condensed.point_lambda, death)
    strength = np.divide(least, death, out=np.ones(len(labels)), where=~is_certain)
    strength[labels == NOISE] = 0
    return strength
