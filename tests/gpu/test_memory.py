"""The estimate grows with the work, and says how much would fit."""

import pytest

from gpu.memory import estimate, fitting_points, free_bytes
from gpu.params import HdbscanParams, KMeansParams

PARAMS = {"kmeans": KMeansParams(n_clusters=10), "hdbscan": HdbscanParams(min_cluster_size=0.01)}


@pytest.mark.parametrize("method", PARAMS)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_points_said_to_fit_do_and_one_more_does_not(method, device):
    params, free = PARAMS[method], 2 << 30

    fits = fitting_points(method, 384, params, device, free)

    assert estimate(method, fits, 384, params, device) <= free
    assert estimate(method, fits + 1, 384, params, device) > free


def test_nothing_fits_into_nothing():
    assert fitting_points("kmeans", 384, PARAMS["kmeans"], "cpu", 0) == 0


def test_a_million_vectors_of_768_need_at_most_their_own_size_and_a_gigabyte():
    matrix = 1_000_000 * 768 * 4

    assert estimate("kmeans", 1_000_000, 768, KMeansParams(n_clusters=100)) < matrix + (1 << 30)


def test_the_machine_has_some_memory_free():
    assert 1 << 20 < free_bytes("cpu") < 1 << 60
