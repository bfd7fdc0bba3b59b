"""The GPU's memory: what a fit takes, what happens without it, and that it comes back."""

import ctypes
import gc
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gpu import clustering
from gpu.backend import Backend
from gpu.clustering import fit
from gpu.device_frames import load_on_gpu, loading_bytes
from gpu.errors import DeviceMemoryError
from gpu.hdbscan import hdbscan
from gpu.memory import estimate, free_bytes
from gpu.params import HdbscanParams, KMeansParams
from gpu.summary import summarize

ROOT = Path(__file__).parents[2]
GPU = Backend("gpu", "asked for by the test")
MIB = 1 << 20


def rows(n_points, n_dims, seed=0):
    rng = np.random.default_rng(seed)
    centres = 4 * rng.standard_normal((20, n_dims), dtype=np.float32)
    noise = rng.standard_normal((n_points, n_dims), dtype=np.float32)
    return centres[rng.integers(20, size=n_points)] + noise


@contextmanager
def peak_of():
    """Watch the device's free memory from a thread; cuML releases the interpreter's lock."""
    import cupy

    def free():
        return int(cupy.cuda.runtime.memGetInfo()[0])

    gc.collect()
    before = lowest = free()
    done = threading.Event()

    def watch():
        nonlocal lowest
        while not done.wait(0.0005):
            lowest = min(lowest, free())

    seen = {}
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
        seen["bytes"] = before - min(lowest, free())


@contextmanager
def leaving(n_bytes):
    """Take the device's memory but for so much."""
    import cupy

    hog = cupy.empty(free_bytes("gpu") - n_bytes, dtype=np.uint8)
    try:
        yield
    finally:
        del hog
        gc.collect()


@pytest.mark.parametrize(
    ("method", "params", "shape"),
    [
        ("kmeans", KMeansParams(n_clusters=64, max_iter=5), (1_000_000, 256)),
        ("kmeans", KMeansParams(n_clusters=2_000, max_iter=3), (400_000, 384)),
        ("hdbscan", HdbscanParams(min_cluster_size=50, min_samples=15), (50_000, 768)),
        ("hdbscan", HdbscanParams(min_cluster_size=100, min_samples=100), (60_000, 64)),
    ],
    ids=["kmeans", "kmeans-many", "hdbscan", "hdbscan-neighbours"],
)
def test_estimates_are_within_a_fifth_of_what_is_used(record_property, method, params, shape):
    import cupy

    host = rows(*shape)
    fit(host[:5_000], method=method, params=params, metric="euclidean", device="gpu")  # Kernels.
    with peak_of() as seen:
        points = cupy.asarray(host)
        fit(points, method=method, params=params, metric="euclidean", device="gpu")

    expected = estimate(method, *shape, params, "gpu")
    record_property("used over estimated", round(seen["bytes"] / expected, 3))
    assert seen["bytes"] <= 1.2 * expected, f"{seen['bytes']:,} used, {expected:,} estimated"
    assert expected <= 1.2 * seen["bytes"], f"{seen['bytes']:,} used, {expected:,} estimated"


def test_loading_stays_within_its_estimate(record_property, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    host = rows(300_000, 384)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(host.reshape(-1)), host.shape[1])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"v": flat}), path, row_group_size=16_384)
    load_on_gpu([path], "v")
    with peak_of() as seen:
        loaded = load_on_gpu([path], "v")

    expected = loading_bytes(*host.shape)
    record_property("used over estimated", round(seen["bytes"] / expected, 3))
    assert seen["bytes"] <= 1.1 * expected
    assert np.array_equal(loaded.get(), host)


def test_a_full_device_sends_auto_to_the_cpu_and_fails_gpu(monkeypatch):
    # The check before the fit is told there is room, so that the libraries run out themselves.
    real = free_bytes
    monkeypatch.setattr(clustering, "free_bytes", lambda d: 1 << 50 if d == "gpu" else real(d))
    host, params = rows(200_000, 64), KMeansParams(n_clusters=4, max_iter=2)
    options = {"method": "kmeans", "params": params, "metric": "cosine"}

    with leaving(host.nbytes // 4):  # Less than a block of rows takes, too.
        result = fit(host, device="auto", **options)
        with pytest.raises(DeviceMemoryError) as caught:
            fit(host, device="gpu", **options)

    assert result.device == "cpu"
    assert "are free" in result.notes[0]
    assert caught.value.needed_bytes > host.nbytes
    assert fit(host, device="gpu", **options).device == "gpu"  # The device is none the worse.


def test_vectors_on_a_full_device_are_clustered_on_the_cpu(monkeypatch):
    import cupy

    real = free_bytes
    monkeypatch.setattr(clustering, "free_bytes", lambda d: 1 << 50 if d == "gpu" else real(d))
    host, params = rows(200_000, 64), KMeansParams(n_clusters=4, max_iter=2)
    points = cupy.asarray(host)

    with leaving(MIB):  # Less than a block of rows takes, too.
        result = fit(points, method="kmeans", params=params, metric="cosine", device="auto")

    assert result.device == "cpu"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("asked", ["gpu", "auto"])
def test_k_means_on_more_than_fits_goes_through_the_device_in_blocks(metric, where, asked):
    import cupy

    # Several starts: one in ten misses a group, whichever way the rows take.
    host, params = rows(400_000, 256), KMeansParams(n_clusters=20, max_iter=10, n_init=3)
    points = cupy.asarray(host) if where == "device" else host
    options = {"method": "kmeans", "params": params, "metric": metric}
    whole = fit(host, device="gpu", **options)

    with leaving(700 * MIB):  # At once it takes 1.1 GB.
        found = fit(points, device=asked, **options)

    assert "in blocks" not in "".join(whole.notes)
    assert found.device == "gpu"
    assert "through the GPU in blocks" in found.notes[0]
    assert found.details["inertia"] == pytest.approx(whole.details["inertia"], rel=0.02)
    means = np.stack([exact(host, metric)[found.labels == n].mean(0) for n in range(20)])
    own = np.square(exact(host, metric) - means[found.labels], dtype=np.float64).sum()
    assert found.details["inertia"] == pytest.approx(own, rel=1e-3)


def exact(points, metric):
    from gpu.vectors import unit_rows

    return unit_rows(points) if metric == "cosine" else points


def test_streaming_is_deterministic_stays_within_its_estimate_and_leaves_nothing(record_property):
    import cupy

    from gpu.device_memory import streamed_bytes
    from gpu.streamed_kmeans import streamed_kmeans

    host, params = rows(600_000, 256), KMeansParams(n_clusters=500, max_iter=4)

    def stream():
        pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(pool.malloc):
            return streamed_kmeans(host, params, xp=cupy, progress=wait)

    def wait(_share):
        cupy.cuda.get_current_stream().synchronize()

    first = stream()
    gc.collect()
    before = free_bytes("gpu")
    with peak_of() as seen:
        second = stream()
    gc.collect()

    assert np.array_equal(first.labels, second.labels)
    assert first.inertia == second.inertia
    expected = streamed_bytes(*host.shape, params)
    record_property("used over estimated", round(seen["bytes"] / expected, 3))
    assert seen["bytes"] <= 1.2 * expected, f"{seen['bytes']:,} used, {expected:,} estimated"
    assert expected <= 2 * seen["bytes"], f"{seen['bytes']:,} used, {expected:,} estimated"
    assert before - free_bytes("gpu") < 16 * MIB


def test_streamed_k_means_can_be_stopped_between_two_blocks():
    from gpu.kmeans import _fit_in_blocks

    told = []

    def stop(share):
        told.append(share)
        if len(told) == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        _fit_in_blocks(rows(400_000, 256), KMeansParams(n_clusters=20), stop, None)

    assert len(told) == 5


def test_memory_that_cuml_lacks_inside_is_told_as_such():
    host = rows(100_000, 16)
    params = HdbscanParams(min_cluster_size=500, min_samples=500)

    with leaving(100 * MIB), pytest.raises(DeviceMemoryError):
        hdbscan(host, params, backend=GPU)


def test_fifty_jobs_leave_nothing_behind(record_property):
    import cupy

    def job(seed):
        points = cupy.asarray(rows(20_000, 64, seed))
        for method, params in (
            ("kmeans", KMeansParams(n_clusters=20, max_iter=20)),
            ("hdbscan", HdbscanParams(min_cluster_size=50)),
        ):
            found = fit(points, method=method, params=params, metric="cosine", device="gpu")
        summarize(points, found.labels, metric="cosine")

    for seed in range(3):
        job(seed)
    gc.collect()
    before = free_bytes("gpu")
    for seed in range(50):
        job(seed)
    gc.collect()
    left = before - free_bytes("gpu")

    record_property("MiB left", round(left / MIB, 1))
    assert left < 16 * MIB


def test_importing_and_choosing_the_cpu_create_no_cuda_context():
    modules = sorted(f"gpu.{path.stem}" for path in (ROOT / "gpu").glob("[!_]*.py"))
    if find_spec("distributed") is None:  # An environment for fits alone.
        modules.remove("gpu.distributed")
    script = f"""
import ctypes, importlib
for name in {modules!r}: importlib.import_module(name)
from gpu.backend import choose_backend
choose_backend("cpu")
driver = ctypes.CDLL("libcuda.so.1")
flags, active = ctypes.c_uint(), ctypes.c_int(-1)
assert driver.cuInit(0) == 0
assert driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0
print(active.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "0"
    # The probe itself: in this process, which has used the device, the state is active.
    driver, active = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(-1)
    driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(ctypes.c_uint()), ctypes.byref(active))
    assert active.value == 1
