"""From groups to results: artifacts written whole, outputs staged where no reader looks yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

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
from server.results.writes import ShouldStop

T = TypeVar("T")
R = TypeVar("R")


def write_results(
    work: Work,
    exported: ExportReport,
    documents: Documents,
    labeled: Labeled,
    measured: Future[list[Measured]],
    staged: Future[None],
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
        staged.result()
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


def stage_outputs(
    work: Work,
    documents: Documents,
    found: Found,
    naming: Future[list[Partition]],
    should_stop: ShouldStop,
) -> None:
    """Fill the outputs' generations, under the groups' first names until `naming` brings others."""
    if not work.spec.outputs:
        return
    with work.clock.ahead("write") as stage:
        tables = [_members_of(documents, partition, None) for partition in found.partitions]
        for output in work.spec.outputs:
            parts = [
                position
                for position, partition in enumerate(found.partitions)
                if output.feature is None or output.feature == _name_of(partition)
            ]
            _stage_one(work, output, found, tables, parts, naming, stage, should_stop)


def _name_of(partition: Partition) -> str:
    return "" if partition.feature is None else partition.feature.name


def _stage_one(
    work: Work,
    output: OutputCollection,
    found: Found,
    tables: Sequence[pa.Table],
    parts: Sequence[int],
    naming: Future[list[Partition]],
    stage: StageTeller,
    should_stop: ShouldStop,
) -> None:
    partitions = [found.partitions[part] for part in parts]
    vectors, order = _member_vectors(work, found, parts)
    outputs.stage_outputs(
        work.client,
        output,
        _groups_of(found.partitions, parts),
        pa.concat_tables([tables[part] for part in parts]),
        distance=partitions[0].distance,
        n_dims=partitions[0].n_dims,
        vectors=vectors,
        vector_rows=order,
        naming=_then(naming, lambda named: _groups_of(named, parts)),
        progress=stage.count,
        should_stop=should_stop,
    )


def _groups_of(partitions: Sequence[Partition], parts: Sequence[int]) -> list[Group]:
    return [group for part in parts for group in partitions[part].groups]


def _then(future: Future[T], function: Callable[[T], R]) -> Future[R]:
    """Give what a function makes of a result that is to come."""
    made: Future[R] = Future()

    def settle(done: Future[T]) -> None:
        error = done.exception()
        if error is not None:
            made.set_exception(error)
        else:
            made.set_result(function(done.result()))

    future.add_done_callback(settle)
    return made


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
        timings_s=dict(work.clock.timings_s),
        outputs=list(work.spec.outputs),
        artifacts_url=work.folder.url,
        source_bucket_ids=list(exported.source_bucket_ids),
        labeling_errors=labeled.errors,
        labeling_usage=labeled.usage,
        libraries=library_versions(),
    )
