"""From new documents to the groups of an earlier run: mode assign.

Documents that the earlier run had keep their group and their confidence, those that are gone
or left the filter drop out, and new ones go to the nearest stored centroid that they are like
enough, else to none. Groups, labels and centroids stay, groups without a document too; sizes,
distances and radii are told anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpu import summary
from gpu.assigning import assign_similar, distances_to
from gpu.params import NOISE
from server.jobs.model import RunRecord, RunResult
from server.jobs.stages.grouping import DEFAULT_SEED, MEASURED_LATER, Found
from server.jobs.stages.labeling import Labeled
from server.jobs.stages.loading import ID_COLUMNS, Documents
from server.jobs.stages.spaces import Space, Spaces, make_spaces
from server.jobs.stages.work import Partition, Work
from server.results.artifacts import RunFolder
from server.results.groups import Group
from server.results.names import renamed_groups

DEVICE_REASON = "documents are compared with stored centroids where their vectors were read to"


@dataclass(frozen=True)
class _Base:
    """The earlier run: its record, its groups under their present names, and its members."""

    run: RunRecord
    result: RunResult
    groups: list[Group]
    members: pa.Table


def assign_groups(work: Work, documents: Documents) -> Found:
    """Give the documents to the groups of the run that the spec names.

    Raises
    ------
    ClusteringError
        If the stored centroids do not fit the vectors there are now.
    NotFoundError
        If that run's artifacts are gone.
    """
    with work.clock.stage("preprocess"):
        base = _read_base(work)
        known = Spaces((), base.result.learned_weights, base.result.learning_quality_score)
        spaces = make_spaces(work, documents, None, DEFAULT_SEED, known)
    with work.clock.stage("cluster") as stage:
        found = [_assign(work, base, documents, space) for space in spaces.spaces]
        stage.device, stage.device_reason = found[0][0].device, DEVICE_REASON
        n_new, n_given = (sum(counts) for counts in zip(*(each[1] for each in found), strict=True))
        stage.message = f"{n_given:,} of {n_new:,} new documents given to groups"
    with work.clock.stage("summarize") as stage:
        partitions = [
            _described(partition, space)
            for (partition, _), space in zip(found, spaces.spaces, strict=True)
        ]
        stage.message = MEASURED_LATER
    return Found(partitions, spaces, base.result.hierarchy_relationships)


def keep_labels(work: Work, found: Found) -> Labeled:
    """Pass the stage label: groups are called as they were."""
    with work.clock.stage("label", "groups keep their names"):
        return Labeled(found, [], {})


def _read_base(work: Work) -> _Base:
    spec, run = work.spec, work.spec.assign_to
    if run is None or run.result is None:
        raise ValueError(f"run {spec.run_id} names no run to assign to")
    folder = RunFolder(spec.artifacts_url, spec.namespace_id, spec.cluster_id, run.run_id)
    groups = renamed_groups(folder.read_groups(), run.renamed)
    members = folder.read_members(columns=[*ID_COLUMNS, "cluster_id", "confidence"])
    return _Base(run, run.result, groups, members)


def _assign(
    work: Work, base: _Base, documents: Documents, space: Space
) -> tuple[Partition, tuple[int, int]]:
    """Give one space's documents to its groups; also how many were new, and given to one."""
    name = None if space.feature is None else space.feature.name
    groups = [group for group in base.groups if group.feature_uri == name]
    labels, confidence, is_new = _earlier(base, documents, groups)
    labels[is_new] = _nearest(work, space, groups, is_new)
    distances = distances_to(space.vectors, _centroids(groups), labels, space.metric)
    by_rank = summary.confidence(distances, labels, None)
    params = base.result.effective_params
    partition = Partition(
        feature=space.feature,
        rows=np.arange(len(documents), dtype=np.int64),
        labels=labels,
        groups=groups,
        distances=distances,
        confidence=np.where(is_new, by_rank, confidence),
        algorithm=base.result.algorithm,
        device="cpu" if isinstance(space.vectors, np.ndarray) else "gpu",
        device_reason=DEVICE_REASON,
        effective_params={
            **(params if name is None else params.get(name, {})),
            "assignment_threshold": work.spec.assignment_threshold,
        },
        n_dims=int(space.vectors.shape[1]),
        distance=space.distance,
    )
    return partition, (int(is_new.sum()), int((labels[is_new] != NOISE).sum()))


def _earlier(
    base: _Base, documents: Documents, groups: list[Group]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
    """Look up which group each document had and how firmly, and which are new."""
    n_documents = len(documents)
    labels = np.full(n_documents, NOISE, dtype=np.int32)
    confidence = np.zeros(n_documents, dtype=np.float32)
    is_new = np.ones(n_documents, dtype=np.bool_)
    now = pa.table(
        [documents.collection_ids, documents.document_ids, pa.array(np.arange(n_documents))],
        names=[*ID_COLUMNS, "row"],
    )
    both = now.join(base.members, ID_COLUMNS, join_type="inner").combine_chunks()
    is_new[both["row"].to_numpy()] = False
    ids = pa.array([group.cluster_id for group in groups], pa.string())
    positions = pc.index_in(both["cluster_id"], value_set=ids)
    grouped = both.filter(pc.is_valid(positions))
    rows = grouped["row"].to_numpy()
    labels[rows] = positions.drop_null().to_numpy()
    confidence[rows] = grouped["confidence"].to_numpy()
    return labels, confidence, is_new


def _nearest(
    work: Work, space: Space, groups: list[Group], is_new: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Find the group of each new document: one without groups below it, or none."""
    parents = {group.parent_cluster_id for group in groups}
    leaves = np.array([g for g, group in enumerate(groups) if group.cluster_id not in parents])
    rows = np.flatnonzero(is_new)
    if not len(leaves) or not len(rows):
        return np.full(len(rows), NOISE, dtype=np.int32)
    near = assign_similar(
        space.vectors[rows],
        _centroids(groups)[leaves],
        work.spec.assignment_threshold,
        space.metric,
    )
    return np.where(near == NOISE, NOISE, leaves[near]).astype(np.int32)


def _centroids(groups: list[Group]) -> NDArray[np.float32]:
    return np.array([group.centroid for group in groups], dtype=np.float32)


def _described(partition: Partition, space: Space) -> Partition:
    """Tell the groups' sizes and radii anew."""
    parents = {group.parent_cluster_id for group in partition.groups}
    groups = [
        _sized(group, rows, partition, space, group.cluster_id in parents)
        for group, rows in zip(partition.groups, partition.members(), strict=True)
    ]
    return replace(partition, groups=groups)


def _sized(
    group: Group, rows: NDArray[np.int64], partition: Partition, space: Space, is_parent: bool
) -> Group:
    if not len(rows) or partition.distances is None:
        return replace(group, member_count=0)  # Its reach is still what it was.
    distances = partition.distances[rows]
    if is_parent:  # Members of the groups below it have distances to those.
        at_one = np.zeros(len(rows), dtype=np.int32)
        distances = distances_to(space.vectors[rows], _centroids([group]), at_one, space.metric)
    radius = float(np.quantile(distances, summary.RADIUS_QUANTILE))
    cohesion = float(distances.mean())
    return replace(group, member_count=len(rows), radius=radius, cohesion=cohesion)
