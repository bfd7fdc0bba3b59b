"""The export stage: from Qdrant collections to Parquet parts, in flat memory.

Rows come in the order of the sources and, within one, in Qdrant's order of ids, however many
ranges of ids are read at once: two exports of unchanged collections are alike. Columns:
`source_collection_id`, `source_document_id` (a decimal number or a UUID), `vector` (or
`vector_0`, …) as FixedSizeList<float32>, and `payload` (JSON of the kept fields, null where
there is none).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
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
from server.export.scroll import IdRange, scroll_pages
from server.export.sources import ExportSource, Plan, plan_source, total_points
from server.export.writer import PartFolder
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
        Points per call and rows per row group, fewer where they are large; rows per part.
    max_ranges : int
        Ranges of ids that are read at once.
    patience : Patience
        How long a Qdrant that is away is waited for.
    """

    address: QdrantAddress
    sources: tuple[ExportSource, ...]
    filter: Filter | None
    payload_fields: tuple[str, ...]
    directory: str
    distance: str = "Cosine"
    page_size: int = 2500
    row_group_rows: int = 16_384
    rows_per_file: int = 1_000_000
    max_ranges: int = 4
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
        ``progress(n_read, n_total)`` after each page, from the calling thread; the total is
        None when unknown.
    should_stop : callable, optional
        Asked before each page, from several threads.

    Raises
    ------
    RunFailure
        One of `server.export.errors`; nothing of this export is left in the folder.
    QdrantUnavailableError
        If Qdrant stayed away for longer than the request's patience.
    """
    started = time.monotonic()

    client = connect(request.address)
    try:
        plans = [_patient_plan(client, source, request, should_stop) for source in request.sources]
        report = _Reporter(progress, total_points(client, plans))
        with (
            PartFolder(
                request.directory,
                row_group_rows=request.row_group_rows,
                rows_per_file=request.rows_per_file,
            ) as folder,
            channel(request.address) as wire,
        ):
            rows = _read_all(_Reading(request, wire, folder, should_stop), plans, report)
            _check_any_usable(rows)
            files = folder.publish()
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


@dataclass
class _Reading:
    """What the ranges of an export share while they are read side by side."""

    request: ExportRequest
    wire: grpc.Channel
    folder: PartFolder
    should_stop: Callable[[], bool] | None
    n_read: queue.SimpleQueue[int | None] = field(default_factory=queue.SimpleQueue)
    has_failed: threading.Event = field(default_factory=threading.Event)

    def read(self, number: int, plan: Plan, within: IdRange) -> RowBuilder:
        """Read one range into the piece with that number, and count its rows."""
        rows = self.rows()
        try:
            piece = self.folder.piece(number)
            for page in scroll_pages(
                self.wire,
                self.request.address,
                plan.query,
                within,
                patience=self.request.patience,
                should_stop=self._is_over,
            ):
                batch = rows.batch(
                    plan.source.collection_id, plan.source.vector_names, page, plan.passes
                )
                if batch is not None:
                    piece.write(batch)
                self.n_read.put(len(page))
            piece.finish()
        except BaseException:
            self.has_failed.set()
            raise
        finally:
            self.n_read.put(None)
        return rows

    def rows(self) -> RowBuilder:
        """Begin to count rows."""
        request = self.request
        n_vectors = len(request.sources[0].vector_names)
        return RowBuilder(n_vectors, request.payload_fields, request.distance)

    def _is_over(self) -> bool:
        return self.has_failed.is_set() or (self.should_stop is not None and self.should_stop())


def _read_all(reading: _Reading, plans: Sequence[Plan], report: _Reporter) -> RowBuilder:
    """Read all ranges, some of them at once, and add their counts up in order."""
    pieces = [(plan, within) for plan in plans for within in plan.ranges]
    n_threads = min(reading.request.max_ranges, len(pieces))
    with ThreadPoolExecutor(n_threads, thread_name_prefix="export-read") as pool:
        readers = [pool.submit(reading.read, number, *piece) for number, piece in enumerate(pieces)]
        try:
            n_reading = len(readers)
            while n_reading:
                n_read = reading.n_read.get()
                if n_read is None:
                    n_reading -= 1
                else:
                    report.add(n_read)
        except BaseException:
            reading.has_failed.set()
            raise
    _raise_first([reader.exception() for reader in readers])
    rows = reading.rows()
    for reader in readers:
        rows.absorb(reader.result())
    return rows


def _raise_first(errors: Sequence[BaseException | None]) -> None:
    """Raise what went wrong, and not what was stopped because of it."""
    told = [error for error in errors if error is not None]
    for error in sorted(told, key=lambda error: isinstance(error, ExportStoppedError)):
        raise error


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
            max_ranges=request.max_ranges,
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
