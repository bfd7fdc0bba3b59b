"""EVoC: clustering made for embeddings, by the package evoc.

Importing the package compiles for minutes where its cache is cold, and its first fit in a process
compiles what is never cached; so it is imported inside the fit.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from gpu.backend import Backend
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import TooFewPointsError, UnsupportedOnDeviceError
from gpu.params import EvocParams
from gpu.quiet import warnings_as_notes
from gpu.vectors import on_host, require_finite, require_matrix

Array = Any


def evoc(
    vectors: Array,
    params: EvocParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
) -> Clustering:
    """Embed the graph of nearest neighbours, and find its dense parts at several granularities.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified. Compared by cosine, so lengths do not matter.
    params : EvocParams
    backend : Backend
        The CPU.
    progress : callable or None
        Told 1 at the end; the package reports nothing in between.

    Returns
    -------
    Clustering
        The layer with the greatest persistence; `strength` is its membership strength.
        `details`: ``layers`` (number of groups in each, the finest first), ``chosen_layer``.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    TooFewPointsError
        With no more points than `n_neighbors`.
    UnsupportedOnDeviceError
        On the GPU.

    References
    ----------
    https://github.com/TutteInstitute/evoc
    """
    if backend.device == "gpu":
        raise UnsupportedOnDeviceError(
            parameter="clustering_method", value="evoc", why="the package evoc has no GPU code"
        )
    require_matrix(vectors)
    needed = max(params.n_neighbors, params.min_samples, params.base_min_cluster_size) + 1
    if len(vectors) < needed:
        raise TooFewPointsError(n_points=len(vectors), needed=needed)
    require_finite(vectors)
    with warnings_as_notes():  # Of its compiler; nothing in them concerns the data.
        model = _fitted(on_host(vectors), params)
    (progress or no_progress)(1.0)
    layers = [int(layer.max()) + 1 for layer in model.cluster_layers_]
    return clustered(
        model.labels_,
        params,
        backend,
        strength=np.clip(model.membership_strengths_, 0, 1),
        layers=layers,
        chosen_layer=int(np.argmax(model.persistence_scores_)) if len(layers) > 1 else 0,
    )


def _fitted(points: Array, params: EvocParams) -> Any:
    from evoc import EVoC

    return EVoC(**asdict(params)).fit(points)
