"""k-means on the CPU (matrix products, our own) and on the GPU (cuML)."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend, device_errors
from gpu.clustering import Clustering, Progress, renumber_by_size
from gpu.device_memory import streamed_bytes
from gpu.errors import DeviceMemoryError, TooFewPointsError
from gpu.groups import squared_distances
from gpu.lloyd import Partition, lloyd
from gpu.memory import estimate, free_bytes
from gpu.parallel import Each, worker_threads
from gpu.params import KMeansParams
from gpu.seeding import (
    SAMPLE_PER_CENTROID,
    SAMPLE_POINTS,
    distinct_rows,
    plus_plus,
    seeding_rows,
)
from gpu.vectors import (
    block_bytes_of,
    centred_copy,
    on_host,
    require_finite,
    require_matrix,
    row_blocks,
    squared_lengths,
)

Array = Any

WARM_UP_ITERATIONS = 20
"""Most iterations on the seeding sample before those on all points."""

OFFSET_RATIO = 100.0
"""Squared length of the mean over the variance, from which float32 scores get too coarse."""

SMALLEST_SQUARE, LARGEST_SQUARE = 1e-20, 1e20
"""Mean squared lengths between these leave float32 room for products and sums."""

CUML_TOLERANCE = 1e-7
"""Share of the inertia below which a gain is not worth an iteration; float32 resolves no less."""

SMALLEST_CUML_TOLERANCE = 1e-30
"""Stands for 0, which cuML refuses."""

LARGEST_TOLERANCE = 1e6
"""Any start ends after its first iteration with this, too; for more, points would shrink to 0."""


def kmeans(
    vectors: Array,
    params: KMeansParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
    n_threads: int | None = None,
) -> Clustering:
    """Partition points into groups around means.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified.
    params : KMeansParams
    backend : Backend
    progress : callable or None
        Told the share that is done, 0 to 1.
    n_threads : int or None
        On the CPU; None: one per core. The result does not depend on it.

    Returns
    -------
    Clustering
        `details`: ``inertia`` (sum of squared distances to the final centroids), ``n_iter``,
        ``converged``. `strength` is None. Labels are those of the nearest final centroid.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    TooFewPointsError
        With fewer points than groups.
    DeviceMemoryError, DeviceFailedError
        If the GPU runs out of memory, or its library gives up.

    Notes
    -----
    Starts, stopping rule and the refilling of empty groups are scikit-learn's, but seeding looks
    at a sample, and a start first iterates on that sample. Where fewer distinct points exist
    than groups were asked for there is one group per distinct point, and a note says so.

    Vectors that do not fit into the GPU's memory pass through it in blocks, once an iteration
    (`gpu.streamed_kmeans`), and a note says so.
    """
    require_matrix(vectors)
    if len(vectors) < params.n_clusters:
        raise TooFewPointsError(n_points=len(vectors), needed=params.n_clusters)
    require_finite(vectors)
    tell = progress or _ignore
    fitted, notes = (
        _fit_on_gpu(vectors, params, tell, n_threads)
        if backend.device == "gpu"
        else (_fit_on_cpu(on_host(vectors), params, tell, n_threads), [])
    )
    # cuML, unlike the CPU, also leaves a group empty that has lost its points.
    why = "" if backend.device == "gpu" else ": there are fewer distinct points than groups"
    found = clustering_of(fitted.pop("labels"), params, backend.device, fitted, why_fewer=why)
    tell(1.0)
    return replace(found, notes=[*notes, *found.notes])


def clustering_of(
    labels: Array,
    params: KMeansParams,
    device: str,
    details: dict[str, Any],
    *,
    why_fewer: str = "",
) -> Clustering:
    """Put together what a fit found; where groups are missing, a note says so, and why."""
    labels, _ = renumber_by_size(labels)
    n_groups = int(labels.max()) + 1
    told = f"{params.n_clusters:,} groups were asked for and {n_groups:,} found{why_fewer}"
    return Clustering(
        labels=labels,
        strength=None,
        n_clusters=n_groups,
        effective_params=asdict(params) | {"n_init": n_starts_of(params)},
        device=device,
        notes=[told] if n_groups < params.n_clusters else [],
        details=details,
    )


def _ignore(_share: float) -> None:
    """Take the place of a progress callback."""


def n_starts_of(params: KMeansParams) -> int:
    """Give the number of starts, of which the best is kept."""
    if params.n_init == "auto":
        return 1 if params.init == "k-means++" else 10
    return params.n_init


def _fit_on_cpu(
    vectors: Array, params: KMeansParams, tell: Progress, n_threads: int | None
) -> dict[str, Any]:
    with worker_threads(n_threads) as each:
        points, scale, variance = _well_scaled(vectors, each)
        tolerance = params.tol * variance
        n_starts = n_starts_of(params)
        best: Partition | None = None
        best_inertia = math.inf
        for start in range(n_starts):
            meter = Meter(tell, start, n_starts, params.max_iter, tolerance)
            partition = _one_start(points, params, start, tolerance, each, meter)
            distances = squared_distances(points, partition.centroids, partition.labels, each)
            inertia = float(distances.sum(dtype=np.float64))
            if best is None or inertia < best_inertia:
                best, best_inertia = partition, inertia
    assert best is not None
    return {
        "labels": best.labels,
        "inertia": best_inertia * scale**2,
        "n_iter": best.n_iter,
        "converged": best.converged,
    }


def _one_start(
    points: Array,
    params: KMeansParams,
    start: int,
    tolerance: float,
    each: Each,
    meter: Meter,
) -> Partition:
    rng = np.random.default_rng([params.random_state, start])
    rows, n_distinct = seeding_rows(points, params.n_clusters, rng)
    is_all = len(rows) == len(points)
    centroids = first_centroids(
        points if is_all else points[rows],
        n_distinct,
        params,
        rng,
        each,
        warm_up_tolerance=None if is_all else tolerance,
    )
    return lloyd(
        points,
        centroids,
        tolerance=tolerance,
        max_iter=params.max_iter,
        each=each,
        on_shift=meter,
    )


def first_centroids(
    sample: Array,
    n_distinct: int,
    params: KMeansParams,
    rng: np.random.Generator,
    each: Each,
    *,
    warm_up_tolerance: float | None,
) -> Array:
    """Choose centroids among the rows of a sample, and iterate on it.

    Parameters
    ----------
    sample : array of shape (n_rows, n_dims), float32
    n_distinct : int
        How many of its rows differ; there are no more centroids.
    warm_up_tolerance : float or None
        None: the sample is all there is, and the fit itself iterates on it.
    """
    n_centroids = min(params.n_clusters, n_distinct)
    if params.init == "k-means++":
        centroids = sample[plus_plus(sample, n_centroids, rng, each)]
    else:
        centroids = sample[rng.choice(distinct_rows(sample), n_centroids, replace=False)]
    if warm_up_tolerance is None:
        return centroids
    warm = lloyd(
        sample, centroids, tolerance=warm_up_tolerance, max_iter=WARM_UP_ITERATIONS, each=each
    )
    return warm.centroids


class Meter:
    """Turns shifts into a share done: they fall about geometrically towards the tolerance."""

    def __init__(
        self, tell: Progress, start: int, n_starts: int, max_iter: int, tolerance: float
    ) -> None:
        self._tell = tell
        self._start, self._n_starts, self._max_iter = start, n_starts, max_iter
        self._tolerance = tolerance
        self._first_shift = 0.0
        self._share = 0.0

    def __call__(self, n_iter: int, shift: float) -> None:
        self._first_shift = max(self._first_shift, shift)
        share = n_iter / self._max_iter
        if shift > 0 and 0 < self._tolerance < self._first_shift:
            falling = math.log(self._first_shift / shift)
            share = max(share, falling / math.log(self._first_shift / self._tolerance))
        self._share = max(self._share, min(share, 1.0))
        self._tell((self._start + self._share) / self._n_starts)


def _well_scaled(vectors: Array, each: Each) -> tuple[Array, float, float]:
    """Give points whose float32 scores are accurate, and by how much they were scaled down.

    Returns
    -------
    points : array of shape (n_points, n_dims), float32
        `vectors` itself, or a centred and scaled copy where the mean is far from the origin or
        the magnitudes are extreme.
    scale : float
        What one unit of `points` is in `vectors`.
    variance : float
        Mean variance of the dimensions of `points`.
    """
    n_dims = vectors.shape[1]
    square, mean_square = _moments(vectors, each)
    # Squares of tiny numbers are 0 in float32, as those of none.
    if are_accurate(square, mean_square) and (square or not vectors.any()):
        return vectors, 1.0, (square - mean_square) / n_dims
    blocks = list(row_blocks(len(vectors), 8 * n_dims))
    totals = each(lambda rows: vectors[rows].sum(axis=0, dtype=np.float64), blocks)
    mean = np.sum(totals, axis=0) / len(vectors)
    scale = max(each(lambda rows: float(np.abs(vectors[rows] - mean).max()), blocks)) or 1.0
    points = np.empty_like(vectors)

    def fill(rows: slice) -> None:
        points[rows] = (vectors[rows] - mean) / scale

    each(fill, blocks)
    square, mean_square = _moments(points, each)
    return points, scale, (square - mean_square) / n_dims


def are_accurate(square: float, mean_square: float) -> bool:
    """Whether float32 scores of rows are accurate as they are.

    Parameters
    ----------
    square, mean_square : float
        Mean squared length of the rows, and the squared length of their mean.
    """
    # Squares are over all dimensions; a NaN or an infinity of an overflow fails the comparisons.
    in_range = SMALLEST_SQUARE < square < LARGEST_SQUARE
    return square == 0 or (in_range and mean_square <= OFFSET_RATIO * (square - mean_square))


def _moments(vectors: Array, each: Each) -> tuple[float, float]:
    """Give the mean squared length of the rows, and the squared length of their mean."""

    def measure(rows: slice) -> tuple[float, NDArray[np.float64]]:
        block = vectors[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            flat = block.reshape(-1)
            total = np.ones(len(block), dtype=np.float32) @ block
            return float(flat @ flat), total.astype(np.float64)

    parts = each(measure, row_blocks(len(vectors), 4 * vectors.shape[1]))
    mean = np.sum([total for _, total in parts], axis=0) / len(vectors)
    return math.fsum(square for square, _ in parts) / len(vectors), float(mean @ mean)


def _fit_on_gpu(
    vectors: Array, params: KMeansParams, tell: Progress, n_threads: int | None
) -> tuple[dict[str, Any], list[str]]:
    """Fit all at once where there is room, else block by block; the notes say why."""
    n_points, n_dims = vectors.shape
    needed, free = estimate("kmeans", n_points, n_dims, params, "gpu"), free_bytes("gpu")
    if needed <= free:
        try:
            return _fit_at_once(vectors, params, needed), []
        except DeviceMemoryError as error:
            free = error.free_bytes
    # Only now is what the failed fit held let go.
    note = (
        f"k-means took the vectors through the GPU in blocks: all at once needs about "
        f"{needed:,} bytes there, {free:,} are free"
    )
    return _fit_in_blocks(vectors, params, tell, n_threads), [note]


def _fit_in_blocks(
    vectors: Array, params: KMeansParams, tell: Progress, n_threads: int | None
) -> dict[str, Any]:
    import cupy

    # It imports this module.
    from gpu.streamed_kmeans import streamed_kmeans

    def tell_in_time(share: float) -> None:
        # Else copies pile up in locked memory where the device is slower than the host.
        cupy.cuda.get_current_stream().synchronize()
        tell(share)

    # A pool of its own: cudaMalloc and cudaFree for each of the many small arrays would wait for
    # the device. It goes with the fit.
    pool = cupy.cuda.MemoryPool()
    n_points, n_dims = vectors.shape
    with (
        device_errors(streamed_bytes(n_points, n_dims, params)),
        cupy.cuda.using_allocator(pool.malloc),
    ):
        found = streamed_kmeans(
            vectors, params, xp=cupy, progress=tell_in_time, n_threads=n_threads
        )
    cupy.get_default_pinned_memory_pool().free_all_blocks()
    return dict(vars(found))


def _fit_at_once(vectors: Array, params: KMeansParams, needed: int) -> dict[str, Any]:
    import cupy

    with device_errors(needed):
        points = centred_copy(vectors, cupy)
        tolerance, scale = cuml_tolerance(params.tol, _mean_variance(points))
        points *= cupy.float32(scale)
        starts = (
            _start_on_gpu(points, params, start, tolerance) for start in range(n_starts_of(params))
        )
        best = min(starts, key=lambda fitted: float(fitted["inertia"]))
    return best | {"inertia": best["inertia"] / scale**2}


def _start_on_gpu(
    points: Array, params: KMeansParams, start: int, tolerance: float
) -> dict[str, Any]:
    from cuml.cluster import KMeans

    how = {
        "n_init": 1,
        "tol": tolerance,
        "random_state": (params.random_state + start) % 2**32,
        "output_type": "cupy",
    }
    sample, distinct = _seeding_sample(points, params, start)
    n_clusters, init = params.n_clusters, params.init
    if distinct is not None:
        n_clusters, init = len(distinct), points[distinct]
    elif len(sample) < len(points):
        warm = KMeans(n_clusters=n_clusters, init=init, max_iter=WARM_UP_ITERATIONS, **how)
        init = warm.fit(sample).cluster_centers_
    model = KMeans(n_clusters=n_clusters, init=init, max_iter=params.max_iter, **how).fit(points)
    labels = on_host(model.labels_)
    # cuML's own sum is in float32 and from the expanded form of the distances.
    with worker_threads(1) as each:
        distances = squared_distances(points, model.cluster_centers_, labels, each)
    return {
        "labels": labels.astype(np.int32),
        "inertia": float(distances.sum(dtype=np.float64)),
        # One more than max_iter where the limit ended it.
        "n_iter": min(int(model.n_iter_), params.max_iter),
        "converged": int(model.n_iter_) <= params.max_iter,
    }


def _seeding_sample(
    points: Array, params: KMeansParams, start: int
) -> tuple[Array, NDArray[np.int64] | None]:
    """Choose what seeding looks at, as on the CPU: a pass over all rows per centroid would take
    longer than the iterations.

    Returns
    -------
    sample : array of shape (n_rows, n_dims), float32
        The points themselves where they are few, or where no sample has enough distinct rows.
    distinct : array of int64, or None
        Rows of `points` that differ, where there are fewer than groups: cuML would put equal
        centroids there, and its ties go to any of them.
    """
    size = max(SAMPLE_POINTS, SAMPLE_PER_CENTROID * params.n_clusters)
    sample = points
    if size < len(points):
        rng = np.random.default_rng([params.random_state, start])
        sample = points[np.sort(rng.choice(len(points), size, replace=False))]
    for rows in (sample, points):
        distinct = distinct_rows(on_host(rows))
        if len(distinct) >= params.n_clusters:
            return rows, None
    return points, distinct


def _mean_variance(points: Array) -> float:
    """Give the mean variance of the dimensions of centred points."""
    blocks = row_blocks(len(points), 4 * points.shape[1], block_bytes_of(points))
    total = math.fsum(float(squared_lengths(points[rows]).sum(dtype=np.float64)) for rows in blocks)
    return total / (len(points) * int(points.shape[1]))


def cuml_tolerance(tol: float, variance: float) -> tuple[float, float]:
    """Say scikit-learn's stopping rule in cuML's terms.

    scikit-learn ends a start when the centroids' summed squared shift is at most `tol` times the
    mean variance. cuML compares the shift with `tol` itself, and ends as well once an iteration
    lowers the inertia by less than a share `tol` of it; it refuses 0. So points are scaled until
    a tolerance that makes the second rule harmless is the first rule's.

    Returns
    -------
    tolerance : float
        To give to cuML.
    scale : float
        To multiply the points by.
    """
    if not variance:
        return CUML_TOLERANCE, 1.0
    tol = min(tol, LARGEST_TOLERANCE)
    tolerance = min(tol, CUML_TOLERANCE) or SMALLEST_CUML_TOLERANCE
    wanted_variance = tolerance / tol if tol else 1.0
    return tolerance, math.sqrt(wanted_variance / variance)
