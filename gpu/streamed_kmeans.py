"""k-means on the GPU over rows that its memory does not hold: they pass through it in blocks.

The rows stay where they are, as a rule on the host. Each iteration copies one block after another
to the device, finds nearest centroids there and adds up sums per group; what stays on the device
are the centroids, the sums and the labels. Seeding, stopping and the refilling of empty groups
are those of `gpu.spread_kmeans`, of which this is a crew of one.

cuML can pass host rows through as well (`device_buffer_samples`), but takes them as they are: to
be centred and scaled, as its float32 products and its stopping rule need, they would have to be
copied on the host, where such a matrix takes much of the memory. It also tells nothing and cannot
be stopped until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.clustering import Progress, no_progress
from gpu.crew import Crew, Oneself
from gpu.device_memory import streamed_piece_rows
from gpu.params import KMeansParams
from gpu.parts import Frame, Moments, PartSource, Totals
from gpu.seeding import distinct_rows
from gpu.spread_kmeans import Spread, spread_kmeans
from gpu.vectors import DEVICE_BLOCK_BYTES, on_host, row_blocks, squared_lengths

Array = Any


def streamed_kmeans(
    vectors: Array,
    params: KMeansParams,
    *,
    xp: Any,
    progress: Progress = no_progress,
    n_threads: int | None = None,
    block_bytes: int = DEVICE_BLOCK_BYTES,
) -> Spread:
    """Partition rows into groups around means, a block of them at a time on the device.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy, or an array of `xp`; finite. Not modified.
    params : KMeansParams
    xp : module
        cupy; with numpy the same is done on the host.
    progress : callable
        Told the share that is done, also after each block was copied and before it is worked
        on; what it raises ends the fit.
    n_threads : int or None
        For the seeding, which the host does on a sample; None: one per core.
    block_bytes : int
        Size of the blocks that are copied.

    Raises
    ------
    TooFewPointsError
        With fewer rows than groups.

    Notes
    -----
    Each iteration reads all rows once, and the last one is followed by one more reading for the
    exact inertia: the time is that of copying so often.
    """
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        told = share
        progress(share)

    n_points, n_dims = vectors.shape
    step = streamed_piece_rows(n_dims, params.n_clusters)
    part = StreamedPart(vectors, xp, block_bytes, step, lambda: progress(told))
    # The rows are here already, so there is no file to name.
    source = PartSource(url="", column="", row_groups=(), n_rows=n_points, n_dims=n_dims)
    crew = Crew([source], [Oneself(_Keeper(part))], on_loss=lambda what: None)
    return spread_kmeans(crew, params, n_threads=n_threads, progress=tell)


class _Keeper:
    """Answers a crew's questions about the one part; see `gpu.parts.PartKeeper`."""

    def __init__(self, part: StreamedPart) -> None:
        self._part = part

    def per_part(self, *asked: Any) -> dict[int, Any]:
        """Answer for the one part there is."""
        sources, frame, question, details, own = asked
        self._part.frame = frame
        answer = getattr(self._part, question)
        return {number: answer(*details, *own.get(number, ())) for number in sources}

    totals = per_part


class StreamedPart:
    """All rows, and where k-means is with them; answers as `gpu.parts.Part` does.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
    xp : module
        cupy or numpy.
    block_bytes : int
        Rows are copied in blocks of this size.
    piece_rows : int
        Rows of a block that are worked on together.
    heed : callable
        Called after each copy.

    Attributes
    ----------
    frame : Frame or None
        What rows are brought into, after they were copied.
    """

    def __init__(
        self,
        vectors: Array,
        xp: Any,
        block_bytes: int,
        piece_rows: int,
        heed: Callable[[], None],
    ) -> None:
        self.frame: Frame | None = None
        self._vectors, self._xp = vectors, xp
        self._block_bytes, self._piece_rows, self._heed = block_bytes, piece_rows, heed
        self._labels: Array = None
        self._sums = np.zeros((0, vectors.shape[1]))
        self._counts = np.zeros(0, dtype=np.int64)

    def moments(self) -> Moments:
        """Sum up the rows."""
        xp, n_dims = self._xp, self._vectors.shape[1]
        squares, largest = xp.zeros((), dtype=np.float64), xp.zeros((), dtype=np.float64)
        total = xp.zeros(n_dims, dtype=np.float64)
        for _, piece in self._pieces():
            exact = piece.astype(np.float64)
            squares += (exact * exact).sum()
            total += exact.sum(axis=0)
            largest = xp.maximum(largest, xp.abs(exact).max())
        return Moments(len(self._vectors), float(squares), on_host(total), float(largest))

    def reach(self, origin: NDArray[np.float64]) -> float:
        """Give the largest coordinate's distance from the origin's."""
        xp = self._xp
        origin, largest = xp.asarray(origin), xp.zeros((), dtype=np.float64)
        for _, piece in self._pieces():
            largest = xp.maximum(largest, xp.abs(piece - origin).max())
        return float(largest)

    def take(self, rows: NDArray[np.int64]) -> Array:
        """Give some rows, on the host."""
        n_dims = self._vectors.shape[1]
        taken = np.empty((len(rows), n_dims), dtype=np.float32)
        for part in row_blocks(len(rows), 4 * n_dims, self._block_bytes):
            block = self._xp.asarray(self._vectors[rows[part]])
            taken[part] = on_host(self._framed(block))
        return taken

    def distinct(self, most: int) -> Array:
        """Give the first rows that differ, at most so many, on the host."""
        return self.take(distinct_rows(on_host(self._vectors))[:most])

    def begin(self, centroids: Array, unit: float) -> Totals:
        """Find the nearest centroid of every row."""
        self._labels = self._xp.full(len(self._vectors), -1, dtype=np.int32)
        return self._assign(centroids, unit)

    def follow(self, centroids: Array, _shifts: NDArray[np.float32], unit: float) -> Totals:
        """Bring every row to its nearest centroid, after they moved."""
        return self._assign(centroids, unit)

    def _assign(self, centroids: Array, unit: float) -> Totals:
        xp, n_groups = self._xp, len(centroids)
        columns = xp.ascontiguousarray(xp.asarray(centroids).T)
        halves = (columns * columns).sum(axis=0) / 2
        groups = xp.arange(n_groups, dtype=np.int32)
        sums = xp.zeros(centroids.shape, dtype=np.float64)
        counts = xp.zeros(n_groups, dtype=np.int64)
        n_changed = xp.zeros((), dtype=np.int64)
        for rows, piece in self._pieces():
            scores = piece @ columns
            scores -= halves
            nearest = scores.argmax(axis=1).astype(np.int32)
            n_changed += (nearest != self._labels[rows]).sum()
            self._labels[rows] = nearest
            is_member = nearest[:, None] == groups
            counts += is_member.sum(axis=0)
            sums += is_member.astype(np.float32).T @ piece
        self._sums, self._counts = on_host(sums), on_host(counts)
        return self._totals(unit, int(n_changed))

    def farthest(
        self, centroids: Array, most: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32]]:
        """Give the squared distances of the rows farthest from their centroids, rows and groups."""
        distances = np.concatenate([on_host(squares) for squares in self._squares(centroids)])
        rows = np.argsort(-distances, kind="stable")[:most]
        return distances[rows], rows, on_host(self._labels)[rows]

    def move(
        self, _centroids: Array, unit: float, rows: NDArray[np.int64], groups: NDArray[np.int64]
    ) -> Totals:
        """Put rows into other groups by force."""
        at, points = self._xp.asarray(rows), self.take(rows)
        left = on_host(self._labels[at])
        np.subtract.at(self._sums, left, points)
        np.add.at(self._sums, groups, points)
        np.subtract.at(self._counts, left, 1)
        np.add.at(self._counts, groups, 1)
        self._labels[at] = self._xp.asarray(groups.astype(np.int32))
        return self._totals(unit, len(rows))

    def finish(self, centroids: Array) -> tuple[NDArray[np.int32], float]:
        """Give the group of every row, and the summed squared distances to their centroids."""
        sums = [squares.sum(dtype=np.float64) for squares in self._squares(centroids)]
        return on_host(self._labels), float(sum(sums))

    def _squares(self, centroids: Array) -> Iterator[Array]:
        """Walk through the rows' squared distances to their own centroids."""
        centroids = self._xp.asarray(centroids)
        for rows, piece in self._pieces():
            yield squared_lengths(piece - centroids[self._labels[rows]])

    def _pieces(self) -> Iterator[tuple[slice, Array]]:
        """Copy block after block, and cut each into pieces to work on."""
        n_points, n_dims = self._vectors.shape
        for rows in row_blocks(n_points, 4 * n_dims, self._block_bytes):
            block = self._xp.asarray(self._vectors[rows])
            # Not after the work: the device does it while the next block is copied.
            self._heed()
            for start in range(0, len(block), self._piece_rows):
                piece = self._framed(block[start : start + self._piece_rows])
                first = rows.start + start
                yield slice(first, first + len(piece)), piece

    def _framed(self, points: Array) -> Array:
        if self.frame is None:
            return points
        moved = (points - self._xp.asarray(self.frame.origin)) / self.frame.scale
        return moved.astype(np.float32)

    def _totals(self, unit: float, n_changed: int) -> Totals:
        sums = np.rint(self._sums / unit).astype(np.int64)
        return Totals(sums, self._counts.copy(), n_changed)
