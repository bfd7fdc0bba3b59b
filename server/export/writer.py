"""Parquet parts written by a thread of their own, in view only when all are whole.

Parts are written as ``.part-00000.parquet.tmp`` and renamed after the last byte of the last
one is on disk; a process that dies before that leaves no ``part-*.parquet``. Leftovers of
the dead are removed by the next export into the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from server.export.errors import ExportStorageError

_QUEUED_BATCHES: Final = 4
_ROW_GROUP_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class PartFile:
    """A finished file: its path, its size in bytes, and its SHA-256 in hexadecimal."""

    path: str
    n_bytes: int
    sha256: str


class _HashingFile:
    """A file for Arrow that hashes what it is given. Parquet is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.hash = hashlib.sha256()
        self.n_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.hash.update(view)
        self.n_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.n_bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Put the bytes on the disk, then close."""
        if not self.closed:
            self.closed = True
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


class PartWriter:
    """Writes record batches to the parts of one export.

    Use as a context manager: leaving it by an exception removes what was written; `finish`
    makes the parts visible. An error of the writing thread is raised by the next call.

    Parameters
    ----------
    directory : str
        Created if it is not there.
    row_group_rows : int
        Rows per row group; fewer where that would hold more than 64 MiB.
    rows_per_file : int
        A part that has this many rows is closed and the next one begun.
    """

    def __init__(self, directory: str, *, row_group_rows: int, rows_per_file: int) -> None:
        self._directory = Path(directory)
        self._row_group_rows = row_group_rows
        self._rows_per_file = rows_per_file
        self._queue: queue.Queue[pa.RecordBatch | None] = queue.Queue(_QUEUED_BATCHES)
        self._error: BaseException | None = None
        self._parts: list[tuple[Path, _HashingFile]] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows_in_file = 0
        self._thread = threading.Thread(target=self._run, name="export-writer", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for stale in self._directory.glob(".part-*.parquet.tmp"):
                stale.unlink()
        except OSError as error:
            raise self._told(error) from error
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._join()
        for path, file in self._parts:
            with suppress(OSError):  # The disk that failed the export may fail this too.
                file.close()
            path.unlink(missing_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        """Hand over rows; waits while the writer is four batches behind."""
        self._check()
        self._queue.put(batch)

    def finish(self) -> tuple[PartFile, ...]:
        """Wait for the last byte, then rename the parts into view."""
        self._join()
        self._check()
        finished = []
        try:
            for path, file in self._parts:
                final = path.with_name(path.name.removeprefix(".").removesuffix(".tmp"))
                path.replace(final)
                finished.append(PartFile(str(final), file.n_bytes, file.hash.hexdigest()))
            self._remove_earlier({part.path for part in finished})
            _sync_directory(self._directory)
        except OSError as error:
            raise self._told(error) from error
        self._parts = []
        return tuple(finished)

    def _remove_earlier(self, kept: set[str]) -> None:
        """Parts of an earlier attempt that had more of them would be read along with ours."""
        for path in self._directory.glob("part-*.parquet"):
            if str(path) not in kept:
                path.unlink()

    def _check(self) -> None:
        if self._error is not None:
            if isinstance(self._error, OSError):
                raise self._told(self._error) from self._error
            raise self._error

    def _told(self, error: OSError) -> ExportStorageError:
        """The fault in words, with what is free on the disk."""
        free_bytes = None
        with suppress(OSError):
            existing = next(p for p in (self._directory, *self._directory.parents) if p.exists())
            free_bytes = shutil.disk_usage(existing).free
        why = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        free = "" if free_bytes is None else f"; {free_bytes:,} bytes are free"
        return ExportStorageError(
            f"cannot write the export to {self._directory}: {why}{free}",
            free_bytes=free_bytes,
        )

    def _join(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        """The writing thread. After an error it goes on taking, so that nobody waits for it."""
        waiting: list[pa.RecordBatch] = []
        n_rows = 0
        while (batch := self._queue.get()) is not None:
            if self._error is not None:
                continue
            waiting.append(batch)
            n_rows += batch.num_rows
            n_bytes = sum(b.nbytes for b in waiting)
            if n_rows >= self._row_group_rows or n_bytes >= _ROW_GROUP_BYTES:
                self._guarded_write(waiting)
                waiting, n_rows = [], 0
        if self._error is None:
            self._guarded_write(waiting)
            self._guarded_close()

    def _guarded_write(self, batches: list[pa.RecordBatch]) -> None:
        try:
            if batches:
                self._write_group(pa.Table.from_batches(batches))
        except BaseException as error:
            self._error = error

    def _guarded_close(self) -> None:
        try:
            self._close_part()
        except BaseException as error:
            self._error = error

    def _write_group(self, table: pa.Table) -> None:
        if self._writer is None:
            name = f".part-{len(self._parts):05d}.parquet.tmp"
            path = self._directory / name
            file = _HashingFile(path)
            self._parts.append((path, file))
            # Vectors do not shrink under compression or dictionaries, they only get slow.
            self._writer = pq.ParquetWriter(
                pa.PythonFile(file, mode="w"),
                table.schema,
                compression="none",
                use_dictionary=["source_collection_id"],
                write_statistics=False,
            )
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._rows_in_file += table.num_rows
        if self._rows_in_file >= self._rows_per_file:
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is not None:
            writer, self._writer, self._rows_in_file = self._writer, None, 0
            writer.close()
            self._parts[-1][1].close()


def _sync_directory(directory: Path) -> None:
    """Make the renames outlive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
