"""What the stages of one run share, and what they hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient

from server.jobs.definition import VectorConfig
from server.jobs.sources import SourcePlan
from server.jobs.spec import RunSpec, StageClock
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
    feature : str or None
        The feature whose groups these are; None where there is one set only.
    labels : array of shape (n_documents,), int32
        Position in `groups` of each document's (leaf) group, NOISE for none.
    groups : list of Group
        Parents of a hierarchy stand behind the leaves, and no label points at them.
    distances, confidence : array of shape (n_documents,), float32
        To the own centroid; how firmly a member.
    algorithm, device, device_reason, effective_params, quality
        How the groups were found, and how good they are.
    n_dims, distance
        Of the centroids, for the output collection.
    """

    feature: str | None
    labels: NDArray[np.int32]
    groups: list[Group]
    distances: NDArray[np.float32]
    confidence: NDArray[np.float32]
    algorithm: str
    device: str
    device_reason: str
    effective_params: dict[str, Any]
    quality: dict[str, Any]
    n_dims: int
    distance: str

    @property
    def n_leaves(self) -> int:
        """Groups that documents belong to, noise not counted."""
        return len({int(label) for label in np.unique(self.labels)} - {-1})
