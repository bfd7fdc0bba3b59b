"""What only a GPU can show: both back ends agree, by adjusted Rand index, not by label."""

import numpy as np
import pytest

from gpu import clustering
from gpu.backend import array_module, choose_backend
from gpu.clustering import fit
from gpu.errors import DeviceMemoryError, InvalidParametersError, UnsupportedOnDeviceError
from gpu.memory import free_bytes
from gpu.metrics import quality
from gpu.params import BUILT_METHODS, NOISE, HdbscanParams, KMeansParams, parse_params
from gpu.sampling import assign_rest
from gpu.summary import summarize
from gpu.vectors import unit_rows, usable_rows

SENT = {
    "kmeans": {"n_clusters": 8, "n_init": 5},
    "hdbscan": {"min_cluster_size": 20},
    "dbscan": {"eps": 0.05, "min_samples": 5},
    ("dbscan", "euclidean"): {"eps": 1.5, "min_samples": 5},
    "agglomerative": {"n_clusters": 8, "linkage": "single"},
    # More neighbours than a group has: the graph then hangs together, as the method wants it.
    "spectral": {"n_clusters": 8, "affinity": "nearest_neighbors", "n_neighbors": 300},
    "gaussian_mixture": {"n_components": 8},
}
"""Parameters that find the mixture's eight groups, by method or by method and metric; else {}."""


def mixture(n_points=4_000, n_dims=16, n_groups=8, spread=0.3):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n_groups, n_dims)) * 4
    which = rng.integers(n_groups, size=n_points)
    return (centres[which] + spread * rng.normal(size=(n_points, n_dims))).astype(np.float32)


def agreement(a, b):
    from sklearn.metrics import adjusted_rand_score

    return adjusted_rand_score(a.labels, b.labels)


def test_auto_takes_the_gpu():
    assert choose_backend("auto").device == "gpu"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("method", BUILT_METHODS)
def test_both_back_ends_find_the_same_groups(record_property, method, metric):
    points = mixture(n_points=2_000)
    sent = SENT.get((method, metric), SENT.get(method, {}))
    params = parse_params(method, sent).params

    try:
        on_gpu = fit(points, method=method, params=params, metric=metric, device="gpu")
    except (UnsupportedOnDeviceError, InvalidParametersError) as error:
        pytest.skip(f"{method} has nothing to compare: {error}")
    on_cpu = fit(points, method=method, params=params, metric=metric, device="cpu")

    assert (on_gpu.device, on_cpu.device) == ("gpu", "cpu")
    assert on_cpu.n_clusters == 8
    assert isinstance(on_gpu.labels, np.ndarray)
    assert on_gpu.labels.dtype == on_cpu.labels.dtype
    assert set(on_gpu.details) >= {"inertia"} & set(on_cpu.details)
    record_property("ARI", round(agreement(on_gpu, on_cpu), 4))
    assert agreement(on_gpu, on_cpu) >= 0.99


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_kmeans_on_the_gpu_is_as_good_as_on_the_cpu(record_property, init, scale):
    # cuML's own tolerance is absolute: large units would end it at once, small ones never.
    points = mixture(spread=2.0) * np.float32(scale) + np.float32(50 * scale)
    params = KMeansParams(n_clusters=25, init=init, n_init=10)

    on_gpu = fit(points, method="kmeans", params=params, metric="euclidean", device="gpu")
    on_cpu = fit(points, method="kmeans", params=params, metric="euclidean", device="cpu")

    ratio = on_gpu.details["inertia"] / on_cpu.details["inertia"]
    record_property("inertia over the CPU's", round(ratio, 5))
    assert ratio == pytest.approx(1, rel=0.02)
    assert on_gpu.details["converged"]
    means = np.stack([points[on_gpu.labels == n].mean(0, dtype=float) for n in range(25)])
    exact = np.square(points - means[on_gpu.labels]).sum()
    assert on_gpu.details["inertia"] == pytest.approx(exact, rel=1e-3)


def test_kmeans_on_the_gpu_takes_a_tolerance_of_zero_and_a_limit():
    points = mixture(spread=2.0)

    for params in (KMeansParams(8, tol=0.0), KMeansParams(25, max_iter=1)):
        found = fit(points, method="kmeans", params=params, metric="euclidean", device="gpu")
        assert found.details["n_iter"] <= params.max_iter

    assert found.details["n_iter"] == 1
    assert not found.details["converged"]


def test_kmeans_on_the_gpu_finds_no_more_groups_than_distinct_points():
    points = np.repeat(mixture(n_points=5), 100, axis=0)

    found = fit(points, method="kmeans", params=KMeansParams(8), metric="euclidean", device="gpu")

    assert found.n_clusters == 5
    assert found.details["inertia"] == pytest.approx(0, abs=1e-3)
    assert "5 found" in found.notes[0]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("centroid", ["mean", "median", "medoid"])
def test_every_step_takes_vectors_on_the_gpu_and_agrees_with_the_cpu(metric, centroid):
    import cupy

    points = mixture()
    on_device = cupy.asarray(points)
    labels = fit(
        on_device, method="kmeans", params=KMeansParams(8), metric=metric, device="gpu"
    ).labels

    on_gpu = summarize(on_device, labels, metric=metric, centroid=centroid)
    on_cpu = summarize(points, labels, metric=metric, centroid=centroid)
    figures = [quality(rows, labels, metric=metric) for rows in (on_device, points)]
    rest = [assign_rest(rows, on_cpu.centroids, None, metric) for rows in (on_device, points)]

    for name in ("centroids", "sizes", "distances", "radii"):
        assert isinstance(getattr(on_gpu, name), np.ndarray)
        np.testing.assert_allclose(
            getattr(on_gpu, name), getattr(on_cpu, name), rtol=1e-4, atol=1e-5
        )
    assert figures[0].pop("sizes") == figures[1].pop("sizes")
    profiles = [[row["quantiles"] for row in each.pop("silhouette_profile")] for each in figures]
    np.testing.assert_allclose(*profiles, atol=1e-3)
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)
    assert (rest[0] == rest[1]).mean() >= 0.999
    assert np.array_equal(on_device.get(), points)  # Not modified.


def test_scaling_and_checking_rows_agree_with_the_cpu():
    import cupy

    points = mixture()
    points[3], points[5, 0] = 0, np.nan
    usable = usable_rows(cupy.asarray(points), "cosine")

    assert array_module(usable) is cupy
    assert np.array_equal(usable.get(), usable_rows(points, "cosine"))
    kept = points[usable.get()]
    np.testing.assert_allclose(unit_rows(cupy.asarray(kept)).get(), unit_rows(kept), atol=1e-6)


def test_kmeans_on_the_gpu_seeds_on_a_sample_as_well_as_on_the_cpu():
    points = mixture(n_points=60_000, spread=2.0, n_groups=40)
    params = KMeansParams(n_clusters=40, n_init=10)  # Of one start the inertia varies by a tenth.

    on_gpu = fit(points, method="kmeans", params=params, metric="euclidean", device="gpu")
    on_cpu = fit(points, method="kmeans", params=params, metric="euclidean", device="cpu")

    assert on_gpu.details["inertia"] <= 1.03 * on_cpu.details["inertia"]


def test_kmeans_on_the_gpu_finds_a_value_that_no_sample_has():
    points = np.zeros((30_000, 2), dtype=np.float32)
    points[17_123] = 1

    found = fit(points, method="kmeans", params=KMeansParams(2), metric="euclidean", device="gpu")

    assert sorted(np.bincount(found.labels)) == [1, 29_999]


@pytest.mark.parametrize("n_samples", [1, 1_025])
def test_what_cuml_lacks_runs_on_the_cpu_under_auto_and_fails_under_gpu(n_samples):
    points = mixture(n_points=3_000)
    params = HdbscanParams(min_cluster_size=20, min_samples=n_samples)

    result = fit(points, method="hdbscan", params=params, metric="euclidean", device="auto")

    assert result.device == "cpu"
    assert "min_samples" in result.notes[0]
    with pytest.raises(UnsupportedOnDeviceError):
        fit(points, method="hdbscan", params=params, metric="euclidean", device="gpu")


def test_too_little_device_memory_runs_on_the_cpu_under_auto_and_fails_under_gpu(monkeypatch):
    real = free_bytes
    monkeypatch.setattr(
        clustering, "free_bytes", lambda device: 1_000 if device == "gpu" else real(device)
    )
    points, params = mixture(), KMeansParams(8)

    result = fit(points, method="kmeans", params=params, metric="euclidean", device="auto")

    assert result.device == "cpu"
    assert "1,000 are free" in result.notes[0]
    with pytest.raises(DeviceMemoryError):
        fit(points, method="kmeans", params=params, metric="euclidean", device="gpu")


def test_a_seed_gives_the_same_labels_on_the_gpu():
    points, params = mixture(spread=2.0), KMeansParams(n_clusters=20)

    first, second = (
        fit(points, method="kmeans", params=params, metric="euclidean", device="gpu")
        for _ in range(2)
    )

    assert agreement(first, second) >= 0.99


def test_noise_is_noise_on_both():
    rng = np.random.default_rng(4)
    points = np.vstack([mixture(n_points=2_000), rng.uniform(-12, 12, (300, 16))])
    points = points.astype(np.float32)
    params = HdbscanParams(min_cluster_size=20)

    noise = [
        fit(points, method="hdbscan", params=params, metric="euclidean", device=device).labels
        == NOISE
        for device in ("gpu", "cpu")
    ]

    # Through so many strays cuML's graph of neighbours hangs together; see test_hdbscan.py.
    assert (noise[0] == noise[1]).mean() >= 0.98
