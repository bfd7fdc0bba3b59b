"""Odd and wrong input for every method, and what comes of it on a back end."""

import numpy as np

from gpu.clustering import fit
from gpu.errors import ClusteringError
from gpu.params import parse_params

RNG = np.random.default_rng(0)
METHODS = {
    "kmeans": {"n_clusters": 3},
    "hdbscan": {"min_cluster_size": 3},
    "dbscan": {"eps": 0.5, "min_samples": 3},
    "agglomerative": {"n_clusters": 3},
    "agglomerative, single": {"n_clusters": 3, "linkage": "single"},
    "spectral": {"n_clusters": 3},
    "spectral, by neighbours": {"n_clusters": 3, "affinity": "nearest_neighbors"},
    "gaussian_mixture": {"n_components": 3},
    "mean_shift": {"bandwidth": 1.0},
    "optics": {"min_samples": 3},
}


def with_nan():
    rows = RNG.normal(size=(40, 4)).astype(np.float32)
    rows[7, 2] = np.nan
    return rows


def constant_columns():
    rows = np.ones((60, 5), dtype=np.float32)
    rows[:, 0] = np.repeat([0, 10, 20], 20) + RNG.normal(0, 0.05, 60)
    return rows


INPUTS = {
    "duplicates only": np.full((40, 4), 2.5, dtype=np.float32),
    "one point": np.ones((1, 4), dtype=np.float32),
    "all zeros": np.zeros((40, 4), dtype=np.float32),
    "a NaN": with_nan(),
    "constant columns": constant_columns(),
    "two points": np.array([[1, 2], [5, -5]], dtype=np.float32),
    "1 x 100 000": np.ones((1, 100_000), dtype=np.float32),
    "no rows": np.empty((0, 4), dtype=np.float32),
    "float64": np.ones((40, 4)),
}


def outcome(method, vectors, metric, device):
    """Give the number of groups, or the error's class and words."""
    sent, method = METHODS[method], method.partition(",")[0]
    params = parse_params(method, sent).params
    try:
        found = fit(vectors, method=method, params=params, metric=metric, device=device)
    except ClusteringError as error:
        return type(error).__name__, str(error)
    assert len(found.labels) == len(vectors)
    assert found.labels.max(initial=-1) == found.n_clusters - 1
    assert found.strength is None or np.isfinite(found.strength).all()
    return found.n_clusters
