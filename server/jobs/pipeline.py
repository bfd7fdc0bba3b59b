"""The stages of a run, as a worker process does them.

    prepare:  export → load → preprocess → cluster → summarize → label → write (staged)
    publish:  write (visible): switch the outputs' alias, or enrich the sources
    discard:  remove what a run staged that will never be published

`publish` works from the artifacts alone and may be repeated by any worker. This is the one
file of the service that calls into `gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpu import clustering, frames, metrics, sampling, summary
from gpu.clustering import Array, Clustering
from gpu.errors import TooFewPointsError
from gpu.params import NOISE, ParsedParams, parse_params
from server.errors import NotFoundError
from server.export.filters import parse_filter
from server.export.parquet import ExportReport, ExportRequest, ExportSource, export
from server.jobs.definition import VectorConfig
from server.jobs.model import RunResult
from server.jobs.sources import SourcePlan, plan_sources_now
from server.jobs.spec import Prepared, Report, RunSpec, StageClock
from server.labeling.naming import fallback_label
from server.qdrant.client import connect
from server.results import enrich, outputs, retention
from server.results.artifacts import RunFolder
from server.results.groups import Group, members_table

VECTOR_COLUMN = "vector"
DEFAULT_SEED = 42


@dataclass
class _Work:
    """What the stages of one run hand to each other."""

    spec: RunSpec
    clock: StageClock
    folder: RunFolder
    warnings: list[str] = field(default_factory=list)

    @property
    def algorithm(self) -> str:
        return self.spec.definition.vector.clustering_method


@dataclass(frozen=True)
class _Grouped:
    """The clustered rows and their groups, in the order of the export."""

    clustering: Clustering
    labels: Array
    summary: summary.Summary
    confidence: Array


def prepare(spec: RunSpec, report: Report) -> Prepared:
    """Do everything up to the commit: results computed, artifacts whole, outputs staged.

    Raises
    ------
    ShoalError, ClusteringError
        Why the run failed, in words for its owner.
    """
    work = _Work(spec, StageClock(report), _folder(spec, spec.run_id))
    work.folder.begin()
    client = connect(spec.qdrant)
    try:
        plan = plan_sources_now(client, list(spec.qdrant_names), spec.definition)
        with work.folder.export_dir() as directory:
            exported = _export(work, plan, directory)
            try:
                if exported.n_documents == 0:
                    raise TooFewPointsError(n_points=0, needed=1)
                return _cluster_and_stage(work, plan, exported, client)
            except TooFewPointsError as error:
                if spec.definition.filters is None:
                    raise
                return _skipped(work, plan, exported, str(error))
    finally:
        client.close()


def publish(spec: RunSpec, report: Report) -> list[str]:
    """Make a committed run visible, and let older ones go. Gives warnings, if any."""
    if spec.result is None:
        raise ValueError(f"run {spec.run_id} has no committed result to publish")
    if spec.result.skipped_reason is not None:
        return []
    clock = StageClock(report)
    client = connect(spec.qdrant)
    warnings: list[str] = []
    try:
        if spec.definition.enrich_source_collection:
            warnings += _enrich(spec, clock, client)
        for output in spec.result.outputs:
            outputs.publish_outputs(client, output)
    finally:
        client.close()
    retention.apply_retention(
        spec.artifacts_url,
        spec.namespace_id,
        spec.cluster_id,
        (spec.run_id, *spec.earlier_successes),
        keep_runs=spec.keep_runs,
    )
    return warnings


def discard(spec: RunSpec) -> None:
    """Remove the staged outputs and the artifacts of a run that will not be committed.

    No computing: the server does it in a thread of its own.
    """
    client = connect(spec.qdrant)
    try:
        if spec.output is not None:
            outputs.discard_outputs(client, spec.output)
    finally:
        client.close()
    _folder(spec, spec.run_id).delete()


def _folder(spec: RunSpec, run_id: str) -> RunFolder:
    return RunFolder(spec.artifacts_url, spec.namespace_id, spec.cluster_id, run_id)


def _export(work: _Work, plan: SourcePlan, directory: Path) -> ExportReport:
    spec = work.spec
    request = ExportRequest(
        address=spec.qdrant,
        sources=tuple(
            ExportSource(source.collection_id, source.qdrant_name, (source.vector_name,))
            for source in plan.sources
        ),
        filter=parse_filter(spec.definition.filters) if spec.definition.filters else None,
        payload_fields=(),
        directory=str(directory),
        distance=plan.distance,
    )
    names = ", ".join(spec.definition.collection_ids)
    with work.clock.stage("export", f"reading {names}") as stage:
        exported = export(request, progress=stage.count)
        stage.count(exported.n_documents, exported.n_documents)
        stage.message = f"{exported.n_documents:,} documents exported"
    if exported.left_out.count:
        work.warnings.append(exported.left_out.describe())
    return exported


def _cluster_and_stage(
    work: _Work, plan: SourcePlan, exported: ExportReport, client: Any
) -> Prepared:
    spec = work.spec
    with work.clock.stage("load") as stage:
        rows = frames.load_vectors(exported.files, VECTOR_COLUMN, "cpu")
        stage.message = f"{rows.shape[0]:,} x {rows.shape[1]} float32"
    with work.clock.stage("preprocess") as stage:
        parsed = parse_params(work.algorithm, spec.definition.vector.algorithm_params)
        work.warnings += parsed.warnings
    grouped = _cluster(work, plan, rows, parsed)
    with work.clock.stage("label"):
        groups = _groups(grouped)
    with work.clock.stage("write") as stage:
        ids = _read_ids(exported.files)
        members = members_table(
            ids["source_collection_id"],
            ids["source_document_id"],
            grouped.labels,
            groups,
            distances=grouped.summary.distances,
            confidence=grouped.confidence,
        )
        work.folder.write_members(members)
        work.folder.write_groups(groups)
        if spec.output is not None:
            outputs.stage_outputs(
                client,
                spec.output,
                groups,
                members,
                distance=plan.distance,
                n_dims=plan.n_dims,
                progress=stage.count,
            )
        result = _result(work, plan, exported, grouped, rows)
    result = result.model_copy(update={"timings_s": dict(work.clock.timings_s)})
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
    return Prepared(result, work.warnings)


def _cluster(work: _Work, plan: SourcePlan, rows: Array, parsed: ParsedParams) -> _Grouped:
    """Find the groups, on a sample where one is asked for, and summarize them."""
    config = work.spec.definition.vector
    n_rows = len(rows)
    seed = int(getattr(parsed.params, "random_state", DEFAULT_SEED))
    chosen = np.arange(n_rows)
    if config.sample_size is not None:
        chosen = sampling.sample_rows(n_rows, config.sample_size, seed)
    is_sample = len(chosen) < n_rows
    sample = rows[chosen] if is_sample else rows
    with work.clock.stage("cluster", f"{work.algorithm} on {len(chosen):,} documents") as stage:
        found = clustering.fit(
            sample,
            method=work.algorithm,
            params=parsed.params,
            metric=plan.metric,
            device=work.spec.device,
            progress=stage.share,
        )
        stage.message = f"{found.n_clusters} groups"
        stage.device, stage.device_reason = found.device, found.device_reason
    work.warnings += found.notes
    with work.clock.stage("summarize"):
        labels = found.labels
        if is_sample:
            labels = np.full(n_rows, NOISE, dtype=np.int32)
            labels[chosen] = found.labels
            if config.assign_rest and found.n_clusters:
                rest = np.setdiff1d(np.arange(n_rows), chosen, assume_unique=True)
                labels[rest] = _assigned(rows[rest], sample, found, plan, config)
        of_groups = summary.summarize(
            rows, labels, metric=plan.metric, centroid=config.effective_feature_method
        )
        strength = None if is_sample else found.strength
        confidence = summary.confidence(of_groups.distances, labels, strength)
    return _Grouped(found, labels, of_groups, confidence)


def _assigned(
    rest: Array, sample: Array, found: Clustering, plan: SourcePlan, config: VectorConfig
) -> Array:
    """Give the rows outside the sample to the sample's groups."""
    of_sample = summary.summarize(
        sample, found.labels, metric=plan.metric, centroid=config.effective_feature_method
    )
    # Only methods that know noise have a strength; for them a far row stays noise.
    radii = None if found.strength is None else of_sample.radii
    return sampling.assign_rest(rest, of_sample.centroids, radii, plan.metric)


def _groups(grouped: _Grouped) -> list[Group]:
    found = grouped.summary
    return [
        Group(
            cluster_id=f"cl_{position}",
            label=fallback_label(position),
            member_count=int(size),
            centroid=centroid,
            radius=float(radius),
        )
        for position, (size, centroid, radius) in enumerate(
            zip(found.sizes, found.centroids, found.radii, strict=True)
        )
    ]


def _read_ids(files: tuple[str, ...]) -> pa.Table:
    columns = ["source_collection_id", "source_document_id"]
    return pa.concat_tables([pq.read_table(path, columns=columns) for path in files])


def _result(
    work: _Work, plan: SourcePlan, exported: ExportReport, grouped: _Grouped, rows: np.ndarray
) -> RunResult:
    found = grouped.clustering
    vector_names = sorted({source.vector_name for source in plan.sources})
    return RunResult(
        algorithm=work.algorithm,
        num_clusters=found.n_clusters,
        num_documents=len(rows),
        num_noise=int((grouped.labels == NOISE).sum()),
        device=found.device,
        device_reason=found.device_reason,
        effective_params=found.effective_params,
        feature_uris=work.spec.definition.vector.features or vector_names,
        vector_names=vector_names,
        distance=plan.distance,
        quality_metrics=dict(metrics.quality(rows, grouped.labels, metric=plan.metric)),
        outputs=[work.spec.output] if work.spec.output is not None else [],
        artifacts_url=work.folder.url,
        source_bucket_ids=list(exported.source_bucket_ids),
    )


def _skipped(work: _Work, plan: SourcePlan, exported: ExportReport, why: str) -> Prepared:
    """End a run whose filter leaves too few documents: completed, with no groups."""
    reason = f"skipped: the filter leaves {exported.n_documents} documents; {why}"
    result = RunResult(
        algorithm=work.algorithm,
        num_clusters=0,
        num_documents=exported.n_documents,
        distance=plan.distance,
        timings_s=dict(work.clock.timings_s),
        skipped_reason=reason,
    )
    return Prepared(result, [*work.warnings, reason])


def _enrich(spec: RunSpec, clock: StageClock, client: Any) -> list[str]:
    """Write the run's membership into its sources, forward from wherever it stopped."""
    folder = _folder(spec, spec.run_id)
    previous = None
    if spec.earlier_successes:
        try:
            previous = _folder(spec, spec.earlier_successes[0]).read_members()
        except NotFoundError:  # Retired: then only run ids tell what was ours.
            previous = None
    with clock.stage("write", "enriching the source documents") as stage:
        report = enrich.enrich_sources(
            client,
            list(zip(spec.definition.collection_ids, spec.qdrant_names, strict=True)),
            folder.read_members(),
            folder.read_groups(with_centroids=False),
            spec.definition.enrichment,
            spec.run_id,
            previous,
            spec.previous_run_ids,
            progress=stage.count,
        )
    if report.failed:
        return [f"{report.failed} documents were gone when their fields were to be written"]
    return []
