"""A mixture of Gaussians, by scikit-learn; cuML has none."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from gpu.backend import Backend
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.errors import (
    InvalidParametersError,
    TooFewPointsError,
    UnsupportedOnDeviceError,
    Violation,
)
from gpu.params import GaussianMixtureParams
from gpu.quiet import warnings_as_notes
from gpu.vectors import on_host, require_finite, require_matrix

Array = Any


def gaussian_mixture(
    vectors: Array,
    params: GaussianMixtureParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
) -> Clustering:
    """Describe the points by Gaussians, and give each point to the likeliest.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite. Not modified; a float64 copy is made.
    params : GaussianMixtureParams
    backend : Backend
        The CPU.
    progress : callable or None
        Told 1 at the end; scikit-learn reports nothing in between.

    Returns
    -------
    Clustering
        `strength` is the posterior probability of the own Gaussian. `details`: ``converged``,
        ``n_iter``, ``log_likelihood`` (mean per point), ``bic``.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    InvalidParametersError
        If a Gaussian collapses onto too few points for its covariance.
    TooFewPointsError
        With fewer points than Gaussians, or a single one.
    UnsupportedOnDeviceError
        On the GPU.

    References
    ----------
    Dempster, Laird and Rubin (1977), doi:10.1111/j.2517-6161.1977.tb01600.x.
    """
    if backend.device == "gpu":
        raise UnsupportedOnDeviceError(
            parameter="clustering_method", value="gaussian_mixture", why="cuML has no mixtures"
        )
    require_matrix(vectors)
    needed = max(2, params.n_components)
    if len(vectors) < needed:
        raise TooFewPointsError(n_points=len(vectors), needed=needed)
    require_finite(vectors)
    points = on_host(vectors).astype(np.float64)  # Covariances in float32 are rarely definite.
    with warnings_as_notes() as notes:
        model = _fitted(points, params)
        shares = model.predict_proba(points)
    (progress or no_progress)(1.0)
    labels = shares.argmax(axis=1)
    n_groups = len(np.unique(labels))
    if n_groups < params.n_components:
        notes.append(
            f"{params.n_components:,} Gaussians were asked for and {n_groups:,} have points: "
            "the others are nobody's likeliest"
        )
    return clustered(
        labels,
        params,
        backend,
        strength=shares.max(axis=1),
        notes=notes,
        converged=bool(model.converged_),
        n_iter=int(model.n_iter_),
        log_likelihood=float(model.score(points)),
        bic=float(model.bic(points)),
    )


def _fitted(points: Array, params: GaussianMixtureParams) -> Any:
    from sklearn.mixture import GaussianMixture

    try:
        return GaussianMixture(**asdict(params)).fit(points)
    except ValueError as error:
        if "ill-defined" not in str(error):
            raise
        allowed = (
            "too small: a Gaussian collapsed onto too few points for its covariance; raise it, "
            'ask for fewer groups, or use covariance_type "diag"'
        )
        violation = Violation("reg_covar", f"{params.reg_covar:g}", allowed)
        raise InvalidParametersError([violation]) from error
