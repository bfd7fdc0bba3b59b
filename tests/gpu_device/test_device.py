"""What only a GPU can show: both back ends agree, by adjusted Rand index, not by label."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu import clustering
from gpu.backend import array_module, choose_backend, gpu_unusable
from gpu.clustering import fit
from gpu.errors import DeviceMemoryError, UnsupportedOnDeviceError
from gpu.frames import load_vectors
from gpu.memory import free_bytes
from gpu.metrics import quality
from gpu.params import NOISE, HdbscanParams, KMeansParams
from gpu.summary import summarize
from gpu.vectors import unit_rows, usable_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpu_unusable() is not None, reason=f"no usable GPU: {gpu_unusable()}"),
]


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
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("kmeans", KMeansParams(n_clusters=8, n_init=5)),
        ("hdbscan", HdbscanParams(min_cluster_size=20)),
    ],
    ids=["kmeans", "hdbscan"],
)
def test_both_back_ends_find_the_same_groups(method, params, metric):
    points = mixture()

    on_gpu = fit(points, method=method, params=params, metric=metric, device="gpu")
    on_cpu = fit(points, method=method, params=params, metric=metric, device="cpu")

    assert (on_gpu.device, on_cpu.device) == ("gpu", "cpu")
    assert isinstance(on_gpu.labels, np.ndarray)
    assert agreement(on_gpu, on_cpu) >= 0.99


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_kmeans_on_the_gpu_is_as_good_as_on_the_cpu(init):
    points = mixture(spread=2.0)
    params = KMeansParams(n_clusters=25, init=init, n_init=10)

    on_gpu = fit(points, method="kmeans", params=params, metric="euclidean", device="gpu")
    on_cpu = fit(points, method="kmeans", params=params, metric="euclidean", device="cpu")

    assert on_gpu.details["inertia"] <= 1.02 * on_cpu.details["inertia"]


def test_vectors_that_are_on_the_gpu_already_are_taken_by_every_step():
    import cupy

    points = cupy.asarray(mixture())

    result = fit(points, method="kmeans", params=KMeansParams(8), metric="cosine", device="gpu")
    described = summarize(points, result.labels, metric="cosine")
    figures = quality(points, result.labels, metric="cosine")

    assert described.sizes.sum() == len(points)
    assert figures["silhouette"] > 0.5


def test_scaling_and_checking_rows_agree_with_the_cpu():
    import cupy

    points = mixture()
    points[3], points[5, 0] = 0, np.nan
    usable = usable_rows(cupy.asarray(points), "cosine")

    assert array_module(usable) is cupy
    assert np.array_equal(usable.get(), usable_rows(points, "cosine"))
    kept = points[usable.get()]
    assert unit_rows(cupy.asarray(kept)).get() == pytest.approx(unit_rows(kept), abs=1e-6)


def test_parquet_loads_onto_the_gpu_as_on_the_cpu(tmp_path):
    rows = mixture(n_points=50)
    kind = pa.list_(pa.float32(), rows.shape[1])
    column = [None if n == 7 else row for n, row in enumerate(rows.tolist())]
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(pa.table({"v": pa.array(column, type=kind), "w": list(range(50))}), paths[0])
    pq.write_table(pa.table({"v": pa.array(rows.tolist(), type=kind)}), paths[1])

    on_gpu = load_vectors(paths, "v", "gpu")

    assert on_gpu.flags.c_contiguous
    assert np.array_equal(on_gpu.get(), load_vectors(paths, "v", "cpu"), equal_nan=True)


def test_what_cuml_lacks_runs_on_the_cpu_under_auto_and_fails_under_gpu():
    points = mixture(n_points=3_000)
    params = HdbscanParams(min_cluster_size=20, min_samples=1_024)

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

    assert (noise[0] == noise[1]).mean() >= 0.99
