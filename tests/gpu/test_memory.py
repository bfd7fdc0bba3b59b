"""The estimate grows with the work, and says how much would fit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpu.memory import estimate, fitting_points, free_bytes
from gpu.params import HdbscanParams, KMeansParams

PARAMS = {"kmeans": KMeansParams(n_clusters=10), "hdbscan": HdbscanParams(min_cluster_size=0.01)}


@pytest.mark.parametrize("method", PARAMS)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_points_said_to_fit_do_and_one_more_does_not(method, device):
    params, free = PARAMS[method], 2 << 30

    fits = fitting_points(method, 384, params, device, free)

    assert estimate(method, fits, 384, params, device, free=free) <= free
    assert estimate(method, fits + 1, 384, params, device, free=free) > free


def test_vectors_that_are_not_there_yet_count():
    held = estimate("kmeans", 10_000, 384, PARAMS["kmeans"])

    assert estimate("kmeans", 10_000, 384, PARAMS["kmeans"], has_vectors=False) == held + 15_360_000


def test_nothing_fits_into_nothing():
    assert fitting_points("kmeans", 384, PARAMS["kmeans"], "cpu", 0) == 0


def test_a_million_vectors_of_768_need_at_most_their_own_size_and_a_gigabyte():
    matrix = 1_000_000 * 768 * 4

    assert estimate("kmeans", 1_000_000, 768, KMeansParams(n_clusters=100)) < matrix + (1 << 30)


def test_the_machine_has_some_memory_free():
    assert 1 << 20 < free_bytes("cpu") < 1 << 60


MEASURE = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads and resets Linux's own peak")
@pytest.mark.parametrize(
    "asked",
    [
        ("kmeans", 100_000, 128, {"n_clusters": 32, "max_iter": 2}, "euclidean"),
        ("kmeans", 60_000, 384, {"n_clusters": 16, "max_iter": 2}, "cosine"),
        ("kmeans", 50_000, 256, {"n_clusters": 400, "max_iter": 2}, "euclidean"),
        ("hdbscan", 6_000, 32, {}, "euclidean"),
        ("hdbscan", 30_000, 32, {}, "euclidean"),
        ("hdbscan", 40_000, 128, {"approx_min_span_tree": True}, "cosine"),
        ("hdbscan", 30_000, 32, {"approx_min_span_tree": True, "min_samples": 30}, "euclidean"),
        ("dbscan", 10_000, 384, {"eps": 0.5}, "cosine"),
        ("agglomerative", 5_000, 16, {}, "euclidean"),
        ("agglomerative", 5_000, 16, {"linkage": "single"}, "euclidean"),
        ("spectral", 2_500, 16, {"n_clusters": 8}, "euclidean"),
        ("optics", 3_000, 128, {}, "cosine"),
        ("mean_shift", 1_600, 64, {"max_iter": 2}, "euclidean"),
        ("gaussian_mixture", 60_000, 64, {"n_components": 4, "max_iter": 2}, "euclidean"),
    ],
    ids=lambda asked: f"{asked[0]}-{asked[1]}x{asked[2]}-{asked[4]}",
)
def test_estimates_are_within_a_fifth_of_what_a_process_takes(asked):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(MEASURE), "--one", json.dumps(asked)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    used, estimated = json.loads(done.stdout)
    assert used / 1.2 <= estimated <= 1.2 * used, f"{used:,} used, {estimated:,} estimated"
