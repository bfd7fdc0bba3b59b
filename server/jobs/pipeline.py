"""The stages of a run, as a worker process does them.

    prepare:  export → load → preprocess → cluster → summarize → label → write (staged);
              groups are measured and outputs filled while the groups are being named;
              an attempt goes on from the export and the groups of an earlier one
    publish:  write (visible): switch the outputs' aliases, or enrich the sources
    discard:  remove what a run staged that will never be published
    abandon:  remove what an attempt staged that has lost its run

`publish` works from the artifacts alone and may be repeated by any worker. Only this file and
`stages/` call into `gpu`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from gpu import parallel
from gpu.errors import TooFewPointsError
from gpu.memory import device_memory
from server import tracing
from server.errors import NotFoundError
from server.export.parquet import ExportReport
from server.export.rows import WHOLE_PAYLOAD
from server.jobs.definition import FieldMapping
from server.jobs.model import RunResult
from server.jobs.sources import plan_sources_now
from server.jobs.spec import Prepared, Report, RunSpec, StageClock
from server.jobs.stages.ahead import working_ahead
from server.jobs.stages.assigning import assign_groups, keep_labels
from server.jobs.stages.attributes import ALGORITHM, group_by_attributes
from server.jobs.stages.grouping import Found, find_groups
from server.jobs.stages.labeling import label_groups
from server.jobs.stages.loading import Documents, export_documents, load_documents
from server.jobs.stages.mapping import map_documents
from server.jobs.stages.resuming import groups_before, keep_groups, keep_places, places_before
from server.jobs.stages.sizing import require_room
from server.jobs.stages.work import Work
from server.jobs.stages.writing import write_results
from server.labeling.request import LLMLabeling
from server.labeling.samples import payload_fields
from server.qdrant.client import connect
from server.qdrant.shared import SharingClient
from server.results import enrich, outputs, retention
from server.results.artifacts import RunFolder


def prepare(spec: RunSpec, report: Report) -> Prepared:
    """Do everything up to the commit: results computed, artifacts whole, outputs staged.

    Raises
    ------
    ShoalError, ClusteringError
        Why the run failed, in words for its owner.
    """
    folder = _folder(spec, spec.run_id)
    folder.begin(spec.lease_number)
    with _connected(spec) as client, tracing.joined(spec.trace) as traces:
        plan = plan_sources_now(client, spec.qdrant_names, spec.definition)
        clock = StageClock(report, device_memory, traces, _seconds_since(spec.started_at))
        work = Work(spec, clock, folder, client, plan)
        require_room(work)
        with parallel.at_most(spec.n_threads), folder.export_dir() as directory:
            return _through_the_stages(work, directory)


def publish(spec: RunSpec, report: Report) -> list[str]:
    """Make a committed run visible, and let older ones go. Gives warnings, if any."""
    if spec.result is None:
        raise ValueError(f"run {spec.run_id} has no committed result to publish")
    if spec.result.skipped_reason is not None:
        return []
    warnings: list[str] = []
    with _connected(spec) as client, tracing.joined(spec.trace) as traces:
        if spec.definition.enrich_source_collection:
            warnings += _enrich(spec, StageClock(report, tracing=traces), client)
        for output in spec.result.outputs:
            outputs.publish_outputs(client, output)
    retention.apply_retention(
        spec.artifacts_url,
        spec.namespace_id,
        spec.cluster_id,
        (spec.run_id, *spec.earlier_successes),
        keep_runs=spec.keep_runs,
    )
    _folder(spec, spec.run_id).leave(spec.lease_number)
    return warnings


def discard(spec: RunSpec) -> None:
    """Remove the staged outputs and the artifacts of a run that will not be committed.

    No computing: the server does it in a thread of its own.
    """
    _folder(spec, spec.run_id).discard(spec.lease_number)  # First: Qdrant may be away.
    with _connected(spec) as client:
        for output in spec.outputs:
            outputs.discard_outputs(client, output)


def abandon(spec: RunSpec) -> None:
    """Remove what an attempt staged that was stopped because it had lost its run.

    Nothing else: the run's files, and other generations of its outputs, are the next attempt's.
    """
    _folder(spec, spec.run_id).sweep(spec.lease_number)
    with _connected(spec) as client:
        for output in spec.outputs:
            outputs.abandon_outputs(client, output)


def _through_the_stages(work: Work, directory: Path) -> Prepared:
    definition = work.spec.definition
    by_attributes = definition.attribute_config if definition.cluster_type == "attribute" else None
    labeling = definition.llm_labeling or LLMLabeling()
    fields = (WHOLE_PAYLOAD,) if by_attributes else payload_fields(labeling)
    assigns = work.spec.assign_to is not None  # Then groups keep their names.
    exported = export_documents(work, directory, fields)
    try:
        if exported.n_documents == 0:
            raise TooFewPointsError(n_points=0, needed=1)
        documents = load_documents(work, exported)
        found = groups_before(work, exported, documents) or _group(work, exported, documents)
    except TooFewPointsError as error:
        # The filter is to blame only where all that it matched would still be too few.
        if work.spec.definition.filters is None or exported.n_matched >= error.needed:
            raise
        return _skipped(work, exported, str(error))
    places = places_before(work, exported)
    if places is None:
        places = map_documents(work, documents, found.spaces)
        keep_places(work, exported, places)
    with working_ahead(work, documents, found) as ahead:
        labeled = keep_labels(work, found) if assigns else label_groups(work, documents, found)
        ahead.name(labeled.found.partitions)
        return write_results(
            work, exported, documents, labeled, ahead.measured, ahead.staged, places
        )


def _group(work: Work, exported: ExportReport, documents: Documents) -> Found:
    """Find the groups as the definition wants it, and keep them for later attempts."""
    definition = work.spec.definition
    if definition.cluster_type == "attribute" and definition.attribute_config is not None:
        found = group_by_attributes(work, documents, definition.attribute_config)
    elif work.spec.assign_to is not None:
        found = assign_groups(work, documents)
    else:
        found = find_groups(work, documents)
    keep_groups(work, exported, found)
    return found


def _skipped(work: Work, exported: ExportReport, why: str) -> Prepared:
    """End a run whose filter leaves too few documents: completed, with no groups."""
    definition = work.spec.definition
    reason = f"skipped: the filter leaves {exported.n_matched} documents; {why}"
    result = RunResult(
        algorithm=ALGORITHM
        if definition.cluster_type == "attribute"
        else work.config.clustering_method,
        num_clusters=0,
        num_documents=exported.n_documents,
        timings_s=work.clock.timings_s,
        timeline=dict(work.clock.timeline),
        skipped_reason=reason,
    )
    return Prepared(result, [*work.warnings, reason])


def _enrich(spec: RunSpec, clock: StageClock, client: SharingClient) -> list[str]:
    """Write the run's membership into its sources, forward from wherever it stopped."""
    folder = _folder(spec, spec.run_id)
    previous = None
    if spec.earlier_successes:
        try:
            previous = _folder(spec, spec.earlier_successes[0]).read_members()
        except NotFoundError:  # Retired: then only run ids tell what was ours.
            previous = None
    members = folder.read_members()
    with clock.stage("write", "enriching the source documents") as stage:
        report = enrich.enrich_sources(
            client,
            list(zip(spec.definition.collection_ids, spec.qdrant_names, strict=True)),
            members,
            folder.read_groups(with_centroids=False),
            spec.definition.enrichment,
            spec.run_id,
            previous,
            spec.previous_run_ids,
            progress=stage.count,
        )
    config = spec.definition.source_enrichment_config
    warnings = [
        f"no document has a {name}, so the field {target!r} was not written"
        for name, target in _without_value(members, config.field_mappings if config else ())
    ]
    if report.failed:
        warnings.append(f"{report.failed} documents were gone when their fields were to be written")
    return warnings


def _without_value(
    members: pa.Table, mappings: Sequence[FieldMapping]
) -> Iterator[tuple[str, str]]:
    """Find mappings of what no member of the run has: by attributes there are no distances."""
    for mapping in mappings:
        name = mapping.source_field
        if name in members.column_names and members[name].null_count == len(members):
            yield name, mapping.target_field


def _seconds_since(moment: datetime | None) -> float:
    """Count from a moment by the server's clock, which may be a little ahead of this one."""
    return 0.0 if moment is None else max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _folder(spec: RunSpec, run_id: str) -> RunFolder:
    return RunFolder(spec.artifacts_url, spec.namespace_id, spec.cluster_id, run_id)


@contextmanager
def _connected(spec: RunSpec) -> Iterator[SharingClient]:
    client = connect(spec.qdrant)
    try:
        yield client
    finally:
        client.close()
