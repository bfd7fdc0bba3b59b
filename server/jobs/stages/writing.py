"""From groups to results: artifacts written whole, outputs staged where no reader looks yet."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
from server.jobs.stages.work import Array, Partition, Work
from server.results import outputs
from server.results.groups import NOISE_ID, Group, member_order, members_table
from server.results.manifest import library_versions
from server.results.maps import group_centres, places_of, write_map


def write_results(
    work: Work,
    exported: ExportReport,
    documents: Documents,
    labeled: Labeled,
    places: NDArray[np.float32] | None = None,
) -> Prepared:
    """Write the artifacts and fill the outputs' generations; gives what is to be committed.

    Parameters
    ----------
    places : array of shape (n_documents, 2 or 3), float32, or None
        Where each document lies on the map, if the run made one.
    """
    found = labeled.found
    with work.clock.stage("write") as stage:
        tables = [_members_of(documents, partition, places) for partition in found.partitions]
        members = pa.concat_tables(tables)
        groups = [group for each in found.partitions for group in each.groups]
        groups = groups if places is None else _placed(groups, members)
        # Files and collections are written side by side: neither waits for the other.
        with ThreadPoolExecutor(1, thread_name_prefix="artifacts") as pool:
            artifacts = pool.submit(_write_artifacts, work, members, groups)
            _stage_outputs(work, found, tables, stage)
            artifacts.result()
        figures = _each(found.partitions, [p.figures for p in found.partitions])
        work.folder.write_figures(figures)
    result = _result(work, exported, documents, labeled)
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


def _write_artifacts(work: Work, members: pa.Table, groups: list[Group]) -> None:
    work.folder.write_members(members)
    work.folder.write_groups(groups)


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


def _stage_outputs(
    work: Work, found: Found, tables: Sequence[pa.Table], stage: StageTeller
) -> None:
    if not work.spec.outputs:
        return
    for output in work.spec.outputs:
        parts = [
            position
            for position, partition in enumerate(found.partitions)
            if output.feature is None or output.feature == _name_of(partition)
        ]
        _stage_one(work, output, found, [tables[p] for p in parts], parts, stage)


def _name_of(partition: Partition) -> str:
    return "" if partition.feature is None else partition.feature.name


def _stage_one(
    work: Work,
    output: OutputCollection,
    found: Found,
    tables: Sequence[pa.Table],
    parts: Sequence[int],
    stage: StageTeller,
) -> None:
    partitions = [found.partitions[part] for part in parts]
    groups: list[Group] = [group for each in partitions for group in each.groups]
    vectors, order = _member_vectors(work, found, parts)
    outputs.stage_outputs(
        work.client,
        output,
        groups,
        pa.concat_tables(tables),
        distance=partitions[0].distance,
        n_dims=partitions[0].n_dims,
        vectors=vectors,
        vector_rows=order,
        progress=stage.count,
    )


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
    work: Work, exported: ExportReport, documents: Documents, labeled: Labeled
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
        quality_metrics=_each(parts, [partition.quality for partition in parts]),
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
