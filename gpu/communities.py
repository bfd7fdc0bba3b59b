"""Groups of points that stay together: communities of neighbour graphs, made firm by agreement.

For data whose groups overlap and have no gaps between them, as sentence embeddings. One community
search on one graph gives groups of which a part is accident. So:

1. rows are projected on the principal components that hold about half of the variance, and on
   some fewer and some more: the rest is mostly noise to the order of neighbours;
2. in each projection the graphs of nearest neighbours, at two sizes, are cut into communities at
   six resolutions: 36 partitions;
3. neighbours are joined by the share of partitions that keep them together, and the communities
   of that graph are a first grouping. How much a point's neighbours in its group agree is its
   strength;
4. the firm points train a linear discriminant: directions in which groups differ count more than
   those in which their members do. Steps 2 and 3 are done again in its space, at 12 partitions,
   where neighbours are of one group more often: these communities are the groups;
5. a discriminant of them gives every point a likelihood of each group, its neighbours vote, and
   the product of both decides its nearest group, as in a hidden Markov random field;
6. strength is measured over the 36 partitions of step 2, which knew no groups: the partitions of
   the discriminant's space confirm the groups that it was trained on.

References
----------
Lancichinetti and Fortunato (2012), doi:10.1038/srep00336 (consensus).
Ding and Li (2007), doi:10.1145/1273496.1273562 (groups and their discriminants in turns).
Ledoit and Wolf (2004), doi:10.1016/S0047-259X(03)00096-4 (shrinkage of covariances).
Zhang, Brady and Smith (2001), doi:10.1109/42.906424 (hidden Markov random fields).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress
from gpu.params import NOISE
from gpu.partitions import (
    Partitions,
    louvain,
    partitions_of,
    partitions_of_projections,
    project,
)

Array = Any

VARIANCE_SHARES = (0.45, 0.55, 0.65)
"""Of the principal components kept, one projection each; the middle one holds the consensus."""

CONSENSUS_RESOLUTION = 0.5
"""The coarsest of `gpu.partitions.RESOLUTIONS`: what is apart at every resolution is apart here."""

FIRM = 0.5
"""Strength above which a point belongs to its group: more often together than not."""

_STARTS = 10
"""Times that a consensus is sought, as k-means has `n_init`: one search ends in a local optimum,
and which one decides whether two large groups are one."""

_ROUNDS = 2
"""Times that a discriminant is trained on what the one before it was sure of."""


@dataclass(frozen=True)
class Communities:
    """Groups, how firm they are, and a rule for more points.

    Attributes
    ----------
    labels : array of shape (n_points,), int64
        The nearest group of each point, firm or not.
    strength : array of shape (n_points,), float64
        0 to 1; above `FIRM` the point belongs to the group.
    n_components : list of int
        Of the projections.
    n_partitions : int
    rule : object or None
        A fitted discriminant with ``predict_proba``; None with fewer than two groups.
    """

    labels: NDArray[np.int64]
    strength: NDArray[np.float64]
    n_components: list[int]
    n_partitions: int
    rule: Any


def communities(
    points: Array, *, angular: bool, seed: int, tell: Progress, least_size: int
) -> Communities:
    """Find groups of points that stay together.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        NumPy; unit rows where `angular`. More than a few tens of thousands take long:
        neighbours are searched exhaustively.
    angular : bool
        Whether only directions count.
    seed : int
    tell : callable
        Told the share that is done.
    least_size : int
        Smaller groups are given to their neighbours by the discriminant.
    """
    projection = project(points)
    n_components = sorted({projection.n_components(share) for share in VARIANCE_SHARES})
    first = partitions_of_projections(
        projection, n_components, angular, seed, lambda share: tell(0.7 * share)
    )
    labels, strength = _consensus(first, seed)
    field = _settled(points, labels, strength, least_size)
    if field is None:
        kept = np.bincount(labels)[labels] >= least_size
        labels = np.where(kept, labels, NOISE)
        return Communities(labels, strength, n_components, len(first.found), None)
    space = field.rule.transform(points).astype(np.float32)
    second = partitions_of(space, angular=False, seed=seed)
    tell(0.9)
    field = _settled(points, *_consensus(second, seed), least_size, second) or field
    return Communities(
        field.labels,
        _strength(field.labels, first),
        n_components,
        len(first.found) + len(second.found),
        field.rule,
    )


def firmness(scores: Array, *, angular: bool, seed: int) -> float:
    """Give the share of points that stay with their neighbours, in partitions of all `scores`."""
    partitions = partitions_of(scores, angular=angular, seed=seed)
    _, strength = _consensus(partitions, seed)
    return float((strength > FIRM).mean())


def _consensus(partitions: Partitions, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cut the graph of agreement from several starts, and keep the cut of the most modularity."""
    from sknetwork.clustering import get_modularity

    graph = partitions.graph()
    cuts = [louvain(graph, CONSENSUS_RESOLUTION, seed + start) for start in range(_STARTS)]
    kept = max(cuts, key=lambda cut: get_modularity(graph, cut, resolution=CONSENSUS_RESOLUTION))
    return kept, _strength(kept, partitions)


def _strength(labels: NDArray[np.int64], partitions: Partitions) -> NDArray[np.float64]:
    """Tell how much the neighbours of each point agree that it belongs to its group."""
    own = labels[partitions.neighbors] == labels[:, None]
    return np.asarray((own * partitions.together).mean(axis=1))


class _Field(NamedTuple):
    """Groups by a discriminant, and by the neighbours where they vote."""

    labels: NDArray[np.int64]
    rule: Any


def _settled(
    points: Array,
    labels: NDArray[np.int64],
    strength: NDArray[np.float64],
    least_size: int,
    voters: Partitions | None = None,
) -> _Field | None:
    """Train discriminants in turns with the groups; None where there are fewer than two."""
    firm = (np.bincount(labels)[labels] >= least_size) & (strength > FIRM)
    votes = None if voters is None else _averaging(voters.graph())
    field = None
    for _ in range(_ROUNDS):
        # One point alone has no spread to tell.
        firm &= np.bincount(labels[firm], minlength=labels.max() + 1)[labels] > 1
        if len(np.unique(labels[firm])) < 2:
            break
        rule = _discriminant(points[firm], labels[firm])
        shares = rule.predict_proba(points)
        if votes is not None:
            shares = shares * np.maximum(votes @ shares, 1e-12)
            shares /= shares.sum(axis=1, keepdims=True)
        labels = rule.classes_[shares.argmax(axis=1)]
        firm = strength * shares.max(axis=1) > FIRM
        field = _Field(labels, rule)
    return field


def _averaging(graph: Any) -> Any:
    """Scale the rows of a graph to sum 1: its product with values averages the neighbours'."""
    from scipy.sparse import diags_array

    return diags_array(1 / np.asarray(graph.sum(axis=1)).ravel()) @ graph


def _discriminant(points: Array, labels: Array) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    # In float64: what noise the shrinkage adds to a flat direction is below float32's digits.
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    return model.fit(points.astype(np.float64), labels)
