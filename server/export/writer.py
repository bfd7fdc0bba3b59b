"""Parquet parts written by a thread of their own, in view only when all are whole.

Parts are written as ``.part-00000-00000.parquet.tmp``, by the number of their piece and their
own, and renamed after the last byte of the last one is on disk; a process that dies before
that leaves no ``part-*.parquet``. Leftovers of the dead are removed by the next export into
the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from server.export.errors import ExportStorageError
from server.export.parquet_file import VectorParquetWriter

_QUEUED_BATCHES: Final = 4
_ROW_GROUP_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class PartFile:
    """A finished file: its path, its size in bytes, and its SHA-256 in hexadecimal."""

    path: str
    n_bytes: int
    sha256: str


class _HashingFile:
    """A file that hashes what it is given. Parquet is only ever appended to."""

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

    def close(self) -> None:
        """Put the bytes on the disk, then close."""
        if not self.closed:
            self.closed = True
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


class PartFolder:
    """The folder of one export: pieces written side by side, in view together and in order.

    Use as a context manager: leaving it by an exception removes what was written; `publish`
    makes the parts visible.

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
        self._pieces: dict[int, PartWriter] = {}

    def __enter__(self) -> Self:
        with self._told():
            self._directory.mkdir(parents=True, exist_ok=True)
            for stale in self._directory.glob(".part-*.parquet.tmp"):
                stale.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for piece in self._pieces.values():
            piece.discard()

    def piece(self, number: int) -> PartWriter:
        """Begin a piece; its rows come behind those of the pieces with lower numbers."""
        path = self._directory / f".part-{number:05d}"
        self._pieces[number] = PartWriter(
            path, self._row_group_rows, self._rows_per_file, self._told
        )
        return self._pieces[number]

    def publish(self) -> tuple[PartFile, ...]:
        """Rename the parts of all pieces into view, once each piece is finished."""
        parts = [part for _, piece in sorted(self._pieces.items()) for part in piece.parts]
        finished = []
        with self._told():
            for number, (path, file) in enumerate(parts):
                final = self._directory / f"part-{number:05d}.parquet"
                path.replace(final)
                finished.append(PartFile(str(final), file.n_bytes, file.hash.hexdigest()))
            self._remove_earlier({part.path for part in finished})
            _sync_directory(self._directory)
        self._pieces = {}
        return tuple(finished)

    def _remove_earlier(self, kept: set[str]) -> None:
        """Parts of an earlier attempt that had more of them would be read along with ours."""
        for path in self._directory.glob("part-*.parquet"):
            if str(path) not in kept:
                path.unlink()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell a fault of the disk in words, with what is free on it."""
        try:
            yield
        except OSError as error:
            free_bytes = None
            with suppress(OSError):
                places = (self._directory, *self._directory.parents)
                existing = next(place for place in places if place.exists())
                free_bytes = shutil.disk_usage(existing).free
            why = "the disk is full" if error.errno == errno.ENOSPC else str(error)
            free = "" if free_bytes is None else f"; {free_bytes:,} bytes are free"
            raise ExportStorageError(
                f"cannot write the export to {self._directory}: {why}{free}",
                free_bytes=free_bytes,
            ) from error


class PartWriter:
    """Writes the record batches of one piece of an export, in a thread of its own.

    An error of that thread is raised by the next call.

    Attributes
    ----------
    parts : list of (path, file)
        What was written so far, not in view yet.
    """

    def __init__(
        self,
        path: Path,
        row_group_rows: int,
        rows_per_file: int,
        told: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.parts: list[tuple[Path, _HashingFile]] = []
        self._path = path
        self._row_group_rows = row_group_rows
        self._rows_per_file = rows_per_file
        self._told = told
        self._queue: queue.Queue[pa.RecordBatch | None] = queue.Queue(_QUEUED_BATCHES)
        self._error: BaseException | None = None
        self._writer: VectorParquetWriter | None = None
        self._rows_in_file = 0
        self._thread = threading.Thread(target=self._run, name="export-writer", daemon=True)
        self._thread.start()

    def write(self, batch: pa.RecordBatch) -> None:
        """Hand over rows; waits while the writer is some batches behind."""
        self._check()
        self._queue.put(batch)

    def finish(self) -> None:
        """Wait until the last byte is on the disk."""
        self._join()
        self._check()

    def discard(self) -> None:
        """Remove what was written."""
        self._join()
        for path, file in self.parts:
            with suppress(OSError):  # The disk that failed the export may fail this too.
                file.close()
            path.unlink(missing_ok=True)

    def _check(self) -> None:
        if self._error is not None:
            with self._told():
                raise self._error

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
                self._write_group(batches)
        except BaseException as error:
            self._error = error

    def _guarded_close(self) -> None:
        try:
            self._close_part()
        except BaseException as error:
            self._error = error

    def _write_group(self, batches: list[pa.RecordBatch]) -> None:
        if self._writer is None:
            path = self._path.with_name(f"{self._path.name}-{len(self.parts):05d}.parquet.tmp")
            file = _HashingFile(path)
            self.parts.append((path, file))
            self._writer = VectorParquetWriter(file, batches[0].schema)
        self._writer.write_row_group(batches)
        self._rows_in_file += sum(batch.num_rows for batch in batches)
        if self._rows_in_file >= self._rows_per_file:
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is not None:
            writer, self._writer, self._rows_in_file = self._writer, None, 0
            writer.close()
            self.parts[-1][1].close()


def _sync_directory(directory: Path) -> None:
    """Make the renames outlive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
