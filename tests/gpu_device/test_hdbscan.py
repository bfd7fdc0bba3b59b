"""HDBSCAN on a GPU agrees with the exact one on the CPU. Needs a CUDA device with RAPIDS."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from gpu.backend import Backend, gpu_unusable
from gpu.hdbscan import hdbscan
from gpu.params import NOISE, HdbscanParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpu_unusable() is not None, reason=f"no usable GPU: {gpu_unusable()}"),
]

CPU = Backend("cpu", "asked for by the test")
GPU = Backend("gpu", "asked for by the test")


def mixture(n_points=4000, n_dims=16, n_groups=12, offset=0.0):
    rng = np.random.default_rng(0)
    centres = rng.uniform(-10, 10, (n_groups, n_dims))
    points = centres[rng.integers(n_groups, size=n_points)] + rng.normal(size=(n_points, n_dims))
    stray = rng.random(n_points) < 0.1
    points[stray] = rng.uniform(-12, 12, (stray.sum(), n_dims))
    return (points + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 500.0])
@pytest.mark.parametrize(
    "params",
    [
        {"min_cluster_size": 30},
        {"min_cluster_size": 30, "min_samples": 4},
        {"min_cluster_size": 30, "cluster_selection_method": "leaf"},
        {"min_cluster_size": 30, "cluster_selection_epsilon": 2.0},
        {"min_cluster_size": 30, "max_cluster_size": 1000},
    ],
    ids=str,
)
def test_groups_are_those_of_the_cpu(params, offset):
    vectors = mixture(offset=offset)
    exact = hdbscan(vectors, HdbscanParams(**params), backend=CPU)

    found = hdbscan(vectors, HdbscanParams(**params), backend=GPU)

    assert found.device == "gpu"
    assert adjusted_rand_score(exact.labels, found.labels) >= 0.99
    assert found.n_clusters == exact.n_clusters
    both = (exact.labels != NOISE) & (found.labels != NOISE)
    np.testing.assert_allclose(found.strength[both], exact.strength[both], atol=0.05)


def test_device_arrays_are_taken_and_host_arrays_given_back():
    import cupy

    vectors = mixture(n_points=500)

    found = hdbscan(cupy.asarray(vectors), HdbscanParams(), backend=GPU)

    assert isinstance(found.labels, np.ndarray)
    assert isinstance(found.strength, np.ndarray)
    assert found.labels.dtype == np.int32
    assert found.strength.dtype == np.float32


def test_a_row_on_the_device_that_is_not_finite_is_named():
    import cupy

    from gpu.errors import InvalidVectorsError

    vectors = cupy.asarray(mixture(n_points=50))
    vectors[17, 3] = cupy.nan

    with pytest.raises(InvalidVectorsError, match="first: row 17"):
        hdbscan(vectors, HdbscanParams(), backend=GPU)
