"""Writes a finished run's membership into a collection, on a caller's word.

The collection is usually one that the run clustered; another one of the namespace gets the
fields wherever it holds documents of the same ids. Every write may be repeated: the values
are the run's, so a second call leaves what the first one left.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError
from qdrant_client import QdrantClient

from server.errors import InvalidRequestError, Violation
from server.export.filters import Filter, parse_filter
from server.export.parquet import ExportRequest, ExportSource, export
from server.jobs.checks import COLLECTION_ID, faults_of
from server.jobs.definition import FieldMapping, SourceEnrichmentConfig, dimensions_of
from server.jobs.findings import Findings
from server.jobs.maps import Maps
from server.jobs.model import ClusterRecord, RunRecord
from server.qdrant.client import QdrantAddress, connect
from server.qdrant.errors import CollectionNotFoundError
from server.qdrant.schema import describe
from server.requests import shorten, violations_of
from server.results.artifacts import RunFolder
from server.results.enrich import MAX_BATCH_DOCUMENTS, EnrichReport, enrich_sources
from server.results.fields import KEYS
from server.results.maps import with_places
from server.results.names import renamed_groups
from server.results.writes import ShouldStop
from server.tenancy import Caller

MAX_BATCH_SIZE = 10_000
_CONFIG = "source_enrichment_config"


@dataclass(frozen=True)
class Wanted:
    """What a caller wants written where.

    Attributes
    ----------
    run_id : str or None
        None: the newest successful run.
    mappings : tuple of FieldMapping or None
        None: those of the run's own definition.
    filter : Filter or None
        Which documents of the collection; None for all.
    """

    cluster_id: str
    run_id: str | None
    collection_id: str
    mappings: tuple[FieldMapping, ...] | None = None
    filter: Filter | None = None
    batch_documents: int = MAX_BATCH_DOCUMENTS


@dataclass(frozen=True)
class Enriched:
    """What was written; `warnings` say what was not."""

    cluster: ClusterRecord
    run: RunRecord
    collection_id: str
    report: EnrichReport
    warnings: list[str]


@dataclass(frozen=True)
class _Target:
    """The collection that is written, under the caller's name for it and Qdrant's."""

    collection_id: str
    qdrant_name: str
    is_source: bool


def parse_enrichment(raw: Mapping[str, Any]) -> Wanted:
    """Check a request's JSON.

    Raises
    ------
    InvalidRequestError
        With every fault.
    """
    violations = list(_faults_of_fields(raw))
    config, tree = None, None
    try:
        if _CONFIG in raw:
            config = SourceEnrichmentConfig.model_validate(raw[_CONFIG])
    except ValidationError as error:
        violations += violations_of(error, f"{_CONFIG}.")
    try:
        tree = parse_filter(raw["filters"]) if raw.get("filters") else None
    except InvalidRequestError as error:
        violations += error.violations
    if violations:
        raise InvalidRequestError(violations)
    return Wanted(
        cluster_id=raw["cluster_id"],
        run_id=raw.get("run_id") or None,
        collection_id=raw["collection_id"],
        mappings=tuple(config.field_mappings) if config is not None else None,
        filter=tree,
        batch_documents=raw.get("batch_size", MAX_BATCH_DOCUMENTS),
    )


def _faults_of_fields(raw: Mapping[str, Any]) -> Iterator[Violation]:
    for name in ("cluster_id", "collection_id"):
        if not raw.get(name):
            yield Violation(name, "required")
    collection_id = raw.get("collection_id", "")
    if collection_id and ("__" in collection_id or not COLLECTION_ID.fullmatch(collection_id)):
        yield Violation("collection_id", f"{shorten(collection_id)} is no collection id")
    if not 1 <= raw.get("batch_size", 1) <= MAX_BATCH_SIZE:
        yield Violation("batch_size", f"sent {raw['batch_size']}; allowed: 1 to {MAX_BATCH_SIZE}")
    if _CONFIG in raw:  # By the rules of definitions, of which it is a part.
        faults = faults_of({_CONFIG: raw[_CONFIG]})
        yield from (fault for fault in faults if fault.field.startswith(_CONFIG))


class Enrichments:
    """Writes the membership of runs into collections."""

    def __init__(self, findings: Findings, maps: Maps, qdrant: QdrantAddress) -> None:
        self._findings = findings
        self._maps = maps
        self._qdrant = qdrant

    async def enrich(
        self, caller: Caller, wanted: Wanted, within_s: float | None = None
    ) -> Enriched:
        """Write, and tell what was written. Ends early, between two writes, if it is canceled.

        Parameters
        ----------
        within_s : float or None
            How long the caller waits; only for a map that is still to be made.

        Raises
        ------
        NoResultsError, NoMapError
            If the run has no groups, or places are asked for and it can have no map.
        CollectionNotFoundError
            If the namespace has no such collection.
        """
        cluster, run = await self._findings.finished(caller, wanted.cluster_id, wanted.run_id)
        folder = self._findings.folder(cluster, run)
        target = _Target(
            wanted.collection_id,
            caller.qdrant_name(wanted.collection_id),
            wanted.collection_id in run.definition.collection_ids,
        )
        n_dims = dimensions_of(wanted.mappings or run.definition.enrichment)
        if n_dims is not None:
            await self._maps.have(cluster, run, n_dims, within_s)
        stopped = threading.Event()
        try:
            report, warnings = await asyncio.to_thread(
                self._write, wanted, run, folder, target, n_dims, stopped.is_set
            )
        finally:
            stopped.set()
        return Enriched(cluster, run, wanted.collection_id, report, warnings)

    def _write(
        self,
        wanted: Wanted,
        run: RunRecord,
        folder: RunFolder,
        target: _Target,
        n_dims: int | None,
        should_stop: ShouldStop,
    ) -> tuple[EnrichReport, list[str]]:
        warnings: list[str] = []
        client = connect(self._qdrant)
        try:
            _check_exists(client, target)
            members = folder.read_members()
            if n_dims is not None:
                members = with_places(members, folder, n_dims)
            members = _members_for(members, target)
            if not target.is_source:
                members = _without_twins(members, warnings)
            if wanted.filter is not None:
                members = self._filtered(members, wanted.filter, target, warnings, should_stop)
            report = enrich_sources(
                client,
                [(target.collection_id, target.qdrant_name)],
                members,
                renamed_groups(folder.read_groups(with_centroids=False), run.renamed),
                wanted.mappings or run.definition.enrichment,
                run.run_id,
                batch_documents=wanted.batch_documents,
                should_stop=should_stop,
            )
        finally:
            client.close()
        if report.failed:
            warnings.append(
                f"{report.failed:,} documents of the run are not in {target.collection_id}"
            )
        return report, warnings

    def _filtered(
        self,
        members: pa.Table,
        tree: Filter,
        target: _Target,
        warnings: list[str],
        should_stop: ShouldStop,
    ) -> pa.Table:
        """Keep the members whose documents match now."""
        with tempfile.TemporaryDirectory(prefix="shoal-enrich-") as directory:
            matching = export(
                ExportRequest(
                    address=self._qdrant,
                    sources=(ExportSource(target.collection_id, target.qdrant_name, ()),),
                    filter=tree,
                    payload_fields=(),
                    directory=directory,
                ),
                should_stop=should_stop,
            )
            parts = [pq.read_table(f, columns=["source_document_id"]) for f in matching.files]
        ids = pa.concat_tables(parts)[0] if parts else pa.chunked_array([], pa.string())
        kept = members.filter(
            pc.is_in(members["source_document_id"], value_set=ids.combine_chunks())
        )
        if len(kept) < len(ids):
            warnings.append(
                f"{len(ids) - len(kept):,} documents that match are not among the run's; they "
                "were left as they are"
            )
        return kept


def _check_exists(client: QdrantClient, target: _Target) -> None:
    try:
        describe(client, target.qdrant_name)
    except CollectionNotFoundError as error:  # By the name that its caller knows.
        raise CollectionNotFoundError(target.collection_id) from error


def _members_for(members: pa.Table, target: _Target) -> pa.Table:
    """Choose the run's documents that belong to a collection, as documents of that one."""
    if target.is_source:
        return members.filter(pc.equal(members["source_collection_id"], target.collection_id))
    position = members.schema.get_field_index("source_collection_id")
    here = pa.array([target.collection_id], pa.string()).take(
        pa.array([0] * len(members), pa.int32())
    )
    return members.set_column(position, members.schema.field(position), here)


def _without_twins(members: pa.Table, warnings: list[str]) -> pa.Table:
    """Drop documents whose id several of the run's collections have: no one group is theirs."""
    documents = members.group_by(KEYS).aggregate([])  # One may be in several groups.
    counted = documents.group_by("source_document_id").aggregate([([], "count_all")])
    twins = counted.filter(pc.greater(counted["count_all"], 1))["source_document_id"]
    if len(twins):
        warnings.append(
            f"{len(twins):,} ids are in several collections of the run; they were left as they are"
        )
    is_twin = pc.is_in(members["source_document_id"], value_set=twins.combine_chunks())
    return members.filter(pc.invert(is_twin))
