"""From documents to groups: preprocess, cluster (a sample of) them, summarize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu import clustering, hierarchy, preprocess, relations, sampling, summary
from gpu.backend import Backend, choose_backend
from gpu.clustering import Clustering, renumber_by_size
from gpu.hierarchy import Hierarchy
from gpu.params import NOISE, Params, parse_params
from gpu.steps import parse_steps
from server.jobs.spec import StageTeller
from server.jobs.stages.describing import describe
from server.jobs.stages.loading import Documents
from server.jobs.stages.measuring import method_figures
from server.jobs.stages.spaces import Space, Spaces, make_spaces
from server.jobs.stages.spreading import sample_that_fits, spread_kmeans
from server.jobs.stages.work import Array, Partition, Work
from server.results.groups import Group

DEFAULT_SEED = 42

MEASURED_LATER = "groups described; how good they are is measured beside the next stages"


@dataclass(frozen=True)
class Found:
    """All groups of a run.

    Attributes
    ----------
    spaces : Spaces
        Which vectors they were found in, one space for each partition; none by attributes.
    relationships : list of dict
        Rows of `hierarchy_relationships`.
    """

    partitions: list[Partition]
    spaces: Spaces = field(default_factory=lambda: Spaces(()))
    relationships: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Sample:
    """The rows of a space that are clustered, prepared for it."""

    rows: NDArray[np.int64]
    points: Array
    metric: str


@dataclass(frozen=True)
class _Fitted:
    """A clustering of a sample, and the groups inside its groups where they are wanted."""

    first_level: Clustering
    nested: Hierarchy | None


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
        samples = [_prepare(work, space, parsed.params, seed, stage) for space in spaces.spaces]
    with work.clock.stage("cluster", _announcement(work, samples)) as stage:
        fitted = [_fit(work, documents, sample, parsed.params, stage) for sample in samples]
        stage.message = f"{sum(each.first_level.n_clusters for each in fitted)} groups"
    with work.clock.stage("summarize") as stage:
        partitions = [
            _summarize(work, space, sample, found)
            for space, sample, found in zip(spaces.spaces, samples, fitted, strict=True)
        ]
        stage.message = MEASURED_LATER
    return Found(partitions, spaces, _relationships(fitted, partitions))


def _announcement(work: Work, samples: list[_Sample]) -> str:
    times = f", {len(samples)} features" if len(samples) > 1 else ""
    return f"{work.config.clustering_method} on {len(samples[0].rows):,} documents{times}"


def _prepare(work: Work, space: Space, params: Params, seed: int, stage: StageTeller) -> _Sample:
    """Draw the sample, where one is wanted, and run the preprocessing steps on it."""
    n_rows = len(space.vectors)
    rows = np.arange(n_rows, dtype=np.int64)
    steps = parse_steps(work.config.preprocessing_steps)
    size = work.config.sample_size
    if size is None and not steps:
        size = sample_that_fits(work, space.vectors.shape, params, stage)
    if size is not None:
        rows = sampling.sample_rows(n_rows, size, seed)
    points = space.vectors if len(rows) == n_rows else space.vectors[rows]
    if not steps:
        return _Sample(rows, points, space.metric)
    prepared = preprocess.apply_steps(
        points,
        steps,
        metric=space.metric,
        backend=choose_backend(work.spec.device),
        progress=stage.share,
        spare=Backend("cpu", "") if work.spec.device == "auto" else None,
    )
    stage.message = "; ".join(prepared.notes)
    return _Sample(rows, prepared.vectors, prepared.metric)


def _fit(
    work: Work, documents: Documents, sample: _Sample, params: Params, stage: StageTeller
) -> _Fitted:
    def fit(points: Array, progress: Callable[[float], None] | None = None) -> Clustering:
        return clustering.fit(
            points,
            method=work.config.clustering_method,
            params=params,
            metric=sample.metric,
            device=work.spec.device,
            progress=progress,
        )

    shape = sample.points.shape
    found = spread_kmeans(work, documents, shape, params, stage) or fit(sample.points, stage.share)
    stage.device, stage.device_reason = found.device, found.device_reason
    work.warnings += found.notes
    if not work.config.hierarchical:
        return _Fitted(found, None)
    nested = hierarchy.subdivide(
        sample.points,
        found.labels,
        fit=lambda points: fit(points).labels,
        max_depth=work.config.max_hierarchy_depth,
        progress=stage.share,
    )
    work.warnings += nested.notes
    return _Fitted(found, nested)


def _summarize(work: Work, space: Space, sample: _Sample, fitted: _Fitted) -> Partition:
    """Describe the groups in the space itself, whatever the steps before made of it."""
    found, nested = fitted.first_level, fitted.nested
    labels = found.labels if nested is None else nested.labels
    strength = found.strength if nested is None else None
    numbers = np.arange(found.n_clusters)
    if len(sample.rows) < len(space.vectors):
        labels = _spread(work, space, sample, labels, knows_noise=found.strength is not None)
        strength = None
        if nested is None:
            labels, numbers = renumber_by_size(labels)
        else:
            nested = replace(nested, labels=labels)
    described = describe(work, space, labels, nested)
    method, ids = work.config.clustering_method, _ids(described.groups, numbers, found.n_clusters)
    return Partition(
        feature=space.feature,
        rows=np.arange(len(labels), dtype=np.int64),
        labels=labels,
        groups=described.groups,
        distances=described.distances,
        confidence=summary.confidence(described.distances, labels, strength),
        algorithm=str(found.details.get("chosen_method", work.config.clustering_method)),
        device=found.device,
        device_reason=found.device_reason,
        effective_params=found.effective_params,
        n_dims=int(space.vectors.shape[1]),
        distance=space.distance,
        figures=method_figures(method, found, sample.points, sample.metric, ids),
    )


def _ids(groups: list[Group], numbers: NDArray[np.int64], n_fitted: int) -> list[str | None]:
    """Say what the groups of a fit are called now; `numbers` has the fit's number of each group."""
    ids: list[str | None] = [None] * n_fitted
    for number, group in zip(numbers.tolist(), groups, strict=False):
        ids[number] = group.cluster_id
    return ids


def _spread(
    work: Work, space: Space, sample: _Sample, labels_of_sample: Array, *, knows_noise: bool
) -> NDArray[np.int32]:
    """Give the documents outside the sample to the sample's groups, where that is wanted."""
    n_rows = len(space.vectors)
    labels = np.full(n_rows, NOISE, dtype=np.int32)
    labels[sample.rows] = labels_of_sample
    gapless, positions = renumber_by_size(labels_of_sample)
    if not work.config.assign_rest or not len(positions):
        return labels
    of_sample = summary.summarize(
        space.vectors[sample.rows],
        gapless,
        metric=space.metric,
        centroid=work.config.effective_feature_method,
    )
    # For methods that know noise, a document far from every group stays noise.
    radii = of_sample.radii if knows_noise else None
    rest = np.setdiff1d(np.arange(n_rows), sample.rows, assume_unique=True)
    nearest = sampling.assign_rest(space.vectors[rest], of_sample.centroids, radii, space.metric)
    labels[rest] = np.where(nearest == NOISE, NOISE, positions[nearest])
    return labels


def _relationships(fitted: list[_Fitted], partitions: list[Partition]) -> list[dict[str, Any]]:
    """Tell which groups lie in which: by the second clustering, or by shared members."""
    rows = [
        {
            **row,
            "parent_cluster_id": partition.prefix + row["parent_cluster_id"],
            "child_cluster_id": partition.prefix + row["child_cluster_id"],
        }
        for each, partition in zip(fitted, partitions, strict=True)
        if each.nested
        for row in each.nested.relations()
    ]
    if len(partitions) > 1:
        shared = relations.relations(
            {each.prefix: each.labels for each in partitions},
            {each.prefix: [group.cluster_id for group in each.groups] for each in partitions},
        )
        rows += [dict(row) for row in shared]
    return rows
