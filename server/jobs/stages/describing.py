"""Groups as results show them: centroid, size, radius, and who lies in whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu import summary
from gpu.hierarchy import NO_PARENT, Hierarchy
from gpu.params import NOISE
from gpu.summary import Summary
from server.jobs.sources import group_prefix
from server.jobs.stages.spaces import Space
from server.jobs.stages.work import Work
from server.labeling.naming import fallback_label
from server.results.groups import Group


@dataclass(frozen=True)
class Described:
    """The groups of one space, and each document's distance to its own centroid."""

    groups: list[Group]
    distances: NDArray[np.float32]


def describe(
    work: Work, space: Space, labels: NDArray[np.int32], nested: Hierarchy | None
) -> Described:
    """Summarize every group; in a hierarchy each level by all documents below."""
    prefix = group_prefix(space.feature)
    if nested is None:
        flat = _summary(work, space, labels)
        ids = [f"{prefix}cl_{position}" for position in range(len(flat.sizes))]
        return Described(_groups(space, ids, [None] * len(ids), flat), flat.distances)
    distances = np.full(len(labels), np.nan, dtype=np.float32)
    groups: dict[int, Group] = {}
    paths = nested.paths()
    depth_of = np.append(nested.depths, 0)[labels]  # Noise picks the last one, 0.
    for depth in range(1, paths.shape[1] + 1):
        positions, at_level = np.unique(paths[:, depth - 1], return_inverse=True)
        positions = positions[positions != NOISE]
        has_noise = len(paths) and (paths[:, depth - 1] == NOISE).any()
        level_labels = (at_level - int(has_noise)).astype(np.int32)
        level = _summary(work, space, level_labels)
        ids = [prefix + nested.ids[position] for position in positions]
        parents = [nested.parents[position] for position in positions]
        named = [None if p == NO_PARENT else prefix + nested.ids[p] for p in parents]
        groups |= dict(zip(positions.tolist(), _groups(space, ids, named, level), strict=True))
        own = depth_of == depth
        distances[own] = level.distances[own]
    return Described([groups[position] for position in range(len(nested.ids))], distances)


def _summary(work: Work, space: Space, labels: NDArray[np.int32]) -> Summary:
    return summary.summarize(
        space.vectors,
        labels,
        metric=space.metric,
        centroid=work.config.effective_feature_method,
    )


def _groups(
    space: Space, ids: list[str], parents: list[str | None], described: Summary
) -> list[Group]:
    rows = zip(
        ids,
        parents,
        described.sizes,
        described.centroids,
        described.radii,
        described.cohesions,
        strict=True,
    )
    return [
        Group(
            cluster_id=cluster_id,
            label=fallback_label(position),
            member_count=int(size),
            parent_cluster_id=parent,
            centroid=centroid,
            radius=float(radius),
            cohesion=float(cohesion),
            feature_uri=None if space.feature is None else space.feature.name,
        )
        for position, (cluster_id, parent, size, centroid, radius, cohesion) in enumerate(rows)
    ]
