"""How good a run's groups are, and what its report shows of how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu import metrics
from gpu.clustering import Clustering, renumber_by_size
from gpu.elbow import elbow
from gpu.params import NOISE
from server.jobs.stages.spaces import Space
from server.jobs.stages.work import Array, Partition, Work
from server.results.groups import Group

NO_MEANS = (
    "quality metrics davies_bouldin and calinski_harabasz are left out: they are defined on "
    "means, which are not the centres of groups by Manhattan distance"
)


@dataclass(frozen=True)
class Measured:
    """How good the groups of a partition are, and what pictures show of them."""

    quality: dict[str, Any]
    figures: dict[str, Any]


def measure(work: Work, partition: Partition, space: Space | None) -> Measured:
    """Measure groups in the space they were found in; None for groups by attributes."""
    if space is None:
        return Measured(partition.quality, partition.figures)
    quality, figures = _measure_in(work, space, partition.labels, partition.groups)
    return Measured({**partition.quality, **quality}, {**figures, **partition.figures})


def _measure_in(
    work: Work, space: Space, labels: NDArray[np.int32], groups: Sequence[Group]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give what tells how good groups are, and what a picture shows of it."""
    if space.metric == "manhattan" and NO_MEANS not in work.warnings:
        work.warnings.append(NO_MEANS)
    gapless, order = renumber_by_size(labels)
    found: dict[str, Any] = {**metrics.quality(space.vectors, gapless, metric=space.metric)}
    profile = [
        {
            "cluster_id": groups[order[row["group"]]].cluster_id,
            "n_points": row["n_points"],
            "quantiles": row["quantiles"],
        }
        for row in found.pop("silhouette_profile")
    ]
    return found, {"silhouette_profile": profile}


def method_figures(
    method: str, found: Clustering, points: Array, metric: str, ids: Sequence[str | None]
) -> dict[str, Any]:
    """Give what a method itself can show: the condensed tree of HDBSCAN, the elbow of k-means.

    Also where auto chose them.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
        What was clustered.
    ids : sequence of str or None
        What each group of the fit is called; None for one that is gone.
    """
    figures: dict[str, Any] = {}
    if (tree := found.details.get("condensed_tree")) is not None:
        groups = [None if group == NOISE else ids[group] for group in tree["group"]]
        figures["condensed_tree"] = {**tree, "group": groups}
    if (curve := found.details.get("elbow")) is not None:
        figures["elbow"] = curve  # Of what auto clustered by k-means.
    elif method == "kmeans":
        n_clusters = int(found.effective_params["n_clusters"])
        seed = int(found.effective_params["random_state"])
        figures["elbow"] = elbow(points, n_clusters, metric=metric, seed=seed)
    return figures
