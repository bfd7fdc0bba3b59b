"""What `benchmarks/device.py` measures, part by part. Every function here needs a GPU.

cuML alone is given the same points on the device and ends after as many iterations, so what a row
of ours takes longer is our code around it.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from device_rows import Row, Run, Sizes, mixture, outcome_of, overhead, row, synchronized, timed_row
from machine import timed

from gpu.backend import Backend
from gpu.clustering import fit
from gpu.device_frames import load_on_gpu
from gpu.frames import load_vectors
from gpu.hdbscan import hdbscan
from gpu.kmeans import kmeans
from gpu.memory import free_bytes
from gpu.metrics import quality
from gpu.params import HdbscanParams, KMeansParams
from gpu.reduction import umap
from gpu.sampling import assign_rest
from gpu.steps import Umap
from gpu.summary import summarize

GPU = Backend("gpu", "the benchmark's")
CPU = Backend("cpu", "the benchmark's")

ITERATIONS = 25

APART = 3.0
"""How far apart groups are, over their own width, where HDBSCAN is to find them."""

GROUPLESS = 0.0
"""The same, where k-means is to do all its iterations: groups would end it after two or three."""

STREAMED_FREE_BYTES = 1 << 30
"""What the streamed part leaves of the device."""


def measure_kmeans(sizes: Sizes) -> Iterator[Row]:
    """k-means of a fixed number of iterations: ours from device and host, cuML alone, the CPU."""
    from cuml.cluster import KMeans

    points = mixture(sizes.points, sizes.dims, sizes.clusters, GROUPLESS)
    params = KMeansParams(n_clusters=sizes.clusters, max_iter=ITERATIONS, tol=0.0)
    what = f"k-means, k = {sizes.clusters:,}, {ITERATIONS} iterations"
    kmeans(points[: 40 * sizes.clusters], params, backend=GPU)

    def alone() -> Any:
        model = KMeans(
            n_clusters=sizes.clusters,
            init="k-means++",
            n_init=1,
            max_iter=ITERATIONS,
            tol=1e-30,
            random_state=42,
        ).fit(points)
        model.labels_.get()
        return model

    ours = row(
        what, "shoal", points, partial(kmeans, points, params, backend=GPU), sizes.repeats, 2
    )
    yield ours
    bare = row(what, "cuML alone", points, alone, sizes.repeats)
    yield bare
    yield overhead(ours, bare)
    host = points.get()
    run = partial(kmeans, host, params, backend=GPU)
    yield row(what, "shoal, from the host", points, run, sizes.repeats)
    if sizes.with_cpu:
        yield row(what, "shoal, CPU", points, partial(kmeans, host, params, backend=CPU), 1)


@contextmanager
def little_free(n_bytes: int) -> Iterator[None]:
    """Take the device's memory but for so much."""
    import cupy

    gc.collect()
    hog = cupy.cuda.runtime.malloc(max(1, free_bytes("gpu") - n_bytes))
    try:
        yield
    finally:
        cupy.cuda.runtime.free(hog)


def measure_streamed(sizes: Sizes) -> Iterator[Row]:
    """k-means whose vectors do not fit into what is free of the device, beside all at once."""
    from cuml.cluster import KMeans

    host = mixture(sizes.points, sizes.dims, sizes.clusters, GROUPLESS).get()
    params = KMeansParams(n_clusters=sizes.clusters, max_iter=ITERATIONS, tol=0.0)
    what = f"k-means streamed, k = {sizes.clusters:,}, {ITERATIONS} iterations"
    run = partial(kmeans, host, params, backend=GPU)
    run()
    whole = row(what, "shoal, all at once", host, run, 1)
    yield whole

    def by_cuml() -> Any:
        return KMeans(
            n_clusters=sizes.clusters,
            n_init=1,
            max_iter=ITERATIONS,
            tol=1e-30,
            random_state=42,
            device_buffer_samples=50_000,
        ).fit(host)

    with little_free(STREAMED_FREE_BYTES):
        streamed = row(what, f"shoal, {STREAMED_FREE_BYTES >> 20} MiB free", host, run, 1)
        found = run()
        yield streamed
        yield row(what, "cuML, device_buffer_samples = 50 000", host, by_cuml, 1)
    note = next((note for note in found.notes if "in blocks" in note), "it was not streamed")
    assert streamed.median_s is not None
    read = host.nbytes * (found.details["n_iter"] + 2) / 1e9
    yield Row(
        what=what,
        who="host to device",
        n_points=len(host),
        n_dims=host.shape[1],
        value=round(read / streamed.median_s, 2),
        unit="GB/s",
        target="runs, and says so",
        met="in blocks" in note,
        outcome=note,
    )


def measure_exact(sizes: Sizes) -> Iterator[Row]:
    """HDBSCAN with exact neighbours, beside cuML alone."""
    yield from _hdbscan(sizes, sizes.exact_points, False, 5)


def measure_approximate(sizes: Sizes) -> Iterator[Row]:
    """HDBSCAN with approximate neighbours, beside cuML alone."""
    yield from _hdbscan(sizes, sizes.points, True, 60)


def _hdbscan(sizes: Sizes, n_points: int, approximate: bool, most_s: float) -> Iterator[Row]:
    from cuml.cluster import HDBSCAN

    points = mixture(n_points, sizes.dims, 100, APART)
    params = HdbscanParams(min_cluster_size=50, min_samples=10, approx_min_span_tree=approximate)
    build = "nn_descent" if approximate else "brute_force"
    hdbscan(points[:5_000], params, backend=GPU)

    def alone() -> Any:
        model = HDBSCAN(min_cluster_size=50, min_samples=9, build_algo=build).fit(points)
        model.labels_.get(), model.probabilities_.get()
        return None

    what = f"HDBSCAN, {'approximate' if approximate else 'exact'}"
    run = partial(hdbscan, points, params, backend=GPU)
    ours = row(what, "shoal", points, run, sizes.repeats, most_s)
    yield ours
    bare = row(what, "cuML alone", points, alone, sizes.repeats)
    yield bare
    yield overhead(ours, bare)


def measure_umap(sizes: Sizes) -> Iterator[Row]:
    """UMAP from 384 to 10 dimensions, seeded, beside cuML alone."""
    from cuml.manifold import UMAP

    points = mixture(sizes.points, min(384, sizes.dims), 100, APART)
    step = Umap(n_components=10)
    what = "UMAP to 10 dimensions"

    def ours(rows: Any) -> Any:
        return umap(rows, step, metric="euclidean", backend=GPU, tell=lambda share: None)

    def alone() -> Any:
        model = UMAP(n_components=10, min_dist=0.0, random_state=42)
        return model.fit_transform(points)

    ours(points[:5_000])
    our_row = row(what, "shoal", points, synchronized(partial(ours, points)), 1, 60)
    yield our_row
    bare = row(what, "cuML alone", points, synchronized(alone), 1)
    yield bare
    yield overhead(our_row, bare)


def measure_parity(sizes: Sizes) -> Iterator[Row]:
    """Both back ends on the same points with the same seed."""
    from sklearn.metrics import adjusted_rand_score

    points = mixture(sizes.parity_points, min(128, sizes.dims), 40, APART).get()
    fits: dict[str, tuple[Any, Any]] = {
        "k-means": (kmeans, KMeansParams(n_clusters=40, n_init=10)),
        "HDBSCAN": (hdbscan, HdbscanParams(min_cluster_size=50, approx_min_span_tree=False)),
    }
    for what, (method, params) in fits.items():
        found = {}
        for name, backend in (("GPU", GPU), ("CPU", CPU)):
            result, timing = timed(partial(method, points, params, backend=backend), repeats=1)
            found[name] = result
            yield timed_row(what, f"shoal, {name}", points, timing, outcome_of(result))
        agreement = float(adjusted_rand_score(found["CPU"].labels, found["GPU"].labels))
        yield Row(
            what=what,
            who="GPU beside CPU",
            n_points=points.shape[0],
            n_dims=points.shape[1],
            value=round(agreement, 4),
            unit="ARI",
            target="at least 0.99" if what == "HDBSCAN" else "inertia within 2 %",
            met=agreement >= 0.99
            if what == "HDBSCAN"
            else found["GPU"].details["inertia"] <= 1.02 * found["CPU"].details["inertia"],
        )


def measure_steps(sizes: Sizes) -> Iterator[Row]:
    """What follows a fit: the groups' description, the figures, the rest of a sample."""
    device = mixture(sizes.points, sizes.dims, sizes.clusters)
    params = KMeansParams(n_clusters=sizes.clusters, max_iter=5)
    labels = fit(device, method="kmeans", params=params, metric="cosine", device="gpu").labels
    centroids = summarize(device, labels, metric="cosine").centroids
    places = [("device", device)] + ([("host", device.get())] if sizes.with_cpu else [])
    for who, points in places:
        runs: dict[str, Run] = {
            "summarize": partial(summarize, points, labels, metric="cosine"),
            "quality": partial(quality, points, labels, metric="cosine"),
            "assign_rest": partial(assign_rest, points, centroids, None, "cosine"),
        }
        for what, run in runs.items():
            yield row(what, f"vectors on the {who}", points, run, sizes.repeats)


def measure_parquet(sizes: Sizes) -> Iterator[Row]:
    """Files in the page cache, as exports write them and as Arrow does, to the device."""
    import cupy
    import pyarrow as pa
    import pyarrow.parquet as pq

    host = mixture(sizes.points, sizes.dims, 100).get()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(host.reshape(-1)), host.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        ours, others = Path(folder, "ours.parquet"), Path(folder, "others.parquet")
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(pa.table({"v": lists}), ours, row_group_size=16_384, **plain)
        quarter = lists[: len(lists) // 4]
        pq.write_table(
            pa.table({"v": quarter}), others, row_group_size=16_384, compression="snappy"
        )
        runs: list[tuple[str, int, Run, bool]] = [
            ("plain pages to the device", 1, partial(load_on_gpu, [ours], "v"), True),
            ("snappy pages to the device, by cuDF", 4, partial(load_on_gpu, [others], "v"), False),
            ("to the host, then copied", 1, lambda: cupy.asarray(load_vectors([ours], "v")), False),
            ("to the host", 1, partial(load_vectors, [ours], "v"), False),
        ]
        for who, parts, run, is_target in runs:
            waited = synchronized(run)
            waited()
            timing = timed(waited, repeats=sizes.repeats)[1]
            rate = host.nbytes / parts / 1e9 / timing.median_s
            yield Row(
                what="Parquet",
                who=who,
                n_points=len(host) // parts,
                n_dims=host.shape[1],
                median_s=round(timing.median_s, 4),
                best_s=round(timing.best_s, 4),
                repeats=timing.repeats,
                value=round(rate, 2),
                unit="GB/s",
                target="at least 5 GB/s" if is_target else "",
                met=rate >= 5 if is_target else None,
            )


PARTS: dict[str, Callable[[Sizes], Iterator[Row]]] = {
    "parquet": measure_parquet,
    "kmeans": measure_kmeans,
    "streamed": measure_streamed,
    "exact": measure_exact,
    "parity": measure_parity,
    "steps": measure_steps,
    "approximate": measure_approximate,
    "umap": measure_umap,
}
"""The short ones first, so that a run that is cut off has measured the most."""
