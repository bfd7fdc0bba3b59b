"""HDBSCAN: on the CPU by matrix products, our own; cuML on the GPU.

On the CPU the spanning tree comes from the whole matrix of distances while that fits in memory
(`gpu.spanning_tree`), otherwise from blocks of it (`gpu.boruvka`); both are exact to float32. The
time of either grows with the square of the points. Where it is asked for, and above
`APPROXIMATE_FROM` points unless it is refused, the tree comes from approximate neighbours
(`gpu.approximate_neighbours`) and is nearly minimal; the notes say so.
Distances are Euclidean (pass unit rows for cosine, see `gpu.vectors.unit_rows`) or Manhattan, on
the CPU alone.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend, device_errors
from gpu.boruvka import approximate_tree, boruvka_tree
from gpu.clustering import Clustering, Progress, renumber_by_size
from gpu.condensed_tree import (
    CondensedTree,
    condense,
    from_rows,
    outline,
    select_groups,
    selected_as,
)
from gpu.errors import TooFewPointsError, UnsupportedOnDeviceError
from gpu.host_memory import matrix_budget, matrix_bytes
from gpu.manhattan_distances import ManhattanDistances
from gpu.memory import estimate, free_bytes
from gpu.parallel import worker_threads
from gpu.params import APPROXIMATE_FROM, NOISE, HdbscanParams
from gpu.spanning_tree import SpanningTree, dense_tree
from gpu.squared_distances import SquaredDistances
from gpu.vectors import centred_copy, on_host, require_finite, require_matrix

Array = Any
"""A NumPy array (host) or a CuPy array (device); type checkers know only the first."""

MIN_SAMPLES_ON_GPU = range(2, 1025)
"""What cuML takes: 1 to 1023 neighbours, of which it does not count the point itself."""

NN_DESCENT_DEGREE = 64
"""Neighbours of each point in cuML's approximate graph, its own default."""

_TREE_SHARE = 0.95


def hdbscan(
    vectors: Array,
    params: HdbscanParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
    metric: str = "euclidean",
    n_threads: int | None = None,
    matrix_budget_bytes: int | None = None,
) -> Clustering:
    """Find groups of any density; points in sparse regions are noise.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy. Not modified.
    params : HdbscanParams
        Shares of the points allowed; `cluster_selection_epsilon` is a Euclidean distance
        unless `metric` is manhattan.
    backend : Backend
    progress : callable or None
        Told the share that is done, 0 to 1. The GPU library reports nothing in between.
    metric : {"euclidean", "cosine", "manhattan"}
        cosine says that the rows are unit, and changes nothing else.
    n_threads : int or None
        On the CPU; None: one per core. The result does not depend on it.
    matrix_budget_bytes : int or None
        Most memory for the full matrix of distances on the CPU, above which it is computed in
        blocks; None: half of what is free, at most 512 MiB.

    Returns
    -------
    Clustering
        `strength` is the membership strength, 0 for noise. `details` has ``spanning_tree``
        ("dense", "blocks" or "approximate"; on the GPU "exact" or "approximate") and
        ``condensed_tree`` (its outline).

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite; names the first.
    TooFewPointsError
        With fewer points than `min_samples`.
    UnsupportedOnDeviceError
        On the GPU, for a value that cuML does not take; before the device is touched.
    DeviceMemoryError, DeviceFailedError
        If the GPU runs out of memory, or its library gives up.

    Notes
    -----
    `min_samples` counts the point itself, as scikit-learn does; cuML and the package hdbscan do
    not, so cuML is given one less. Ties between edges are broken as scikit-learn does with
    ``algorithm="brute"``, so that labels agree for rows in the same order. `alpha` divides
    distances but not core distances, as scikit-learn does with its default algorithm.

    On the GPU neighbours are exact, or approximate, and the tree is that of the graph of each
    point's `min_samples` nearest ones, whose parts are joined at their true nearest points (cuVS,
    `build_mr_linkage`). Where a part hangs together through outliers alone, a shorter edge between
    points that are not such neighbours is missed.

    Memory on the CPU, beside the vectors: one copy of them, and either the matrix or about
    6 MB per thread and 1 KB per point; where it is approximate, half a copy and about 0.6 KB per
    point.

    References
    ----------
    Campello, Moulavi and Sander (2013), doi:10.1007/978-3-642-37456-2_14.
    """
    require_matrix(vectors)
    n_points = len(vectors)
    asked = params.approx_min_span_tree
    params = params.resolved(n_points)
    approximate = params.is_approximate(n_points, metric, backend.device)
    params = replace(params, approx_min_span_tree=approximate)
    _require_enough(n_points, params)
    if backend.device == "gpu":
        _require_supported(params, metric)
    require_finite(vectors)

    tell = progress or _ignore
    details: dict[str, Any] = {}
    condensed: CondensedTree | None = None
    if n_points < params.min_cluster_size:
        labels, strength = np.full(n_points, NOISE), np.zeros(n_points)
    elif backend.device == "gpu":
        labels, strength, condensed = _fit_on_gpu(vectors, params)
        details["spanning_tree"] = "approximate" if approximate else "exact"
    else:
        tree, details["spanning_tree"] = spanning_tree(
            on_host(vectors),
            params,
            metric=metric,
            progress=lambda share: tell(_TREE_SHARE * share),
            n_threads=n_threads,
            matrix_budget_bytes=matrix_budget_bytes,
        )
        condensed = condense(tree, int(params.min_cluster_size))
        labels, strength = select_groups(condensed, params)
    numbered, order = renumber_by_size(labels)
    if condensed is not None:
        on_gpu = backend.device == "gpu"
        clusters = selected_as(condensed, numbered, params) if on_gpu else order
        details["condensed_tree"] = outline(condensed, clusters)
    tell(1.0)
    return Clustering(
        labels=numbered,
        strength=strength.astype(np.float32),
        n_clusters=len(order),
        effective_params=asdict(params),
        device=backend.device,
        notes=[
            *_notes(n_points, params, len(order)),
            *_notes_on_search(n_points, asked, approximate, backend.device),
        ],
        details=details,
    )


def spanning_tree(
    vectors: NDArray[np.float32],
    params: HdbscanParams,
    *,
    metric: str = "euclidean",
    progress: Progress | None = None,
    n_threads: int | None = None,
    matrix_budget_bytes: int | None = None,
) -> tuple[SpanningTree, str]:
    """Build the spanning tree of mutual reachability on the CPU; arguments as in `hdbscan`.

    Returns
    -------
    tree : SpanningTree
    way : {"dense", "blocks", "approximate"}
        How it was found.
    """
    params = params.resolved(len(vectors))
    assert params.min_samples is not None  # Resolved.
    tell = progress or _ignore
    if params.is_approximate(len(vectors), metric, "cpu"):
        with worker_threads(n_threads) as each:
            tree = approximate_tree(
                vectors,
                min_samples=params.min_samples,
                alpha=params.alpha,
                each=each,
                progress=tell,
            )
        return tree, "approximate"
    if matrix_budget_bytes is None:
        matrix_budget_bytes = matrix_budget(free_bytes("cpu"))
    is_dense = matrix_bytes(len(vectors)) <= matrix_budget_bytes
    build = dense_tree if is_dense else boruvka_tree
    with worker_threads(n_threads) as each:
        tree = build(
            ManhattanDistances(vectors) if metric == "manhattan" else SquaredDistances(vectors),
            min_samples=params.min_samples,
            alpha=params.alpha,
            each=each,
            progress=tell,
        )
    return tree, "dense" if is_dense else "blocks"


def _ignore(_share: float) -> None:
    """Take the place of a progress callback."""


def _require_enough(n_points: int, params: HdbscanParams) -> None:
    assert params.min_samples is not None  # Resolved.
    if n_points < params.min_samples:
        raise TooFewPointsError(n_points=n_points, needed=params.min_samples)


def _require_supported(params: HdbscanParams, metric: str) -> None:
    if metric == "manhattan":
        raise UnsupportedOnDeviceError(
            parameter="metric", value=metric, why="cuML's HDBSCAN has Euclidean distance only"
        )
    assert params.min_samples is not None  # Resolved.
    if params.min_samples not in MIN_SAMPLES_ON_GPU:
        first, last = MIN_SAMPLES_ON_GPU[0], MIN_SAMPLES_ON_GPU[-1]
        raise UnsupportedOnDeviceError(
            parameter="min_samples", value=params.min_samples, why=f"cuML takes {first} to {last:,}"
        )
    if params.alpha != 1:
        # cuVS's mutual reachability has `alpha * distance`, scikit-learn `distance / alpha`.
        raise UnsupportedOnDeviceError(
            parameter="alpha",
            value=params.alpha,
            why="cuML multiplies distances by it where scikit-learn divides",
        )


def _notes(n_points: int, params: HdbscanParams, n_groups: int) -> list[str]:
    if n_points < params.min_cluster_size:
        return [
            f"all {n_points:,} points are noise: a group needs min_cluster_size = "
            f"{params.min_cluster_size:,}"
        ]
    if not n_groups:
        return [
            f"no group of at least {params.min_cluster_size:,} points stands out: "
            "all points are noise"
        ]
    return []


def _notes_on_search(
    n_points: int, asked: bool | None, approximate: bool, device: str
) -> list[str]:
    if approximate and asked is None:
        return [
            f"approximate: {n_points:,} points are more than {APPROXIMATE_FROM[device]:,}, so near "
            "neighbours were searched approximately and groups may differ a little from exact "
            "ones; approx_min_span_tree: false searches exactly, in time that grows with the square"
        ]
    if approximate:
        return ["approximate: near neighbours were searched approximately, as was asked for"]
    return ["Manhattan distances are always searched exactly"] if asked else []


def _fit_on_gpu(vectors: Array, params: HdbscanParams) -> tuple[Array, Array, CondensedTree | None]:
    import cupy
    from cuml.cluster import HDBSCAN

    assert params.min_samples is not None  # Resolved.
    n_points, n_dims = vectors.shape
    needed = estimate("hdbscan", n_points, n_dims, params, "gpu")
    with device_errors(needed):
        points = centred_copy(vectors, cupy)
        model = HDBSCAN(
            min_cluster_size=int(params.min_cluster_size),
            min_samples=params.min_samples - 1,  # cuML leaves the point itself out.
            cluster_selection_epsilon=params.cluster_selection_epsilon,
            max_cluster_size=params.max_cluster_size or 0,
            cluster_selection_method=params.cluster_selection_method,
            allow_single_cluster=params.allow_single_cluster,
            metric="euclidean",
            output_type="numpy",
            **_search_on_gpu(params, n_points),
        ).fit(points)
        # Where a group's members coincide, its strengths are infinity over infinity.
        strength = np.nan_to_num(model.probabilities_, nan=1.0)
        return model.labels_, strength, _condensed_on_gpu(model, n_points)


def _search_on_gpu(params: HdbscanParams, n_points: int) -> dict[str, Any]:
    """Give cuML's names for how neighbours are searched: all of them, or by NN-descent."""
    assert params.min_samples is not None  # Resolved.
    # cuML wants a degree above the neighbours that it is asked for, and twice that in between.
    degree = max(NN_DESCENT_DEGREE, params.min_samples)
    # NN-descent is unstable where a point's graph reaches most others, and gains nothing there.
    if not params.approx_min_span_tree or n_points < 4 * degree:
        return {"build_algo": "brute_force"}
    return {
        "build_algo": "nn_descent",
        "build_kwds": {"nnd_graph_degree": degree, "nnd_intermediate_graph_degree": 2 * degree},
    }


def _condensed_on_gpu(model: Any, n_points: int) -> CondensedTree | None:
    # The public property gives the same rows, but wants the package hdbscan around them.
    rows = getattr(model, "_condensed_tree", None)
    if rows is None or not len(rows):
        return None
    return from_rows(
        n_points, rows["parent"], rows["child"], rows["lambda_val"], rows["child_size"]
    )
