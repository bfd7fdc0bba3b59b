"""The export stage: from Qdrant collections to Parquet parts, in flat memory.

Rows come in the order of the sources and, within one, in Qdrant's order of ids, so two
exports of unchanged collections are alike. Columns: `source_collection_id`,
`source_document_id` (a decimal number or a UUID), `vector` (or `vector_0`, …) as
FixedSizeList<float32>, and `payload` (JSON of the kept fields, null where there is none).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from qdrant_client import QdrantClient

from server.errors import NotFoundError
from server.export.errors import (
    ExportStoppedError,
    NoUsableDocumentsError,
    SourceMissingError,
)
from server.export.filters import Filter
from server.export.patience import DEFAULT_PATIENCE, Patience
from server.export.rows import LeftOut, RowBuilder
from server.export.scroll import scroll_pages
from server.export.sources import ExportSource, Plan, plan_source, total_points
from server.export.writer import PartWriter
from server.qdrant.client import QdrantAddress, channel, connect

__all__ = ["ExportReport", "ExportRequest", "ExportSource", "Progress", "export"]

Progress: TypeAlias = Callable[[int, int | None], None]


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and where to.

    Attributes
    ----------
    address : QdrantAddress
        Where Qdrant answers.
    sources : tuple of ExportSource
        In the order of the rows.
    filter : Filter or None
        Which documents; None for all.
    payload_fields : tuple of str
        Dot paths that later stages read; ``*`` for the whole payload.
    directory : str
        The folder that receives ``part-00000.parquet`` and so on.
    distance : str
        Qdrant's word: Cosine, Dot, Euclid or Manhattan. All-zero vectors are left out for
        the first two.
    page_size, row_group_rows, rows_per_file : int
        Points per call; rows per row group (at most 64 MiB) and per part.
    patience : Patience
        How long a Qdrant that is away is waited for.
    """

    address: QdrantAddress
    sources: tuple[ExportSource, ...]
    filter: Filter | None
    payload_fields: tuple[str, ...]
    directory: str
    distance: str = "Cosine"
    page_size: int = 1000
    row_group_rows: int = 16_384
    rows_per_file: int = 1_000_000
    patience: Patience = DEFAULT_PATIENCE


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes
    ----------
    files : tuple of str
        Paths of the parts in order; empty when no document passed the filter.
    n_documents : int
        Rows written.
    n_matched : int
        Documents that passed the filter: `n_documents` and those left out.
    left_out : LeftOut
        Documents without a usable vector.
    source_bucket_ids : tuple of str
        Distinct values of the payload field `source_bucket_id` in the rows, sorted.
    columns : tuple of str
        Names of the vector columns.
    n_dims : dict of str to int
        Dimensions per vector column; empty when there are no rows.
    seconds : float
        Wall-clock time.
    n_bytes : int
        Size of all parts.
    checksums : dict of str to str
        SHA-256 in hexadecimal, per file.
    """

    files: tuple[str, ...]
    n_documents: int
    n_matched: int
    left_out: LeftOut
    source_bucket_ids: tuple[str, ...]
    columns: tuple[str, ...]
    n_dims: Mapping[str, int]
    seconds: float
    n_bytes: int
    checksums: Mapping[str, str]


def export(
    request: ExportRequest,
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ExportReport:
    """Export the documents that pass the filter.

    Parameters
    ----------
    request : ExportRequest
        What to export.
    progress : callable, optional
        ``progress(n_read, n_total)`` after each page; the total is None when unknown.
    should_stop : callable, optional
        Asked before each page.

    Raises
    ------
    RunFailure
        One of `server.export.errors`; nothing of this export is left in the folder.
    QdrantUnavailableError
        If Qdrant stayed away for longer than the request's patience.
    """
    started = time.monotonic()

    rows = RowBuilder(
        len(request.sources[0].vector_names), request.payload_fields, request.distance
    )
    client = connect(request.address)
    try:
        plans = [_patient_plan(client, source, request, should_stop) for source in request.sources]
        report = _Reporter(progress, total_points(client, plans))
        with (
            PartWriter(
                request.directory,
                row_group_rows=request.row_group_rows,
                rows_per_file=request.rows_per_file,
            ) as writer,
            channel(request.address) as wire,
        ):
            for plan in plans:
                pages = scroll_pages(
                    wire,
                    request.address,
                    plan.query,
                    patience=request.patience,
                    should_stop=should_stop,
                )
                for page in pages:
                    batch = rows.batch(
                        plan.source.collection_id, plan.source.vector_names, page, plan.passes
                    )
                    if batch is not None:
                        writer.write(batch)
                    report.add(len(page))
            _check_any_usable(rows)
            files = writer.finish()
    except NotFoundError as error:
        raise SourceMissingError(f"the export cannot read its source: {error}") from error
    finally:
        client.close()
    return ExportReport(
        files=tuple(file.path for file in files),
        n_documents=rows.n_exported,
        n_matched=rows.n_matched,
        left_out=rows.left_out,
        source_bucket_ids=tuple(sorted(rows.buckets)),
        columns=rows.columns,
        n_dims=dict(rows.n_dims),
        seconds=time.monotonic() - started,
        n_bytes=sum(file.n_bytes for file in files),
        checksums={file.path: file.sha256 for file in files},
    )


def _patient_plan(
    client: QdrantClient,
    source: ExportSource,
    request: ExportRequest,
    should_stop: Callable[[], bool] | None,
) -> Plan:
    def check_stop() -> None:
        if should_stop is not None and should_stop():
            raise ExportStoppedError("the export was stopped before it read a document")

    def attempt() -> Plan:
        return plan_source(
            client,
            source,
            filter=request.filter,
            payload_fields=request.payload_fields,
            page_size=request.page_size,
        )

    return request.patience.bear(attempt, check_stop)


class _Reporter:
    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._n_read = 0

    def add(self, n_read: int) -> None:
        self._n_read += n_read
        if self._progress is not None:
            # Documents may be added while they are read; never report more than all.
            total = None if self._total is None else max(self._total, self._n_read)
            self._progress(self._n_read, total)


def _check_any_usable(rows: RowBuilder) -> None:
    if rows.n_matched and not rows.n_exported:
        raise NoUsableDocumentsError(
            f"none of the {rows.n_matched} documents has a usable vector: "
            f"{rows.left_out.describe()}",
            n_matched=rows.n_matched,
        )
