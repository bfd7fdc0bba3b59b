"""What a clustering gives back, and the one door to all methods."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from gpu.backend import Backend, Device, choose_backend, device_errors, with_spare
from gpu.errors import DeviceMemoryError, HostMemoryError, InvalidParametersError, Violation
from gpu.memory import estimate, fitting_points, free_bytes
from gpu.params import BUILT_METHODS, METRICS, NOISE, Params, metric_violations, params_class
from gpu.vectors import are_unit, on_host, require_matrix, unit_rows

Array = Any
"""A NumPy array (host) or a CuPy array (device); type checkers know only the first."""


Progress = Callable[[float], None]
"""Told the share of a fit that is done, 0 to 1, from the computing thread."""

COSINE_DISTANCES = {
    "hdbscan": ("cluster_selection_epsilon",),
    "dbscan": ("eps",),
    "optics": ("max_eps", "eps"),
    "mean_shift": ("bandwidth",),
}
"""Parameters that are distances in the caller's metric, of methods that see unit rows only."""

WITH_METRIC = ("hdbscan", "dbscan", "agglomerative", "optics", "auto")
"""Methods that are told the metric; the others are Euclidean."""


def no_progress(_share: float) -> None:
    """Take the place of a progress callback."""


@dataclass(frozen=True)
class Clustering:
    """Groups of points.

    Attributes
    ----------
    labels : array of shape (n_points,), int32
        Group of each point, 0 the largest group; `NOISE` for none. NumPy.
    strength : array of shape (n_points,), float32, or None
        How firmly each point belongs to its group, 0 to 1; None where the method has no such
        notion. NumPy.
    n_clusters : int
        Number of groups, noise not counted.
    effective_params : dict
        What was used, with every default and share filled in.
    device : {"gpu", "cpu"}
        Where the fit ran.
    notes : list of str
        What the caller should know, in plain words: fallbacks, odd input.
    details : dict
        Figures of the method's own, such as ``inertia`` and ``n_iter``.
    device_reason : str
        Why it ran there, in plain words.
    nearest : array of shape (n_points,), int32, or None
        The group each point is nearest to, noise included, where the method has a better rule
        than the nearest centroid (auto); None otherwise. NumPy.
    """

    labels: Array
    strength: Array | None
    n_clusters: int
    effective_params: dict[str, Any]
    device: str
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    device_reason: str = ""
    nearest: Array | None = None


def renumber_by_size(labels: Array) -> tuple[Array, Array]:
    """Number the groups by size, the largest first; ties by their first member.

    Parameters
    ----------
    labels : array of shape (n_points,), int
        Any non-negative numbers, gaps allowed; `NOISE` for none. NumPy.

    Returns
    -------
    labels : array of shape (n_points,), int32
        0 to n_groups - 1, and `NOISE` where it was.
    order : array of shape (n_groups,), int64
        The old number of each new one, to reorder what belongs to the groups.
    """
    labels = np.asarray(labels)
    grouped = labels != NOISE
    members = labels[grouped]
    n_numbers = int(members.max(initial=NOISE)) + 1
    if n_numbers > 2 * len(labels):
        old, members = np.unique(members, return_inverse=True)
    else:  # By counting: sorting a million labels takes a tenth of a second.
        old = np.arange(n_numbers)
    counts = np.bincount(members)
    first = np.empty(len(counts), dtype=np.int64)
    first[members[::-1]] = np.arange(len(members))[::-1]  # The last to be written stays.
    used = np.flatnonzero(counts)
    by_size = used[np.lexsort((first[used], -counts[used]))]

    renumbered = np.full(len(labels), NOISE, dtype=np.int32)
    new_of_old = np.empty(len(counts), dtype=np.int32)
    new_of_old[by_size] = np.arange(len(by_size), dtype=np.int32)
    renumbered[grouped] = new_of_old[members]
    return renumbered, old[by_size].astype(np.int64)


def clustered(
    labels: Array,
    params: Params,
    backend: Backend,
    *,
    strength: Array | None = None,
    notes: Sequence[str] = (),
    **details: Any,
) -> Clustering:
    """Put together what a method found; labels may be any non-negative numbers and `NOISE`."""
    numbered, order = renumber_by_size(labels)
    found = list(notes)
    if not len(order):
        found.append("no group stands out: all points are noise")
    return Clustering(
        labels=numbered,
        strength=None if strength is None else np.asarray(strength, dtype=np.float32),
        n_clusters=len(order),
        effective_params=asdict(params),
        device=backend.device,
        notes=found,
        details=details,
    )


def fit(
    vectors: Array,
    *,
    method: str,
    params: Params,
    metric: str,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Clustering:
    """Cluster vectors by a method, on the GPU where one can and on the CPU otherwise.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows (see `gpu.vectors.usable_rows`); NumPy or CuPy. Not modified.
    method : str
        One of `gpu.params.BUILT_METHODS`.
    params : Params
        The method's own, from `gpu.params.parse_params`.
    metric : str
        cosine and dot cluster the unit rows; see `gpu.params.supports_metric`.
    device : {"auto", "gpu", "cpu"}
        With auto, what the GPU lacks or has no memory for runs on the CPU, and a note says so.
    progress : callable or None
        Told the share that is done, 0 to 1, from the calling thread or a worker of it.

    Returns
    -------
    Clustering
        `effective_params` are in the caller's metric.

    Raises
    ------
    InvalidParametersError
        For an unknown method, or a metric that it lacks.
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is unusable; names the first.
    TooFewPointsError
        If the parameters need more points.
    HostMemoryError
        If the fit would not fit into memory; says how many points would.
    DeviceError
        Only with device "gpu": there is none, it lacks memory or the method, or it failed.
    """
    _require_known(method, params, metric)
    require_matrix(vectors)
    angular = metric in ("cosine", "dot")
    names = COSINE_DISTANCES.get(method, ()) if angular else ()
    sent: dict[str, float | None] = {name: getattr(params, name) for name in names}
    converted: dict[str, Any] = {name: _as_euclidean(value) for name, value in sent.items()}
    used = replace(params, **converted)
    cluster = _function_of(method)
    if method in WITH_METRIC:
        cluster = partial(cluster, metric="cosine" if angular else metric)

    def attempt(backend: Backend) -> Clustering:
        _require_memory_for(vectors, method, params, backend, metric)
        if backend.device == "cpu":
            rows = on_host(vectors)  # Also when the GPU has just run out of memory.
            points = unit_rows(rows) if angular else rows
            return cluster(points, used, backend=backend, progress=progress)
        n_points, n_dims = vectors.shape
        with device_errors(estimate(method, n_points, n_dims, params, "gpu")):
            points = unit_rows(vectors) if angular else vectors
        return cluster(points, used, backend=backend, progress=progress)

    result = with_fallback(attempt, choose_backend(device), device)
    notes = list(result.notes)
    if metric == "dot":
        notes.insert(0, "dot product: the vectors were scaled to length 1, as for cosine")
    effective = dict(result.effective_params)
    for name, value in sent.items():
        # What the method itself chose is a Euclidean distance of the unit rows.
        chosen = effective[name]
        effective[name] = value if value is not None or chosen is None else chosen**2 / 2
    return replace(result, notes=notes, effective_params=effective)


def with_fallback(
    attempt: Callable[[Backend], Clustering], backend: Backend, device: Device
) -> Clustering:
    """Run on a back end; with device "auto", run on the CPU what the GPU could not."""
    result, used = with_spare(attempt, backend, device)
    notes = [] if used is backend else [f"ran on the CPU, {used.reason}"]
    return replace(result, notes=[*notes, *result.notes], device_reason=used.reason)


def require_memory(
    method: str,
    shape: tuple[int, int],
    params: Params,
    backend: Backend,
    metric: str = "cosine",
    *,
    has_vectors: bool = True,
) -> None:
    """Refuse a fit that would not fit into the memory that is free now.

    See `gpu.memory.estimate`; say ``euclidean`` for rows of length 1, which are not copied.

    Raises
    ------
    HostMemoryError, DeviceMemoryError
    """
    n_points, n_dims = shape
    free = free_bytes(backend.device)
    told: dict[str, Any] = {"metric": metric, "has_vectors": has_vectors}
    needed = estimate(method, n_points, n_dims, params, backend.device, free=free, **told)
    if needed <= free:
        return
    if backend.device == "gpu":
        raise DeviceMemoryError(needed_bytes=needed, free_bytes=free)
    fits = fitting_points(method, n_dims, params, backend.device, free, **told)
    raise HostMemoryError(needed_bytes=needed, free_bytes=free, fits_points=fits)


def _require_memory_for(
    vectors: Array, method: str, params: Params, backend: Backend, metric: str
) -> None:
    try:
        require_memory(method, vectors.shape, params, backend, metric)
    except HostMemoryError:
        # Lengths are looked at only where a copy of the rows would be the one too many.
        if metric not in ("cosine", "dot") or not are_unit(on_host(vectors)):
            raise
        require_memory(method, vectors.shape, params, backend, "euclidean")


def _require_known(method: str, params: Params, metric: str) -> None:
    violations = []
    if method not in BUILT_METHODS:
        allowed = f"must be one of {', '.join(BUILT_METHODS)}"
        violations.append(Violation("clustering_method", json.dumps(method), allowed))
    if metric not in METRICS:
        allowed = f"must be one of {', '.join(METRICS)}"
        violations.append(Violation("metric", json.dumps(metric), allowed))
    if violations:
        raise InvalidParametersError(violations)
    expected = params_class(method)
    if not isinstance(params, expected):
        raise TypeError(f"{method} takes {expected.__name__}, got {type(params).__name__}")
    if violations := metric_violations(method, params, metric):
        raise InvalidParametersError(violations)


def _as_euclidean(distance: float | None) -> float | None:
    """Turn a cosine distance into the Euclidean one of unit rows, ``sqrt(2 * distance)``."""
    return None if distance is None else math.sqrt(2 * distance)


def _function_of(method: str) -> Callable[..., Clustering]:
    # Imported here: the methods import this module for what they give back.
    function: Callable[..., Clustering] = getattr(import_module(f"gpu.{method}"), method)
    return function
