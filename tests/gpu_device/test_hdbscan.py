"""HDBSCAN on a GPU agrees with the exact one on the CPU.

Not to the last point: cuML's tree is that of a graph of neighbours (`gpu.hdbscan.hdbscan`, Notes),
in which stray points hold groups together. Done with NumPy, its steps give an agreement of 0.993 on
the mixture with strays, and the same groups, strengths and tree without.
"""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from gpu.backend import Backend
from gpu.errors import InvalidVectorsError
from gpu.hdbscan import hdbscan
from gpu.params import NOISE, HdbscanParams

CPU = Backend("cpu", "asked for by the test")
GPU = Backend("gpu", "asked for by the test")


def mixture(n_points=4000, n_dims=16, n_groups=12, offset=0.0, strays=0.1):
    rng = np.random.default_rng(0)
    centres = rng.uniform(-10, 10, (n_groups, n_dims))
    points = centres[rng.integers(n_groups, size=n_points)] + rng.normal(size=(n_points, n_dims))
    stray = rng.random(n_points) < strays
    points[stray] = rng.uniform(-12, 12, (stray.sum(), n_dims))
    return (points + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 500.0])
@pytest.mark.parametrize(
    "params",
    [
        {"min_cluster_size": 30},
        {"min_cluster_size": 30, "min_samples": 2},
        {"min_cluster_size": 30, "min_samples": 4},
        {"min_cluster_size": 30, "cluster_selection_method": "leaf"},
        {"min_cluster_size": 30, "cluster_selection_epsilon": 2.0},
        {"min_cluster_size": 30, "max_cluster_size": 1000},
        {"min_cluster_size": 30, "min_samples": 1024},
    ],
    ids=str,
)
def test_groups_are_those_of_the_cpu(record_property, params, offset):
    vectors = mixture(offset=offset)
    exact = hdbscan(vectors, HdbscanParams(**params), backend=CPU)

    found = hdbscan(vectors, HdbscanParams(**params), backend=GPU)

    agreement = adjusted_rand_score(exact.labels, found.labels)
    record_property("ARI", round(agreement, 4))
    assert found.device == "gpu"
    assert agreement >= 0.98
    assert found.n_clusters == exact.n_clusters
    both = (exact.labels != NOISE) & (found.labels != NOISE)
    apart = np.abs(found.strength - exact.strength)[both]
    assert np.count_nonzero(apart > 0.05) <= 0.01 * len(apart)


def test_min_samples_counts_the_point_itself_on_both():
    # Off by one, the core distances and with them a tenth of the noise would be others.
    vectors = mixture(n_points=3000)
    noise = {}
    for n_samples in (4, 5, 6):
        params = HdbscanParams(min_cluster_size=30, min_samples=n_samples)
        noise[n_samples] = hdbscan(vectors, params, backend=CPU).strength

    found = hdbscan(vectors, HdbscanParams(min_cluster_size=30, min_samples=5), backend=GPU)

    apart = {n: float(np.abs(found.strength - strength).mean()) for n, strength in noise.items()}
    assert min(apart, key=apart.__getitem__) == 5, apart


def test_duplicates_have_a_strength():
    vectors = np.repeat(mixture(n_points=100), 20, axis=0)

    found = hdbscan(vectors, HdbscanParams(min_cluster_size=10), backend=GPU)

    assert np.isfinite(found.strength).all()
    assert found.strength.max() <= 1


def test_device_arrays_are_taken_and_host_arrays_given_back():
    import cupy

    vectors = mixture(n_points=500)
    given = cupy.asarray(vectors)

    found = hdbscan(given, HdbscanParams(), backend=GPU)

    assert isinstance(found.labels, np.ndarray)
    assert isinstance(found.strength, np.ndarray)
    assert found.labels.dtype == np.int32
    assert found.strength.dtype == np.float32
    assert np.array_equal(given.get(), vectors)  # Not modified.


def test_a_row_on_the_device_that_is_not_finite_is_named():
    import cupy

    vectors = cupy.asarray(mixture(n_points=50))
    vectors[17, 3] = cupy.nan

    with pytest.raises(InvalidVectorsError, match="first: row 17"):
        hdbscan(vectors, HdbscanParams(), backend=GPU)


def test_approximate_neighbours_give_nearly_the_groups_of_exact_ones():
    vectors = mixture(n_points=30_000)
    exact = hdbscan(vectors, HdbscanParams(min_cluster_size=30), backend=GPU)
    params = HdbscanParams(min_cluster_size=30, approx_min_span_tree=True)

    found = hdbscan(vectors, params, backend=GPU)

    assert adjusted_rand_score(exact.labels, found.labels) >= 0.95
    assert found.details["spanning_tree"] == "approximate"
    assert any(note.startswith("approximate") for note in found.notes)


def test_the_condensed_tree_is_outlined_as_on_the_cpu():
    vectors = mixture(strays=0)
    params = HdbscanParams(min_cluster_size=30)
    exact = hdbscan(vectors, params, backend=CPU).details["condensed_tree"]

    found = hdbscan(vectors, params, backend=GPU).details["condensed_tree"]

    assert found["n_clusters"] == exact["n_clusters"]
    assert sorted(found["size"]) == sorted(exact["size"])
    assert sorted(found["group"]) == sorted(exact["group"])
    assert found["parent"][0] == 0
