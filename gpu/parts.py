"""A matrix in parts that several processes hold, and what k-means does with each part.

A part is some row groups of one Parquet file. Whoever keeps it reads it from there when it is
first asked about it, and every question carries all that an answer needs: so a part can be asked
of another process when its keeper is gone. How rows are cut into parts depends on the files alone.

Sums over points are whole multiples of a tiny unit. Adding those is exact in any order, so the
result does not depend on how many processes share the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpu.centroid_search import CentroidSearch, bundle, most_bundles
from gpu.errors import HostMemoryError
from gpu.frames import load_row_groups, require_column
from gpu.groups import squared_distances
from gpu.lloyd import GroupSums
from gpu.memory import free_bytes
from gpu.parallel import Each, blas_libraries, one_by_one, worker_threads
from gpu.seeding import distinct_rows
from gpu.vectors import require_finite, row_blocks, unit_rows

Array = Any
OpenFile = Callable[[str], BinaryIO]
"""Opens one of the files by its URL, in whatever process."""

PART_BYTES = 64 << 20
"""Row groups are taken together up to about this size of matrix, or less where that gives fewer
than `MANY_PARTS`."""

MANY_PARTS = 32


@dataclass(frozen=True)
class PartSource:
    """Where a part is read from: `row_groups` of the file at `url`."""

    url: str
    column: str
    row_groups: tuple[int, ...]
    n_rows: int
    n_dims: int


def cut_parts(
    urls: Sequence[str], column: str, open_file: OpenFile, part_bytes: int
) -> list[PartSource]:
    """Cut files into parts of about so many bytes, in the order of their rows.

    Raises
    ------
    InvalidVectorsError
        If a file lacks the column.
    """
    import pyarrow.parquet as pq

    parts = []
    for url in urls:
        with open_file(url) as opened, pq.ParquetFile(opened) as file:
            require_column(file.schema_arrow.names, column, url)
            n_dims = int(file.schema_arrow.field(column).type.list_size)
            groups = range(file.metadata.num_row_groups)
            sizes = [file.metadata.row_group(group).num_rows for group in groups]
        taken: list[int] = []
        n_rows = 0
        for group, size in enumerate(sizes):
            if taken and 4 * n_dims * (n_rows + size) > part_bytes:
                parts.append(PartSource(url, column, tuple(taken), n_rows, n_dims))
                taken, n_rows = [], 0
            taken.append(group)
            n_rows += size
        if n_rows:
            parts.append(PartSource(url, column, tuple(taken), n_rows, n_dims))
    return parts


def suitable_part_bytes(n_points: int, n_dims: int) -> int:
    """Give a size of part that leaves something for many workers."""
    return min(PART_BYTES, 4 * n_points * n_dims // MANY_PARTS)


def part_memory(source: PartSource) -> int:
    """Tell the bytes that a keeper needs for a part: rows, their bounds, labels."""
    bounds = most_bundles(1 << 30, source.n_dims)
    return source.n_rows * (4 * (source.n_dims + bounds) + 64)


@dataclass(frozen=True)
class Frame:
    """What is taken off every row, and what the rest is divided by, for accurate float32 scores."""

    origin: NDArray[np.float64]
    scale: float


@dataclass(frozen=True)
class Moments:
    """What a part tells of its rows: their sum, the sum of their squared lengths, the largest
    coordinate.
    """

    n_rows: int
    squares: float
    total: NDArray[np.float64]
    largest: float


@dataclass(frozen=True)
class Totals:
    """Sums per group, in units, counts per group, and how many points have changed their group."""

    sums: NDArray[np.int64]
    counts: NDArray[np.int64]
    n_changed: int

    def __add__(self, other: Totals) -> Totals:
        """Add the sums of other points."""
        n_changed = self.n_changed + other.n_changed
        return Totals(self.sums + other.sums, self.counts + other.counts, n_changed)


class Part:
    """The rows of one part, and where k-means is with them."""

    def __init__(self, points: Array, each: Each) -> None:
        self._points, self._each = points, each
        self._frame: Frame | None = None
        self._search: CentroidSearch | None = None
        self._sums = GroupSums(points, 0, each)

    @property
    def n_rows(self) -> int:
        """Count the rows."""
        return len(self._points)

    def put_into(self, frame: Frame | None) -> None:
        """Bring the rows into a frame, once; in place."""
        if frame is None or self._frame is not None:
            return
        for rows in row_blocks(len(self._points), 8 * self._points.shape[1]):
            self._points[rows] = (self._points[rows] - frame.origin) / frame.scale
        self._frame = frame

    def moments(self) -> Moments:
        """Sum up the rows."""
        squares, total, largest = 0.0, np.zeros(self._points.shape[1]), 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in row_blocks(len(self._points), 8 * self._points.shape[1]):
                block = self._points[rows].astype(np.float64)
                squares += float(np.einsum("ij,ij->", block, block))
                total += block.sum(axis=0)
                largest = max(largest, float(np.abs(block).max()))
        return Moments(len(self._points), squares, total, largest)

    def reach(self, origin: NDArray[np.float64]) -> float:
        """Give the largest coordinate's distance from the origin's."""
        blocks = row_blocks(len(self._points), 8 * self._points.shape[1])
        return max(float(np.abs(self._points[rows] - origin).max()) for rows in blocks)

    def take(self, rows: NDArray[np.int64]) -> Array:
        """Give some rows."""
        return self._points[rows]

    def distinct(self, most: int) -> Array:
        """Give the first rows that differ, at most so many."""
        return self._points[distinct_rows(self._points)[:most]]

    def begin(self, centroids: Array, unit: float) -> Totals:
        """Find the nearest centroid of every row."""
        self._search = CentroidSearch(
            self._points, centroids, bundle(centroids, self._each), self._each
        )
        self._sums = GroupSums(self._points, len(centroids), self._each)
        self._sums.recount(self._search.labels)
        return self._totals(unit, len(self._points))

    def follow(self, centroids: Array, shifts: NDArray[np.float32], unit: float) -> Totals:
        """Bring every row to its nearest centroid, after each moved by its shift."""
        if self._search is None:  # Another process has had it so far.
            return self.begin(centroids, unit)
        before = self._search.labels.copy()
        changed = self._search.follow(centroids, shifts)
        self._sums.move(changed, before, self._search.labels)
        return self._totals(unit, len(changed))

    def farthest(
        self, centroids: Array, most: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32]]:
        """Give the squared distances of the rows farthest from their centroids, rows and groups."""
        search = self._searched(centroids)
        distances = squared_distances(self._points, centroids, search.labels, self._each)
        rows = np.argsort(-distances, kind="stable")[:most]
        return distances[rows], rows, search.labels[rows]

    def move(
        self, centroids: Array, unit: float, rows: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> Totals:
        """Put rows into other groups by force."""
        search = self._searched(centroids)
        before = search.labels.copy()
        for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
            search.move(row, group)
        self._sums.move(np.sort(rows), before, search.labels)
        return self._totals(unit, len(rows))

    def finish(self, centroids: Array) -> tuple[NDArray[np.int32], float]:
        """Give the group of every row, and the summed squared distances to their centroids."""
        labels = self._searched(centroids).labels
        distances = squared_distances(self._points, centroids, labels, self._each)
        return labels, float(distances.sum(dtype=np.float64))

    def _searched(self, centroids: Array) -> CentroidSearch:
        if self._search is None:
            self.begin(centroids, 1.0)
        assert self._search is not None
        return self._search

    def _totals(self, unit: float, n_changed: int) -> Totals:
        sums = np.rint(self._sums.sums / unit).astype(np.int64)
        return Totals(sums, self._sums.counts.copy(), n_changed)


class PartKeeper:
    """The parts that one process holds.

    Parameters
    ----------
    open_file : callable
    angular : bool
        Whether rows are scaled to length 1.
    n_threads : int or None
        None: one per core.
    """

    def __init__(self, open_file: OpenFile, angular: bool, n_threads: int | None = None) -> None:
        self._open_file, self._angular, self._n_threads = open_file, angular, n_threads
        self._parts: dict[int, Part] = {}
        self._blas: Any = None
        self._each_now: Each = one_by_one

    def per_part(
        self,
        sources: Mapping[int, PartSource],
        frame: Frame | None,
        question: str,
        details: tuple[Any, ...],
        own: Mapping[int, tuple[Any, ...]],
    ) -> dict[int, Any]:
        """Ask each of some parts the same; `own` has what only one of them is told."""
        self._blas = self._blas or blas_libraries()  # There are many questions.
        with worker_threads(self._n_threads, self._blas) as each:
            self._each_now = each
            return {
                number: getattr(self._part(number, source, frame), question)(
                    *details, *own.get(number, ())
                )
                for number, source in sources.items()
            }

    def totals(self, *asked: Any) -> dict[int, Any]:
        """As `per_part`, with the answers added up under the first part's number."""
        answers = self.per_part(*asked)
        total: Totals = sum(list(answers.values())[1:], start=next(iter(answers.values())))
        return {next(iter(answers)): total}

    def _part(self, number: int, source: PartSource, frame: Frame | None) -> Part:
        if number not in self._parts:
            needed, free = part_memory(source), free_bytes("cpu")
            if needed > free:
                fits = sum(part.n_rows for part in self._parts.values())
                raise HostMemoryError(needed_bytes=needed, free_bytes=free, fits_points=fits)
            with self._open_file(source.url) as opened:
                points = load_row_groups(opened, source.row_groups, source.column)
            require_finite(points)
            points = unit_rows(points) if self._angular else points
            self._parts[number] = Part(points, self._each)
        self._parts[number].put_into(frame)
        return self._parts[number]

    def _each(self, work: Callable[[Any], Any], items: Any) -> list[Any]:
        # Threads come and go with each question; what a part keeps is this way to them.
        return self._each_now(work, items)


def unit_for(n_points: int, largest: float) -> float:
    """Give a unit in which the sum of so many coordinates is a whole number below 2**62."""
    return 2.0 ** (math.ceil(math.log2(max(n_points * largest, 1e-300))) - 62)
