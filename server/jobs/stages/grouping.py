"""From documents to groups: preprocess, cluster (a sample of) them, summarize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu import clustering, metrics, preprocess, sampling, summary
from gpu.backend import choose_backend
from gpu.clustering import Clustering, renumber_by_size
from gpu.params import NOISE, Params, parse_params
from gpu.steps import parse_steps
from server.jobs.spec import StageTeller
from server.jobs.stages.loading import Documents
from server.jobs.stages.spaces import Space, Spaces, make_spaces
from server.jobs.stages.work import Array, Partition, Work
from server.labeling.naming import fallback_label
from server.results.groups import Group

DEFAULT_SEED = 42


@dataclass(frozen=True)
class Found:
    """All groups of a run.

    `spaces` tells which vectors they were found in, one space for each partition.
    """

    partitions: list[Partition]
    spaces: Spaces


@dataclass(frozen=True)
class _Sample:
    """The rows of a space that are clustered, prepared for it."""

    rows: NDArray[np.int64]
    points: Array
    metric: str


def find_groups(work: Work, documents: Documents) -> Found:
    """Cluster the documents as the definition says.

    Raises
    ------
    ClusteringError
        If the method cannot do it with these documents; says why in the caller's words.
    """
    parsed = parse_params(work.config.clustering_method, work.config.algorithm_params)
    work.warnings += parsed.warnings
    seed = int(getattr(parsed.params, "random_state", DEFAULT_SEED))
    with work.clock.stage("preprocess") as stage:
        n_clusters = getattr(parsed.params, "n_clusters", None)
        spaces = make_spaces(work, documents, n_clusters, seed)
        samples = [_prepare(work, space, seed, stage) for space in spaces.spaces]
    with work.clock.stage("cluster", _announcement(work, samples)) as stage:
        fitted = [_fit(work, sample, parsed.params, stage) for sample in samples]
        stage.message = f"{sum(each.n_clusters for each in fitted)} groups"
    with work.clock.stage("summarize"):
        partitions = [
            _summarize(work, space, sample, found)
            for space, sample, found in zip(spaces.spaces, samples, fitted, strict=True)
        ]
    return Found(partitions, spaces)


def _announcement(work: Work, samples: list[_Sample]) -> str:
    counts = " and ".join(f"{len(sample.rows):,}" for sample in samples[:1])
    times = f", {len(samples)} features" if len(samples) > 1 else ""
    return f"{work.config.clustering_method} on {counts} documents{times}"


def _prepare(work: Work, space: Space, seed: int, stage: StageTeller) -> _Sample:
    """Draw the sample, where one is asked for, and run the preprocessing steps on it."""
    n_rows = len(space.vectors)
    rows = np.arange(n_rows, dtype=np.int64)
    if work.config.sample_size is not None:
        rows = sampling.sample_rows(n_rows, work.config.sample_size, seed)
    points = space.vectors if len(rows) == n_rows else space.vectors[rows]
    steps = parse_steps(work.config.preprocessing_steps)
    if not steps:
        return _Sample(rows, points, space.metric)
    prepared = preprocess.apply_steps(
        points,
        steps,
        metric=space.metric,
        backend=choose_backend(work.spec.device),
        progress=stage.share,
    )
    stage.message = "; ".join(prepared.notes)
    return _Sample(rows, prepared.vectors, prepared.metric)


def _fit(work: Work, sample: _Sample, params: Params, stage: StageTeller) -> Clustering:
    found = clustering.fit(
        sample.points,
        method=work.config.clustering_method,
        params=params,
        metric=sample.metric,
        device=work.spec.device,
        progress=stage.share,
    )
    stage.device, stage.device_reason = found.device, found.device_reason
    work.warnings += found.notes
    return found


def _summarize(work: Work, space: Space, sample: _Sample, found: Clustering) -> Partition:
    """Describe the groups in the space itself, whatever the steps before made of it."""
    config = work.config
    labels, strength = found.labels, found.strength
    if len(sample.rows) < len(space.vectors):
        labels, strength = _spread(work, space, sample, found), None
    described = summary.summarize(
        space.vectors, labels, metric=space.metric, centroid=config.effective_feature_method
    )
    return Partition(
        feature=space.feature,
        labels=labels,
        groups=_groups(space.feature, described),
        distances=described.distances,
        confidence=summary.confidence(described.distances, labels, strength),
        algorithm=str(found.details.get("chosen_method", config.clustering_method)),
        device=found.device,
        device_reason=found.device_reason,
        effective_params=found.effective_params,
        quality=dict(metrics.quality(space.vectors, labels, metric=space.metric)),
        n_dims=int(space.vectors.shape[1]),
        distance=space.distance,
    )


def _spread(work: Work, space: Space, sample: _Sample, found: Clustering) -> NDArray[np.int32]:
    """Give the documents outside the sample to the sample's groups, where that is wanted."""
    n_rows = len(space.vectors)
    labels = np.full(n_rows, NOISE, dtype=np.int32)
    labels[sample.rows] = found.labels
    if not work.config.assign_rest or not found.n_clusters:
        return labels
    of_sample = summary.summarize(
        space.vectors[sample.rows],
        found.labels,
        metric=space.metric,
        centroid=work.config.effective_feature_method,
    )
    # Only methods that know noise have a strength; for them a far document stays noise.
    radii = None if found.strength is None else of_sample.radii
    rest = np.setdiff1d(np.arange(n_rows), sample.rows, assume_unique=True)
    labels[rest] = sampling.assign_rest(
        space.vectors[rest], of_sample.centroids, radii, space.metric
    )
    renumbered: NDArray[np.int32] = renumber_by_size(labels)[0]
    return renumbered


def _groups(feature: str | None, described: summary.Summary) -> list[Group]:
    prefix = "" if feature is None else f"{feature}."
    rows: Any = zip(described.sizes, described.centroids, described.radii, strict=True)
    return [
        Group(
            cluster_id=f"{prefix}cl_{position}",
            label=fallback_label(position),
            member_count=int(size),
            centroid=centroid,
            radius=float(radius),
        )
        for position, (size, centroid, radius) in enumerate(rows)
    ]
