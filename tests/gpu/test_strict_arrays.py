"""The functions that take device arrays, run on a strict stand-in for CuPy.

The stand-in refuses what CuPy refuses: turning itself into a NumPy array, an arithmetic partner
or a right-hand side of a slice that is a NumPy array, and functions it lacks. It computes with
NumPy, so it shows that host and device arrays are not mixed, and nothing about CUDA: real
hardware is asked by tests/gpu_device.
"""

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

from gpu import clustering, groups, layout, sampling, vectors
from gpu.backend import Backend
from gpu.clustering import fit
from gpu.errors import DeviceMemoryError, InvalidVectorsError
from gpu.kmeans import _mean_variance, cuml_tolerance
from gpu.metrics import quality
from gpu.params import NOISE, KMeansParams
from gpu.sampling import assign_rest
from gpu.summary import summarize
from gpu.vectors import array_module, beside, centred_copy, on_host, unit_rows, usable_rows

kmeans = import_module("gpu.kmeans")

FUNCTIONS = (
    *(
        "abs",
        "arange",
        "argpartition",
        "array",
        "asarray",
        "ascontiguousarray",
        "concatenate",
        "empty",
        "empty_like",
        "flatnonzero",
        "full",
    ),
    *("isfinite", "maximum", "median", "sqrt", "zeros"),
)
"""Functions of CuPy 14.2 that gpu calls; all are in its `__init__`."""


def opened(value, *, where):
    """Give the NumPy array behind a strict one; refuses NumPy arrays that CuPy would refuse."""
    if isinstance(value, StrictArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> in {where}")
    if isinstance(value, list | tuple):
        return type(value)(opened(item, where=where) for item in value)
    return value


def closed(value):
    # CuPy has no scalars: reductions give arrays without dimensions.
    return StrictArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def index(key):
    """CuPy takes NumPy arrays as indices and copies them over."""
    if isinstance(key, tuple):
        return tuple(index(part) for part in key)
    return key._host if isinstance(key, StrictArray) else key


class StrictArray:
    __module__ = "cupy"
    __array_priority__ = 100

    def __init__(self, host):
        self._host = host

    def __array__(self, *_args, **_kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    __array_ufunc__ = None  # NumPy's operators then leave mixed operands to ours, which refuse.

    def get(self):
        return self._host.copy()

    def __len__(self):
        return len(self._host)

    def __getitem__(self, key):
        return StrictArray(np.asarray(self._host[index(key)]))

    def __setitem__(self, key, value):
        parts = key if isinstance(key, tuple) else (key,)
        plain = all(isinstance(part, slice | int) or part is Ellipsis for part in parts)
        if isinstance(value, np.ndarray) and plain:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._host[index(key)] = value._host if isinstance(value, StrictArray) else value

    def __getattr__(self, name):
        if name.startswith("__"):  # NumPy would find the buffer by these.
            raise AttributeError(name)
        attribute = getattr(self._host, name)
        if name in ("shape", "ndim", "dtype", "size", "flags", "nbytes"):
            return attribute
        if not callable(attribute):
            return closed(attribute)

        def call(*args, **kwargs):
            args = [opened(arg, where=name) for arg in args]
            kwargs = {key: opened(value, where=name) for key, value in kwargs.items()}
            return closed(attribute(*args, **kwargs))

        return call

    def __bool__(self):
        return bool(self._host)

    def __int__(self):
        return int(self._host)

    def __float__(self):
        return float(self._host)

    def __iter__(self):
        raise AssertionError("a device array is walked element by element")


def operator(name):
    def apply(self, other=None):
        operands = () if other is None else (opened(other, where=name),)
        result = getattr(self._host, name)(*operands)
        if name.startswith("__i") and name != "__invert__":
            return self
        return closed(result)

    return apply


OPERATORS = (
    *(
        "add",
        "radd",
        "iadd",
        "sub",
        "rsub",
        "isub",
        "pow",
        "mul",
        "rmul",
        "imul",
        "truediv",
        "itruediv",
    ),
    *("matmul", "and", "iand", "or", "invert", "neg", "eq", "ne", "lt", "le", "gt", "ge"),
)
for _name in OPERATORS:
    setattr(StrictArray, f"__{_name}__", operator(f"__{_name}__"))


class StrictModule(types.ModuleType):
    float32, float64, int32, nan = np.float32, np.float64, np.int32, np.nan
    ndarray = StrictArray

    def __getattr__(self, name):
        if name not in FUNCTIONS:
            raise AttributeError(f"the stand-in for cupy has no {name}")
        if name in ("array", "asarray"):
            return self._array

        def call(*args, **kwargs):
            args = [opened(arg, where=name) for arg in args]
            kwargs = {key: opened(value, where=name) for key, value in kwargs.items()}
            return closed(getattr(np, name)(*args, **kwargs))

        return call

    @staticmethod
    def _array(value, dtype=None, order=None):
        host = value._host if isinstance(value, StrictArray) else value
        return StrictArray(np.array(host, dtype=dtype, order=order or "K"))


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
