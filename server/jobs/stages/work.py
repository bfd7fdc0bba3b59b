"""What the stages of one run share, and what they hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from server.jobs.definition import VectorConfig
from server.jobs.sources import Feature, SourcePlan, group_prefix
from server.jobs.spec import RunSpec, StageClock
from server.labeling.representatives import members_by_distance
from server.results.artifacts import RunFolder
from server.results.groups import Group

Array = Any
"""A NumPy array (host) or a CuPy array (device)."""


@dataclass
class Work:
    """One run under way: its spec, its clock, its folder, and the warnings so far."""

    spec: RunSpec
    clock: StageClock
    folder: RunFolder
    client: QdrantClient
    plan: SourcePlan
    warnings: list[str] = field(default_factory=list)

    @property
    def config(self) -> VectorConfig:
        """How vectors are to be clustered."""
        return self.spec.definition.vector


@dataclass(frozen=True)
class Partition:
    """One set of groups over the documents: all there is, or that of one feature.

    Attributes
    ----------
    feature : Feature or None
        The feature whose groups these are; None where there is one set only.
    rows : array of shape (n_memberships,), int64
        The document of each membership. By vectors each document has one; by attributes it
        has one for each of its values.
    labels : array of shape (n_memberships,), int32
        Position in `groups` of the deepest group it is in, NOISE for none.
    groups : list of Group
        Those of the first level first; a parent stands before its children.
    distances, confidence : array of shape (n_memberships,), float32, or None
        To the own centroid; how firmly a member. None without vectors.
    algorithm, device, device_reason, effective_params
        How the groups were found.
    quality
        How good they are, as far as that needs no measuring.
    figures
        What the run's report draws of how they were found: see `server.jobs.stages.measuring`.
    n_dims, distance
        Of the centroids, for the output collection; None and empty without vectors.
    """

    feature: Feature | None
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    groups: list[Group]
    distances: NDArray[np.float32] | None
    confidence: NDArray[np.float32] | None
    algorithm: str
    device: str
    device_reason: str
    effective_params: dict[str, Any]
    n_dims: int | None
    distance: str
    quality: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What stands before the ids of these groups."""
        return group_prefix(self.feature)

    @property
    def n_leaves(self) -> int:
        """Groups without children."""
        parents = {group.parent_cluster_id for group in self.groups}
        return sum(group.cluster_id not in parents for group in self.groups)

    def members(self) -> list[NDArray[np.int64]]:
        """Give the documents of each group and of those below it, nearest first."""
        distances = np.zeros(len(self.labels)) if self.distances is None else self.distances
        direct = members_by_distance(self.labels, distances, len(self.groups))
        gathered = [self.rows[places] for places in direct]
        position = {group.cluster_id: at for at, group in enumerate(self.groups)}
        for at in reversed(range(len(self.groups))):  # Children stand behind their parents.
            parent = self.groups[at].parent_cluster_id
            if parent is not None:
                gathered[position[parent]] = np.concatenate(
                    [gathered[position[parent]], gathered[at]]
                )
        return gathered
