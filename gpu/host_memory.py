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

MATRIX_BYTES = 512 << 20
"""Most memory that the matrix may take however much is free (11,500 points): from 6,000 points on
the other way (`gpu.boruvka`) takes as long."""

_BASE = 6 * MIB
"""Thread stacks and small blocks of our own fits."""

_LIBRARY_BASE = 64 * MIB
"""What a library's fit needs however few the points."""

_BLOCKS, _BLOCKS_OF_CELLS, _ROWS = 7 * MIB, 4 * MIB, 26 * MIB
"""Of one thread that compares points tile by tile with all others, or with those of a cell, or
that looks for a core distance in whole rows."""

_SEEDED, _SEEDED_PER_CENTROID = 4096, 32
"""Points of k-means' seeding sample (`gpu.seeding`)."""

_NOT_GIVEN_BACK = 1 / 3
"""Share of its memory that the seeding leaves with the allocator, as measured."""

_BANDWIDTH_POINTS = 2_000
"""Points that `gpu.mean_shift` estimates a bandwidth from."""

_KEPT, _MOST_KEPT, _KEPT_IN_CELLS = 32, 128, 24
"""Neighbours that HDBSCAN keeps of each point (`gpu.boruvka`, `gpu.cell_neighbours`)."""

_SKETCHED_DIMS = 96
"""Dimensions from which rows are sketched in half of them (`gpu.sketches`)."""


_EVOC_BLOCK, _EVOC_CANDIDATES = 27_000, 60
"""Points of which EVoC compares candidates together, as measured; most candidates of each."""

_SAMPLED, _PROBED = 30_000, 4_000
"""Most points that `gpu.auto` groups, and those that it tells the kind of structure from."""


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
    if isinstance(params, EvocParams):
        return unit + _evoc_bytes(n_points, n_dims, params)
    if isinstance(params, AutoParams):
        return unit + _auto_bytes(n_points, n_dims)
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
    kept = max(_KEPT, samples) if samples <= _MOST_KEPT else _KEPT
    blocks = _BLOCKS if samples <= _MOST_KEPT else _BLOCKS + _ROWS
    # Neighbours with weights and what each round derives from them; and edges that tie with a core
    # distance, which are put in order both ways.
    return _BASE + n_cores() * blocks + n_points * (19 * kept + 55 * min(samples, kept))


def _approximate_bytes(n_points: int, n_dims: int, params: HdbscanParams) -> int:
    samples = params.resolved(n_points).min_samples or 0
    kept = max(_KEPT_IN_CELLS, 2 * samples)
    sketch = n_points * (n_dims // 2) * FLOAT if n_dims >= _SKETCHED_DIMS else 0
    # While the sketch is held, and of a sample of it the cells are cut: neighbours twice, then
    # neighbours and the edges that tie with a core distance.
    searching = max(16 * kept + 64, 8 * kept + 44 * samples + 100)
    holding = sketch * 5 // 4 + n_cores() * _BLOCKS_OF_CELLS + n_points * searching
    # Then these edges alone, from either end, and a heap of them.
    return _BASE + max(holding, n_points * (82 * samples + 300))


def _evoc_bytes(n_points: int, n_dims: int, params: EvocParams) -> int:
    k = params.n_neighbors
    # NN-descent writes down every pair that may be nearer than known neighbours, for a block of
    # points at a time; of the candidates, half as many again as neighbours, some eighth are.
    pairs = min(n_points, _EVOC_BLOCK) * k * min(k * 3 // 2, _EVOC_CANDIDATES)
    searching = 71 * n_points * k + 5 * pairs
    # The rows as float64, to be averaged by part; and the graph.
    starting = 8 * n_points * n_dims + 50 * n_points * k
    return 5 * MIB + max(searching, starting)


def _auto_bytes(n_points: int, n_dims: int) -> int:
    """Estimate the way of `gpu.auto` that takes most, by communities: which it is, data decide."""
    sampled = min(n_points, _SAMPLED)
    # Centred rows and their principal components, the sample where there is one.
    projected = sampled * n_dims * FLOAT * (3 if sampled == n_points else 4)
    probing = matrix_bytes(min(sampled, _PROBED))
    # Graphs of neighbours and partitions; a discriminant has float64 copies of the rows.
    grouping = sampled * (4_000 + 32 * n_dims)
    return 10 * MIB + projected + max(probing, grouping) + 64 * n_points


def _library_bytes(n_points: int, n_dims: int, params: Params) -> int:
    pairs = n_points * n_points
    match params:
        case DbscanParams():
            # Of each thread the columns of a block, and what it makes of their distances.
            return n_cores() * (10 * MIB + 8_192 * FLOAT * n_dims)
        case AgglomerativeParams():
            # float64 distances of half the pairs, which merging copies, but by single linkage;
            # blocks of 256 rows as float32 and float64, most of which stay with the allocator.
            blocks = n_cores() * 256 * 20 * n_points
            if params.linkage == "single":
                return 4 * MIB + 4 * pairs + blocks
            return 4 * MIB + 8 * pairs + blocks * 4 // 5
        case SpectralParams(affinity="rbf"):
            # The affinity, its Laplacian, the solver's copies, most of them float64.
            return 16 * MIB + 31 * pairs
        case SpectralParams():
            # The factors of the sparse Laplacian fill in, nearly wholly where the graph hangs
            # together; groups that are far apart have factors of their own.
            return 4 * MIB + min(12 * pairs, pairs * (85 + params.n_neighbors) // 10)
        case GaussianMixtureParams():
            covariance = {"full": params.n_components * n_dims, "tied": n_dims}
            free = covariance.get(params.covariance_type, params.n_components)
            # The float64 copy, and two products of it or its squares; shares of the components;
            # covariances and their inverses.
            copies = 28 if params.covariance_type in covariance else 16
            per_point = copies * n_dims + 28 * params.n_components
            return 12 * MIB + n_points * per_point + 24 * n_dims * free
        case MeanShiftParams():
            # The float64 copy, windows as Python's floats, and neighbours for the bandwidth.
            sampled = min(n_points, _BANDWIDTH_POINTS)
            return MIB // 2 + 41 * n_points * n_dims + 13 * sampled * sampled // 5
        case OpticsParams():
            return MIB // 4 + 25 * n_points * n_dims // 2
        case _:
            return _LIBRARY_BASE
