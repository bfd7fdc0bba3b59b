"""Fewer dimensions: PCA (our own, exact) and UMAP (cuML or umap-learn).

PCA decomposes the covariance in float64. Measured on 8 000 x 384 embeddings it takes about 0.3 s
where scikit-learn's randomized solver takes 1 s and is not exact; only far above some 5 000
dimensions would that turn.

References
----------
McInnes, Healy and Melville (2018), arXiv:1802.03426 (UMAP).
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from gpu.backend import Backend, array_module, device_errors
from gpu.errors import DeviceFailedError, TooFewPointsError
from gpu.spectrum import Tell, project, spectrum
from gpu.steps import Pca, Umap
from gpu.vectors import on_device, on_host

Array = Any

SPARE_POINTS = 3
"""UMAP starts from eigenvectors of its graph: that many points more than dimensions."""


def pca(vectors: Array, step: Pca, tell: Tell) -> tuple[Array, list[str]]:
    """Project centred rows on their directions of most variance.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite; NumPy or CuPy. Not modified.
    step : Pca
    tell : callable
        Told the share done.

    Returns
    -------
    vectors : array of shape (n_points, n_kept), float32
        On the same device. Each direction's largest entry is positive, so signs are stable.
        With `whiten`, a direction without variance stays 0.
    notes : list of str
        Dimensions and share of the variance kept.
    """
    found = spectrum(vectors, tell)
    values = on_host(found.values)
    total = float(values.sum())
    shares = np.cumsum(values) / total if total > 0 else np.ones(len(values))
    if step.n_components < 1:
        # The share may fall short of 1 by rounding, never of what was asked for by a direction.
        n_kept = min(int(np.searchsorted(shares, step.n_components)) + 1, len(values))
    else:
        n_kept = min(int(step.n_components), len(values))
    matrix = found.directions[:, :n_kept]
    if step.whiten:
        xp = array_module(vectors)
        kept = found.values[:n_kept]
        matrix = matrix * xp.where(kept > 0, xp.where(kept > 0, kept, 1) ** -0.5, 0)
    kept_share = f"{shares[n_kept - 1]:.1%} of the variance"
    notes = [f"pca kept {n_kept:,} of {len(values):,} dimensions, {kept_share}"]
    if step.n_components > len(values):
        notes.append(
            f"pca was asked for {int(step.n_components):,} dimensions, the vectors have "
            f"{len(values):,}"
        )
    reduced = project(vectors, found.mean, matrix)
    tell(1.0)
    return reduced, notes


def umap(
    vectors: Array, step: Umap, *, metric: str, backend: Backend, tell: Tell
) -> tuple[Array, list[str]]:
    """Lay points out in few dimensions so that near neighbours stay near.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows under `metric`; NumPy or CuPy. Not modified.
    step : Umap
    metric : {"cosine", "euclidean", "manhattan"}
        Used where the step names none.
    backend : Backend
    tell : callable
        Told the share done.

    Returns
    -------
    vectors : array of shape (n_points, n_components), float32
        On the device of `vectors`. Distances are Euclidean. Seeded: the same on every run of
        one machine and library version, at the cost of one thread on the CPU.
    notes : list of str

    Raises
    ------
    TooFewPointsError
        With fewer than ``n_components + 3`` points.
    """
    needed = step.n_components + SPARE_POINTS
    if len(vectors) < needed:
        raise TooFewPointsError(n_points=len(vectors), needed=needed)
    n_neighbors = min(step.n_neighbors, len(vectors) - 1)
    notes = []
    if n_neighbors < step.n_neighbors:
        notes.append(f"umap looked at {n_neighbors:,} neighbours, there are no more points")
    options = {
        "n_components": step.n_components,
        "n_neighbors": n_neighbors,
        "min_dist": step.min_dist,
        "metric": step.metric or metric,
        "random_state": step.random_state,
    }
    tell(0.0)
    if backend.device == "gpu":
        laid_out = _umap_on_gpu(vectors, options)
    else:
        laid_out = _umap_on_cpu(on_host(vectors), options)
    tell(1.0)
    return laid_out, notes


def _umap_on_gpu(vectors: Array, options: dict[str, Any]) -> Array:
    import cupy
    from cuml.manifold import UMAP

    needed = 4 * vectors.size + 16 * len(vectors) * options["n_neighbors"]
    with device_errors(needed):
        laid_out = UMAP(**options, output_type="cupy").fit_transform(on_device(vectors, cupy))
        places = cupy.ascontiguousarray(laid_out, dtype=cupy.float32)
        if not bool(cupy.isfinite(places).all()):
            raise DeviceFailedError(why="UMAP gave places that are not finite")
        return places


@cache
def _keep_compiled() -> None:
    """Let numba keep, beside the library, what it would compile in each process for 10 s."""
    from umap import umap_, utils

    for function in (
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        utils.fast_knn_indices,
    ):
        with suppress(RuntimeError):  # Nowhere to keep it: then every process compiles its own.
            function.enable_caching()


def _umap_on_cpu(vectors: Array, options: dict[str, Any]) -> Array:
    with warnings.catch_warnings():
        # Told to users of its TensorFlow variant; ours is not.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP
    _keep_compiled()
    with warnings.catch_warnings():
        # Points that hang together in pieces get a layout per piece: what we want, no fault.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        laid_out = UMAP(**options, n_jobs=1).fit_transform(vectors)
    return np.ascontiguousarray(laid_out, dtype=np.float32)
