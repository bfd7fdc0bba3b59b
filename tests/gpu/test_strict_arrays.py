"""The functions that take device arrays, run on a strict stand-in for CuPy (`strict_arrays`)."""

import sys
import types
import warnings
from contextlib import contextmanager
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import sklearn.cluster
import sklearn.exceptions
from sklearn.metrics import adjusted_rand_score as agreement
from strict_arrays import StrictArray, StrictModule

from gpu import clustering, groups, layout, sampling, vectors
from gpu.assigning import assign_similar, distances_to
from gpu.backend import Backend
from gpu.clustering import fit
from gpu.elbow import elbow
from gpu.errors import DeviceMemoryError, InvalidVectorsError, UnsupportedOnDeviceError
from gpu.feature_weights import learn_weights
from gpu.features import concatenate
from gpu.hierarchy import subdivide
from gpu.kmeans import _mean_variance, cuml_tolerance
from gpu.metrics import quality
from gpu.params import NOISE, KMeansParams
from gpu.preprocess import apply_steps
from gpu.sampling import assign_rest
from gpu.steps import parse_steps
from gpu.summary import summarize
from gpu.vectors import array_module, beside, centred_copy, on_host, unit_rows, usable_rows

kmeans = import_module("gpu.kmeans")


@pytest.fixture
def cupy(monkeypatch):
    module = StrictModule("cupy")
    monkeypatch.setitem(sys.modules, "cupy", module)
    # Several blocks of rows, so that the walk over blocks is walked.
    for user in (vectors, groups, sampling):
        monkeypatch.setattr(user, "DEVICE_BLOCK_BYTES", 4096)
    return module


def mixture(n_points=600, n_dims=12, n_groups=5):
    rng = np.random.default_rng(0)
    which = rng.integers(n_groups, size=n_points)
    points = (rng.normal(size=(n_groups, n_dims)) * 4)[which] + rng.normal(size=(n_points, n_dims))
    labels = which.astype(np.int32)
    labels[rng.random(n_points) < 0.1] = NOISE
    return points.astype(np.float32), labels


def test_the_stand_in_refuses_what_cupy_refuses(cupy):
    points, _ = mixture()
    strict = cupy.asarray(points)

    assert array_module(strict) is cupy
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(strict)
    with pytest.raises(TypeError):
        strict - points
    with pytest.raises(TypeError):
        points - strict
    with pytest.raises(ValueError, match="cannot be used for fill"):
        strict[2:4] = points[2:4]
    with pytest.raises(TypeError, match="Unsupported"):
        cupy.maximum(strict, points)
    with pytest.raises(AttributeError):
        cupy.lexsort()
    assert np.array_equal(strict[np.array([3, 1])].get(), points[[3, 1]])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("centroid", ["mean", "median", "medoid"])
def test_a_summary_of_device_arrays_is_that_of_host_arrays(cupy, metric, centroid):
    points, labels = mixture()

    host = summarize(points, labels, metric=metric, centroid=centroid)
    device = summarize(cupy.asarray(points), labels, metric=metric, centroid=centroid)

    for name in ("centroids", "sizes", "distances", "radii"):
        assert isinstance(getattr(device, name), np.ndarray), name
        np.testing.assert_allclose(getattr(device, name), getattr(host, name), rtol=2e-5, atol=2e-6)


def test_members_that_cancel_out_are_described_on_the_device(cupy):
    points = np.array([[1, 0], [-1, 0], [0, 1], [0, 1]], dtype=np.float32)

    described = summarize(cupy.asarray(points), np.array([0, 0, 1, 1]), metric="cosine")

    assert described.centroids.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("centroid", ["mean", "median", "medoid"])
def test_groups_by_manhattan_distance_are_described_on_the_device(cupy, centroid):
    points, labels = mixture()
    options = {"metric": "manhattan", "centroid": centroid}

    host = summarize(points, labels, **options)
    device = summarize(cupy.asarray(points), labels, **options)
    rest = [assign_rest(there, host.centroids, host.radii, "manhattan") for there in both(points)]

    np.testing.assert_allclose(device.centroids, host.centroids, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(device.distances, host.distances, rtol=2e-5)
    assert (rest[0] == rest[1]).mean() >= 0.99


def test_a_large_group_has_the_same_medoid_on_the_device(cupy):
    points, _ = mixture(n_points=1_500)
    labels = np.zeros(len(points), dtype=np.int32)

    host, device = (
        summarize(there, labels, metric="euclidean", centroid="medoid") for there in both(points)
    )

    assert np.array_equal(host.centroids, device.centroids)


def both(points):
    """Give the points on the host and on the device."""
    return points, sys.modules["cupy"].asarray(points)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    "step",
    [
        {"method": "normalize"},
        {"method": "whitening"},
        {"method": "pca", "n_components": 5},
        {"method": "pca", "n_components": 0.9, "whiten": True},
    ],
    ids=str,
)
def test_a_step_before_the_fit_stays_on_the_device(cupy, metric, step):
    points, _ = mixture()
    if metric == "euclidean":
        points[[3, 77]] = 0  # The origin is a point like any other.
    steps, cpu = parse_steps([step]), Backend("cpu", "a test")

    host, device = (apply_steps(there, steps, metric=metric, backend=cpu) for there in both(points))

    assert isinstance(device.vectors, StrictArray)
    assert (device.metric, device.notes) == (host.metric, host.notes)
    np.testing.assert_allclose(device.vectors.get(), host.vectors, atol=1e-4)


def test_features_on_the_device_are_joined_and_weighed(cupy):
    points, _ = mixture()
    halves = [there[:, :6] for there in both(points)], [there[:, 6:] for there in both(points)]

    joined = [concatenate(blocks, [1, 0.5], normalize=True) for blocks in zip(*halves, strict=True)]
    learned = [
        learn_weights(blocks, n_clusters=5, sample_size=200) for blocks in zip(*halves, strict=True)
    ]

    np.testing.assert_allclose(joined[1].get(), joined[0], rtol=1e-6)
    assert learned[1].weights == learned[0].weights


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_new_rows_on_the_device_go_to_the_groups_that_they_are_like(cupy, metric):
    points, labels = mixture()
    points[5] = 0 if metric == "euclidean" else points[5]
    centroids = summarize(points, labels, metric=metric).centroids

    host, device = (assign_similar(there, centroids, 0.9, metric) for there in both(points))
    apart = [distances_to(there, centroids, host, metric) for there in both(points)]

    assert np.array_equal(host, device)
    assert NOISE in host
    np.testing.assert_allclose(apart[1], apart[0], rtol=1e-5, atol=1e-6)


def test_groups_on_the_device_are_cut_again(cupy):
    points, labels = mixture()

    def fit_rows(rows):
        return fit(
            rows, method="kmeans", params=KMeansParams(2), metric="cosine", device="cpu"
        ).labels

    host, device = (subdivide(there, labels, fit=fit_rows, max_depth=2) for there in both(points))

    assert device.ids == host.ids
    assert np.array_equal(device.labels, host.labels)
    assert elbow(both(points)[1], 4, metric="cosine") == elbow(points, 4, metric="cosine")


def test_no_groups_at_all_are_described_on_the_device(cupy):
    points, labels = mixture()

    described = summarize(cupy.asarray(points), np.full_like(labels, NOISE), metric="cosine")

    assert described.sizes.size == 0
    assert np.isnan(described.distances).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_figures_of_device_arrays_are_those_of_host_arrays(cupy, metric):
    points, labels = mixture()

    host = quality(points, labels, metric=metric, sample_size=200)
    device = quality(cupy.asarray(points), labels, metric=metric, sample_size=200)

    assert device.pop("sizes") == host.pop("sizes")
    profiles = zip(device.pop("silhouette_profile"), host.pop("silhouette_profile"), strict=True)
    for found, expected in profiles:
        quantiles = expected.pop("quantiles")
        assert found.pop("quantiles") == pytest.approx(quantiles, abs=2e-4)
        assert found == expected
    assert device == pytest.approx(host, rel=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("with_radii", [True, False])
def test_rows_on_the_device_go_to_the_groups_that_host_rows_go_to(cupy, metric, with_radii):
    points, labels = mixture()
    of_sample = summarize(points[:300], labels[:300], metric=metric)
    radii = of_sample.radii if with_radii else None

    host = assign_rest(points[300:], of_sample.centroids, radii, metric)
    device = assign_rest(cupy.asarray(points[300:]), of_sample.centroids, radii, metric)

    assert isinstance(device, np.ndarray)
    assert (device == host).mean() >= 0.99
    assert (NOISE in device) == with_radii


def test_rows_on_the_device_are_checked_and_scaled_as_on_the_host(cupy):
    points, _ = mixture()
    points[3], points[5, 0] = 0, np.nan
    kept = np.delete(points, [3, 5], axis=0)

    assert np.array_equal(
        on_host(usable_rows(cupy.asarray(points), "cosine")), usable_rows(points, "cosine")
    )
    np.testing.assert_allclose(unit_rows(cupy.asarray(kept)).get(), unit_rows(kept), rtol=1e-6)
    with pytest.raises(InvalidVectorsError, match="first: row 3"):
        unit_rows(cupy.asarray(points))


def test_a_fit_on_the_cpu_takes_device_arrays(cupy):
    points, _ = mixture()
    params = KMeansParams(n_clusters=5)

    host = fit(points, method="kmeans", params=params, metric="cosine", device="cpu")
    device = fit(
        cupy.asarray(points), method="kmeans", params=params, metric="cosine", device="cpu"
    )

    assert np.array_equal(host.labels, device.labels)


def test_what_cuml_is_given_is_centred_and_leaves_the_input_alone(cupy):
    points, _ = mixture()
    given = cupy.asarray(points + np.float32(100))
    before = given.get()

    for source in (given, before):
        copy = centred_copy(source, cupy)
        assert isinstance(copy, StrictArray)
        assert np.abs(copy.get().mean(axis=0)).max() < 1e-4
    assert np.array_equal(given.get(), before)
    assert _mean_variance(centred_copy(given, cupy)) == pytest.approx(
        before.var(axis=0).mean(), rel=1e-4
    )
    assert beside(before, given).get().shape == before.shape


@pytest.mark.parametrize("tol", [0, 1e-12, 1e-4, 0.5])
@pytest.mark.parametrize("variance", [1e-6, 1.0, 1e8])
def test_the_stopping_rule_given_to_cuml_is_scikit_learns(tol, variance):
    tolerance, scale = cuml_tolerance(tol, variance)

    assert 0 < tolerance <= 1e-7  # cuML refuses 0, and also ends by this share of the inertia.
    assert tolerance / scale**2 == pytest.approx(tol * variance, rel=1e-6, abs=1e-20)


def test_no_tolerance_shrinks_the_points_to_nothing():
    _, scale = cuml_tolerance(1e300, 1.0)

    assert np.float32(scale) ** 2 > 1e-20


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_what_float32_squares_cannot_hold_is_left_to_the_cpu(cupy, scale):
    points = mixture()[0] * np.float32(scale)

    for there in both(points):
        with pytest.raises(UnsupportedOnDeviceError, match="far from their mean"):
            centred_copy(there, cupy)


class OneStream:
    """The parts of cupy.cuda that k-means in blocks calls; counts its waits for the device."""

    def __init__(self):
        self.n_waits, self.allocator = 0, None

    def MemoryPool(self):
        return types.SimpleNamespace(malloc="the pool's")

    def get_current_stream(self):
        return self

    def synchronize(self):
        self.n_waits += 1

    @contextmanager
    def using_allocator(self, allocator):
        self.allocator = allocator
        yield
        self.allocator = None


@pytest.fixture
def device(cupy, monkeypatch):
    """Make the stand-in a device that has 1 GB free for blocks, and too little for all rows."""
    cupy.cuda = OneStream()
    pinned = types.SimpleNamespace(free_all_blocks=lambda: None)
    cupy.get_default_pinned_memory_pool = lambda: pinned
    monkeypatch.setattr(clustering, "choose_backend", lambda device: Backend("gpu", "a GPU"))
    for user in (clustering, kmeans):
        monkeypatch.setattr(user, "free_bytes", lambda device: 1 << 30)
        monkeypatch.setattr(user, "estimate", partial(crowded, user.estimate))
    return cupy


def crowded(estimate, *asked, free=None, **named):
    return estimate(*asked, free=1, **named) if free else 1 << 40


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("wanted", ["gpu", "auto"])
def test_k_means_that_the_device_cannot_hold_goes_in_blocks_and_says_so(
    device, metric, wanted, on_device
):
    points, _ = mixture()
    params = KMeansParams(n_clusters=5)
    whole = fit(points, method="kmeans", params=params, metric=metric, device="cpu")
    told = []

    found = fit(
        device.asarray(points) if on_device else points,
        method="kmeans",
        params=params,
        metric=metric,
        device=wanted,
        progress=told.append,
    )

    assert found.device == "gpu"
    assert "through the GPU in blocks: all at once needs about 1,099,511,627,776" in found.notes[0]
    assert agreement(found.labels, whole.labels) == 1
    assert found.details["inertia"] == pytest.approx(whole.details["inertia"], rel=1e-5)
    assert device.cuda.n_waits >= len(told) - 1 > 3  # What is told is done; the end waits itself.
    assert device.cuda.allocator is None


class HostKMeans:
    """scikit-learn's k-means by the names, and with the refusals, of cuML's."""

    def __init__(
        self, *, n_clusters, init, n_init, max_iter, tol, random_state, output_type
    ) -> None:
        assert output_type == "cupy"
        assert tol > 0
        init = init if isinstance(init, str) else init.get()
        self._model = sklearn.cluster.KMeans(
            n_clusters, init=init, n_init=n_init, max_iter=max_iter, random_state=random_state
        )

    def fit(self, points):
        self._model.fit(points.get())
        FITTED.append(len(points))
        self.labels_ = StrictArray(self._model.labels_.astype(np.int64))
        self.cluster_centers_ = StrictArray(self._model.cluster_centers_)
        self.n_iter_ = self._model.n_iter_
        return self


FITTED: list[int] = []


@pytest.mark.parametrize(
    ("n_points", "n_distinct", "fitted"),
    [
        (600, 600, [600] * 2),
        (5_000, 5_000, [4_096, 5_000] * 2),
        (5_000, 3, [5_000] * 2),  # The sample has too few to seed by.
    ],
)
def test_k_means_at_once_seeds_on_a_sample_as_on_the_cpu(
    cupy, monkeypatch, n_points, n_distinct, fitted
):
    monkeypatch.setitem(sys.modules, "cuml", types.ModuleType("cuml"))
    cluster = types.SimpleNamespace(KMeans=HostKMeans)
    monkeypatch.setitem(sys.modules, "cuml.cluster", cluster)
    monkeypatch.setattr(kmeans, "free_bytes", lambda device: 1 << 40)
    FITTED.clear()
    points = mixture(n_points)[0][np.arange(n_points) % n_distinct] + np.float32(50)
    params = KMeansParams(n_clusters=5, n_init=2)
    on_cpu = kmeans.kmeans(points, params, backend=Backend("cpu", ""))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        found = kmeans.kmeans(cupy.asarray(points), params, backend=Backend("gpu", ""))

    assert fitted == FITTED
    assert found.n_clusters == on_cpu.n_clusters
    assert found.details["inertia"] == pytest.approx(on_cpu.details["inertia"], rel=1e-3, abs=0.1)
    assert agreement(found.labels, on_cpu.labels) > 0.99


def test_k_means_that_runs_out_of_memory_all_at_once_goes_in_blocks(device, monkeypatch):
    points, _ = mixture()
    monkeypatch.setattr(kmeans, "estimate", lambda *asked: 1 << 20)

    def run_out(vectors, params, needed):
        raise DeviceMemoryError(needed_bytes=needed, free_bytes=4_321)

    monkeypatch.setattr(kmeans, "_fit_at_once", run_out)

    found = fit(points, method="kmeans", params=KMeansParams(5), metric="euclidean", device="auto")

    assert found.device == "gpu"
    assert "4,321 are free" in found.notes[0]


def test_points_that_coincide_have_no_scale():
    assert cuml_tolerance(1e-4, 0.0) == (1e-7, 1.0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_map_is_laid_out_from_either_side(cupy, monkeypatch, metric):
    # With so few landmarks UMAP is left out, which needs a device; the rest is placed by blocks.
    monkeypatch.setattr(layout, "BLOCK_BYTES", 4096)
    points, _ = mixture()
    options = {"metric": metric, "n_landmarks": 12}
    expected = layout.layout(points, backend=Backend("cpu", "a test"), **options)

    for there in (points, cupy.asarray(points)):
        places = layout.layout(there, backend=Backend("gpu", "a test"), **options)
        np.testing.assert_allclose(places, expected, atol=1e-4)
