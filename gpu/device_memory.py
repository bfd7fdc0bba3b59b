"""How much of the GPU's memory a fit by cuML takes, with the vectors.

Counted from the allocations in the sources of cuML and cuVS 26.10, and held to within a fifth of
what a device shows by tests/gpu_device/test_memory.py.
"""

from __future__ import annotations

import math

from gpu.params import HdbscanParams, KMeansParams
from gpu.vectors import DEVICE_BLOCK_BYTES

FLOAT = 4

COPIES = 2
"""The vectors, and the centred and scaled copy that cuML is given."""

BASE_BYTES = 256 << 20
"""Blocks of rows of our own (four of `gpu.vectors.DEVICE_BLOCK_BYTES`), library buffers."""

STREAMED_PIECE_BYTES = 128 << 20
"""What streamed k-means works with at a time, beside the block of rows itself."""

_MOST_PIECE_ROWS = 8192
"""Rows whose sum per group is taken in float32, before it is added in float64."""

_LIBRARY_BYTES = 64 << 20

_DESCENT_DEGREE = 64

_TILE_ROWS, _TILE_COLUMNS = 512, 1 << 18
"""Part of the matrix of distances that cuVS's exact neighbour search holds at a time."""


def device_bytes(n_points: int, n_dims: int, params: KMeansParams | HdbscanParams) -> int:
    """Estimate the peak of a fit on the GPU, with the vectors.

    Parameters
    ----------
    n_points, n_dims : int
        Shape of the vectors, float32.
    params : KMeansParams or HdbscanParams
    """
    working_set = (
        _kmeans_bytes(n_points, n_dims, params)
        if isinstance(params, KMeansParams)
        else _hdbscan_bytes(n_points, params)
    )
    return BASE_BYTES + COPIES * n_points * n_dims * FLOAT + working_set


def _kmeans_bytes(n_points: int, n_dims: int, params: KMeansParams) -> int:
    index = 4 if n_points * n_dims < 2**31 else 8
    # Nearest centroid with its distance, squared length, weight, a lock; then the label.
    per_point = (index + FLOAT) + FLOAT + FLOAT + index + index
    if params.init == "k-means++":
        # Distance to the nearest so far, squared length, and the distance to each candidate.
        candidates = 2 + math.ceil(math.log(params.n_clusters))
        per_point += (2 + candidates) * FLOAT
    # Centroids: the best start's, this one's, the next, and their sums twice.
    return n_points * per_point + 5 * params.n_clusters * n_dims * FLOAT


def streamed_piece_rows(n_dims: int, n_clusters: int) -> int:
    """Give the number of rows that streamed k-means compares with all centroids at a time."""
    fitting = STREAMED_PIECE_BYTES // _streamed_row_bytes(n_dims, n_clusters)
    return max(1, min(_MOST_PIECE_ROWS, fitting))


def _streamed_row_bytes(n_dims: int, n_clusters: int) -> int:
    # Either the row in float64, twice, and back; or its scores, whose it is, and that in float32.
    return max(20 * n_dims, 4 * n_dims + 9 * n_clusters)


def streamed_bytes(n_points: int, n_dims: int, params: KMeansParams) -> int:
    """Estimate the peak of k-means on the GPU where its rows pass through in blocks."""
    k = params.n_clusters
    rows = min(n_points, streamed_piece_rows(n_dims, k))
    # One block is worked on while the next one arrives.
    blocks = 2 * min(DEVICE_BLOCK_BYTES, n_points * n_dims * FLOAT)
    # Centroids, the same by columns, sums of a piece, and in float64 all sums.
    centroids = k * n_dims * (3 * FLOAT + 8)
    labels = n_points * FLOAT
    piece = rows * _streamed_row_bytes(n_dims, k)
    return _LIBRARY_BYTES + blocks + piece + centroids + labels


def _hdbscan_bytes(n_points: int, params: HdbscanParams) -> int:
    neighbours = params.resolved(n_points).min_samples or 0
    # Indices (8) and distances (4) of the neighbours; the graph both ways with rows, columns
    # (8 each) and weights (4), while it is made symmetric twice.
    graph = n_points * neighbours * (12 + 2 * 2 * 20)
    if params.approx_min_span_tree:
        # NN-descent: half-precision rows are beside (cuVS), two graphs of ids and distances.
        degree = max(_DESCENT_DEGREE, neighbours)
        return graph + n_points * degree * (3 * 8) + n_points * 256
    tile = _TILE_ROWS * min(n_points, _TILE_COLUMNS) * FLOAT
    return graph + tile + n_points * 256  # Spanning tree, hierarchy, labels.
