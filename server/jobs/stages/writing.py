"""From groups to results: artifacts written whole, outputs staged where no reader looks yet."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpu.params import NOISE
from server.export.parquet import ExportReport
from server.jobs.model import OutputCollection, RunResult
from server.jobs.spec import Prepared, StageTeller
from server.jobs.stages.grouping import Found
from server.jobs.stages.labeling import Labeled
from server.jobs.stages.loading import Documents
from server.jobs.stages.measuring import Measured
from server.jobs.stages.work import Array, Partition, Work
from server.results import outputs
from server.results.groups import NOISE_ID, Group, member_order, members_table
from server.results.manifest import library_versions
from server.results.maps import group_centres, places_of, write_map
from server.results.renaming import LateNames


@dataclass
class Naming:
    """How far the groups have got their names: the partitions under them, once they have."""

    partitions: list[Partition] | None = None
    has_failed: bool = False

    def groups_of(self, parts: Sequence[int]) -> list[Group] | None:
        """Give the groups of some partitions under their final names; None before."""
        return None if self.partitions is None else _groups_of(self.partitions, parts)


@dataclass(frozen=True)
class StagedOutput:
    """An output that holds its members, of which partitions, and the names they were given."""

    collection: OutputCollection
    parts: Sequence[int]
    members: LateNames


def write_results(
    work: Work,
    exported: ExportReport,
    documents: Documents,
    labeled: Labeled,
    measured: Future[list[Measured]],
    staged: Future[list[StagedOutput]],
    places: NDArray[np.float32] | None = None,
) -> Prepared:
    """Write the artifacts; gives what is to be committed, once the outputs are filled, too.

    Parameters
    ----------
    measured, staged
        As `server.jobs.stages.ahead` began them.
    places : array of shape (n_documents, 2 or 3), float32, or None
        Where each document lies on the map, if the run made one.
    """
    found = labeled.found
    with work.clock.stage("write") as stage:
        tables = [_members_of(documents, partition, places) for partition in found.partitions]
        members = pa.concat_tables(tables)
        groups = [group for each in found.partitions for group in each.groups]
        groups = groups if places is None else _placed(groups, members)
        work.folder.write_members(members)
        work.folder.write_groups(groups)
        measures = measured.result()
        work.folder.write_figures(_each(found.partitions, [each.figures for each in measures]))
        for output in staged.result():
            outputs.stage_groups(
                work.client,
                output.collection,
                output.members,
                _groups_of(found.partitions, output.parts),
            )
        stage.count(len(members), len(members))
    result = _result(work, exported, documents, labeled, measures)
    work.folder.write_manifest(
        counts={
            "documents": result.num_documents,
            "groups": result.num_clusters,
            "noise": result.num_noise,
            "left_out": exported.left_out.count,
        },
        device=result.device,
        timings_s=result.timings_s,
    )
    if places is not None:  # As GetVisualization reads it, so that nobody makes it again.
        write_map(work.folder, members, places_of(members))
    return Prepared(result, work.warnings)


def _placed(groups: Sequence[Group], members: pa.Table) -> list[Group]:
    """Put every group at the centre of its members on the map."""
    centres = group_centres(members)
    return [replace(group, place=centres.get(group.cluster_id)) for group in groups]


def _members_of(
    documents: Documents, partition: Partition, places: NDArray[np.float32] | None
) -> pa.Table:
    return members_table(
        documents.collection_ids.take(partition.rows),
        documents.document_ids.take(partition.rows),
        partition.labels,
        partition.groups,
        distances=partition.distances,
        confidence=partition.confidence,
        coordinates=None if places is None else places[partition.rows],
        noise_id=partition.prefix + NOISE_ID,
    )


def stage_members(
    work: Work, documents: Documents, found: Found, naming: Naming
) -> list[StagedOutput]:
    """Begin to fill the outputs' generations, with what needs no names."""
    if not work.spec.outputs:
        return []
    with work.clock.ahead("write") as stage:
        tables = [_members_of(documents, partition, None) for partition in found.partitions]
        return [_stage_one(work, each, found, tables, naming, stage) for each in work.spec.outputs]


def _name_of(partition: Partition) -> str:
    return "" if partition.feature is None else partition.feature.name


def _stage_one(
    work: Work,
    output: OutputCollection,
    found: Found,
    tables: Sequence[pa.Table],
    naming: Naming,
    stage: StageTeller,
) -> StagedOutput:
    parts = [
        position
        for position, partition in enumerate(found.partitions)
        if output.feature is None or output.feature == _name_of(partition)
    ]
    vectors, order = _member_vectors(work, found, parts)
    members = outputs.stage_members(
        work.client,
        output,
        pa.concat_tables([tables[part] for part in parts]),
        distance=found.partitions[parts[0]].distance,
        n_dims=found.partitions[parts[0]].n_dims,
        vectors=vectors,
        vector_rows=order,
        names=lambda: naming.groups_of(parts),
        progress=stage.count,
        should_stop=lambda: naming.has_failed,
    )
    return StagedOutput(output, parts, members)


def _groups_of(partitions: Sequence[Partition], parts: Sequence[int]) -> list[Group]:
    return [group for part in parts for group in partitions[part].groups]


def _member_vectors(
    work: Work, found: Found, parts: Sequence[int]
) -> tuple[Array | None, NDArray[np.int64] | None]:
    """Give the vectors of the members, where the definition wants them in the output."""
    config = work.spec.definition.vector_config
    if config is None or not config.members_with_vectors or len(parts) != 1:
        return None, None
    partition = found.partitions[parts[0]]
    order = member_order(partition.labels, partition.distances)
    return found.spaces.spaces[parts[0]].vectors, order


def _each(parts: Sequence[Partition], values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give the value of the one partition, or all by feature."""
    if len(parts) == 1:
        return values[0]
    return {_name_of(part): value for part, value in zip(parts, values, strict=True)}


def _result(
    work: Work,
    exported: ExportReport,
    documents: Documents,
    labeled: Labeled,
    measures: Sequence[Measured],
) -> RunResult:
    found = labeled.found
    parts = found.partitions
    first = parts[0]

    return RunResult(
        algorithm=first.algorithm,
        num_clusters=sum(partition.n_leaves for partition in parts),
        num_documents=len(documents),
        num_noise=sum(int((partition.labels == NOISE).sum()) for partition in parts),
        device=first.device,
        device_reason=first.device_reason,
        effective_params=_each(parts, [partition.effective_params for partition in parts]),
        feature_uris=[feature.name for feature in work.plan.features],
        distance=first.distance,
        quality_metrics=_each(parts, [each.quality for each in measures]),
        learned_weights=found.spaces.learned_weights,
        learning_quality_score=found.spaces.learning_quality_score,
        hierarchy_relationships=found.relationships,
        timings_s=work.clock.timings_s,
        timeline=dict(work.clock.timeline),
        outputs=list(work.spec.outputs),
        artifacts_url=work.folder.url,
        source_bucket_ids=list(exported.source_bucket_ids),
        labeling_errors=labeled.errors,
        labeling_usage=labeled.usage,
        libraries=library_versions(),
    )
