"""How much of the machine's memory a fit on the CPU takes, beyond the vectors.

Counted from the arrays that our own code holds at its peak, and for scikit-learn's methods fitted
to what was measured; tests/gpu/test_memory.py holds them to what processes take.
"""

from __future__ import annotations

from gpu.centroid_search import most_bundles
from gpu.parallel import n_cores
from gpu.params import (
    AgglomerativeParams,
    AutoParams,
    DbscanParams,
    EvocParams,
    GaussianMixtureParams,
    HdbscanParams,
    KMeansParams,
    MeanShiftParams,
    OpticsParams,
    Params,
    SpectralParams,
)

FLOAT = 4
MIB = 1 << 20

MATRIX_SHARE = 0.5
"""Share of the free memory that HDBSCAN's matrix of distances may take."""

MATRIX_BYTES = 1 << 30
"""Most memory that the matrix may take however much is free (16,000 points).

About there both ways take as long, and touching more memory for the first time costs more than
the products that symmetry saves.
"""

_BASE = 6 * MIB
"""Thread stacks and small blocks of our own fits."""

_LIBRARY_BASE = 64 * MIB
"""What a library's fit needs however few the points."""

_BLOCKS, _BLOCKS_OF_CELLS = 17 * MIB, 9 * MIB
"""Of one thread that compares points block by block with all others, or with those of a cell."""

_SEEDED, _SEEDED_PER_CENTROID = 4096, 32
"""Points of k-means' seeding sample (`gpu.seeding`)."""

_NOT_GIVEN_BACK = 1 / 3
"""Share of its memory that the seeding leaves with the allocator, as measured."""

_BANDWIDTH_POINTS = 2_000
"""Points that `gpu.mean_shift` estimates a bandwidth from."""

_KEPT, _KEPT_IN_CELLS = 32, 24
"""Neighbours that HDBSCAN keeps of each point (`gpu.boruvka`, `gpu.cell_neighbours`)."""

_SKETCHED_DIMS = 96
"""Dimensions from which rows are sketched in half of them (`gpu.sketches`)."""


def matrix_bytes(n_points: int) -> int:
    """Give the memory that HDBSCAN's matrix of distances takes."""
    return FLOAT * n_points * (n_points + 64)


def matrix_budget(free: int) -> int:
    """Give the most memory that this matrix may take, of `free` bytes."""
    return min(MATRIX_BYTES, int(MATRIX_SHARE * free))


def host_bytes(
    n_points: int, n_dims: int, params: Params, *, is_angular: bool, is_approximate: bool, free: int
) -> int:
    """Estimate the peak of a fit on the CPU, beyond the vectors.

    Parameters
    ----------
    n_points, n_dims : int
        Shape of the vectors, float32.
    params : Params
        The method's own.
    is_angular : bool
        Whether rows are scaled to length 1, which takes a copy where they are not.
    is_approximate : bool
        Whether HDBSCAN searches approximately.
    free : int
        Bytes; HDBSCAN keeps a matrix of distances where they allow it.
    """
    matrix = n_points * n_dims * FLOAT
    unit = matrix if is_angular else 0
    if isinstance(params, KMeansParams):
        return unit + _kmeans_bytes(n_points, n_dims, params)
    if isinstance(params, HdbscanParams) and is_approximate:
        return unit + _approximate_bytes(n_points, n_dims, params)
    if isinstance(params, HdbscanParams):
        return unit + matrix + _exact_bytes(n_points, params, free)
    return unit + matrix + n_points * 64 + _library_bytes(n_points, n_dims, params)


def _kmeans_bytes(n_points: int, n_dims: int, params: KMeansParams) -> int:
    bounds = FLOAT * most_bundles(params.n_clusters, n_dims)
    # Labels before and after, squares, an upper bound, distances; int64 rows of those that moved.
    per_point = bounds + 44
    sample = min(n_points, max(_SEEDED, _SEEDED_PER_CENTROID * params.n_clusters))
    centroids = params.n_clusters * n_dims * (3 * FLOAT + 2 * 8)
    seeding = sample * (n_dims * FLOAT * 7 // 5 + per_point)
    # The sample is let go before the rows themselves are followed.
    following = n_points * per_point + _NOT_GIVEN_BACK * seeding
    return _BASE + int(max(seeding, following)) + centroids


def _exact_bytes(n_points: int, params: HdbscanParams, free: int) -> int:
    """Estimate HDBSCAN's memory beside its centred copy."""
    samples = params.resolved(n_points).min_samples or 0
    if matrix_bytes(n_points) <= matrix_budget(free):
        return _BASE + matrix_bytes(n_points) + n_points * 256
    # Neighbours with weights and what each round derives from them; and edges that tie with a core
    # distance, which are put in order both ways.
    return _BASE + n_cores() * _BLOCKS + n_points * (19 * _KEPT + 70 * min(samples, _KEPT))


def _approximate_bytes(n_points: int, n_dims: int, params: HdbscanParams) -> int:
    samples = params.resolved(n_points).min_samples or 0
    kept = max(_KEPT_IN_CELLS, 2 * samples)
    sketch = n_points * (n_dims // 2) * FLOAT if n_dims >= _SKETCHED_DIMS else 0
    # While the sketch is held, and of a sample of it the cells are cut: neighbours twice, then
    # neighbours and the edges that tie with a core distance.
    searching = max(16 * kept + 64, 8 * kept + 44 * samples + 100)
    holding = sketch * 9 // 8 + n_cores() * _BLOCKS_OF_CELLS + n_points * searching
    # Then these edges alone, from either end, and a heap of them.
    return _BASE + max(holding, n_points * (82 * samples + 300))


def _library_bytes(n_points: int, n_dims: int, params: Params) -> int:
    pairs = n_points * n_points
    match params:
        case DbscanParams():
            return n_cores() * 14 * MIB
        case AgglomerativeParams():
            # float64 distances of half the pairs, which the merging copies.
            return _LIBRARY_BASE + 8 * pairs
        case SpectralParams(affinity="rbf"):
            # The affinity, its Laplacian, the solver's copies, most of them float64.
            return 16 * MIB + 31 * pairs
        case SpectralParams():
            # The factors of the sparse Laplacian, which fill in.
            return _LIBRARY_BASE + 22_000 * n_points
        case GaussianMixtureParams():
            covariance = {"full": params.n_components * n_dims, "tied": n_dims}
            free = covariance.get(params.covariance_type, params.n_components)
            # The float64 copy and two products of it; covariances and their inverses.
            return 12 * MIB + 28 * n_points * (n_dims + params.n_components) + 24 * n_dims * free
        case MeanShiftParams():
            # The float64 copy, windows as Python's floats, and neighbours for the bandwidth.
            sampled = min(n_points, _BANDWIDTH_POINTS)
            return MIB // 2 + 41 * n_points * n_dims + 13 * sampled * sampled // 5
        case OpticsParams():
            return MIB // 4 + 25 * n_points * n_dims // 2
        case EvocParams():
            # Its own unit rows; neighbours of neighbours meet in the graph.
            return 11 * MIB + n_points * (FLOAT * n_dims + 15 * params.n_neighbors**2 // 2)
        case AutoParams():
            return _LIBRARY_BASE + 2 * FLOAT * n_points * n_dims + n_points * 4_096
        case _:
            return _LIBRARY_BASE
