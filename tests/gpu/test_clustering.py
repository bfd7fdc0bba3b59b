"""The one door: what it refuses, how a metric is mapped, and when the CPU steps in."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu import clustering
from gpu.backend import Backend
from gpu.clustering import Clustering, fit, renumber_by_size, require_memory, with_fallback
from gpu.errors import (
    DeviceFailedError,
    DeviceMemoryError,
    HostMemoryError,
    InvalidParametersError,
    InvalidVectorsError,
    TooFewPointsError,
    UnsupportedOnDeviceError,
)
from gpu.memory import estimate
from gpu.params import BUILT_METHODS, NOISE, HdbscanParams, KMeansParams, parse_params
from gpu.vectors import unit_rows

PARAMS = {"kmeans": KMeansParams(n_clusters=3), "hdbscan": HdbscanParams(min_cluster_size=10)}


def directions(n_points=240, seed=0):
    rng = np.random.default_rng(seed)
    which = np.arange(n_points) % 3
    points = np.eye(3, 5)[which] + 0.05 * rng.normal(size=(n_points, 5))
    lengths = rng.uniform(0.1, 50, size=(n_points, 1))
    return (points * lengths).astype(np.float32), which


def groups_of(labels):
    return {frozenset(np.flatnonzero(labels == g)) for g in np.unique(labels)}


@given(st.lists(st.integers(-1, 6), max_size=40))
@settings(max_examples=100, deadline=None)
def test_renumbering_keeps_the_groups_and_orders_them_by_size(labels):
    before = np.array(labels, dtype=np.int64)

    after, order = renumber_by_size(before)

    assert groups_of(after) == groups_of(before)
    assert np.array_equal(after == NOISE, before == NOISE)
    sizes = np.bincount(after[after != NOISE], minlength=len(order))
    firsts = [int(np.flatnonzero(after == g)[0]) for g in range(len(order))]
    assert list(zip(-sizes, firsts, strict=True)) == sorted(zip(-sizes, firsts, strict=True))
    assert all((before[after == new] == old).all() for new, old in enumerate(order))


@pytest.mark.parametrize("method", PARAMS)
@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_an_angular_metric_groups_by_direction_whatever_the_lengths(method, metric):
    points, which = directions()

    result = fit(points, method=method, params=PARAMS[method], metric=metric)

    grouped = result.labels != NOISE
    assert grouped.mean() > 0.8
    pairs = set(zip(result.labels[grouped].tolist(), which[grouped].tolist(), strict=True))
    assert len(pairs) == result.n_clusters == 3
    assert any("length 1" in note for note in result.notes) == (metric == "dot")


def test_euclidean_takes_the_vectors_as_they_are():
    points = np.array([[1, 0], [1.1, 0], [9, 0], [9.1, 0]], dtype=np.float32)

    result = fit(points, method="kmeans", params=KMeansParams(n_clusters=2), metric="euclidean")

    assert result.labels.tolist() == [0, 0, 1, 1]


def test_the_run_says_where_it_ran_and_why():
    points, _ = directions()

    result = fit(points, method="kmeans", params=PARAMS["kmeans"], metric="cosine", device="cpu")

    assert result.device == "cpu"
    assert "asked for" in result.device_reason


def test_a_cosine_epsilon_is_a_cosine_distance():
    rng = np.random.default_rng(3)
    angles = np.concatenate([rng.normal(a, 0.004, size=60) for a in (0.0, 0.1, 1.5)])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def groups(epsilon):
        params = HdbscanParams(
            min_cluster_size=10,
            cluster_selection_epsilon=epsilon,
            cluster_selection_method="leaf",
        )
        return fit(points, method="hdbscan", params=params, metric="cosine")

    between = 1 - math.cos(0.1)  # About 0.005: as a Euclidean distance it would merge nothing.
    merged = groups(2 * between)

    assert merged.n_clusters == 2
    assert merged.effective_params["cluster_selection_epsilon"] == 2 * between
    assert groups(between / 20).n_clusters > 2


def test_manhattan_is_refused_with_what_is_allowed():
    points, _ = directions()

    with pytest.raises(InvalidParametersError) as caught:
        fit(points, method="kmeans", params=PARAMS["kmeans"], metric="manhattan")

    [fault] = caught.value.violations
    assert fault.path == "metric"
    assert "cosine, euclidean or dot" in fault.allowed


def test_an_unknown_method_and_metric_are_refused_together():
    points, _ = directions()

    with pytest.raises(InvalidParametersError) as caught:
        fit(points, method="k-medoids", params=PARAMS["kmeans"], metric="hamming")

    assert [fault.path for fault in caught.value.violations] == ["clustering_method", "metric"]


def test_parameters_of_another_method_are_a_programming_error():
    points, _ = directions()

    with pytest.raises(TypeError, match="HdbscanParams"):
        fit(points, method="hdbscan", params=PARAMS["kmeans"], metric="cosine")


@pytest.mark.parametrize("method", PARAMS)
def test_a_zero_row_has_no_direction(method):
    points, _ = directions()
    points[11] = 0

    with pytest.raises(InvalidVectorsError, match="row 11"):
        fit(points, method=method, params=PARAMS[method], metric="cosine")


def test_too_few_points_are_refused():
    points, _ = directions(n_points=2)

    with pytest.raises(TooFewPointsError):
        fit(points, method="kmeans", params=PARAMS["kmeans"], metric="euclidean")


def test_a_fit_that_exceeds_memory_is_refused_before_it_starts(monkeypatch):
    monkeypatch.setattr(clustering, "free_bytes", lambda device: 100 << 20)
    cpu = Backend("cpu", "a test")

    require_memory("kmeans", (10_000, 384), PARAMS["kmeans"], cpu)
    with pytest.raises(HostMemoryError) as caught:
        require_memory("kmeans", (10_000_000, 384), PARAMS["kmeans"], cpu)

    require_memory("kmeans", (caught.value.fits_points, 384), PARAMS["kmeans"], cpu)
    assert caught.value.free_bytes == 100 << 20


@pytest.mark.parametrize("method", BUILT_METHODS)
def test_every_method_says_how_many_points_would_fit(method, monkeypatch):
    monkeypatch.setattr(clustering, "free_bytes", lambda device: 300 << 20)
    params = parse_params(method, {"eps": 0.5} if method == "dbscan" else {}).params
    cpu = Backend("cpu", "a test")

    with pytest.raises(HostMemoryError, match="points would fit, set sample_size") as caught:
        require_memory(method, (50_000_000, 384), params, cpu, has_vectors=False)

    fits = caught.value.fits_points
    assert fits > 1_000
    require_memory(method, (fits, 384), params, cpu, has_vectors=False)
    with pytest.raises(HostMemoryError):
        require_memory(method, (fits + 1, 384), params, cpu, has_vectors=False)


def test_unit_rows_are_taken_where_a_copy_of_them_would_not_fit(monkeypatch):
    points = np.random.default_rng(0).normal(size=(20_000, 384)).astype(np.float32)
    params = KMeansParams(n_clusters=2, n_init=1, max_iter=1)
    enough = estimate("kmeans", 20_000, 384, params, metric="euclidean")
    monkeypatch.setattr(clustering, "free_bytes", lambda device: enough)

    with pytest.raises(HostMemoryError):
        fit(points, method="kmeans", params=params, metric="cosine", device="cpu")
    result = fit(unit_rows(points), method="kmeans", params=params, metric="cosine", device="cpu")

    assert result.n_clusters == 2


# The GPU is a stand-in from here on: what is tested is what happens around it.
GPU = Backend("gpu", "a GPU is usable")
FAULTS = [
    UnsupportedOnDeviceError(parameter="min_samples", value=2_000, why="cuML takes 1 to 1,023"),
    DeviceFailedError(why="RuntimeError: failed to converge"),
    DeviceMemoryError(needed_bytes=2_000, free_bytes=1_000),
]


def refusing(fault):
    def attempt(backend):
        if backend.device == "gpu":
            raise fault
        return Clustering(np.zeros(1, np.int32), None, 1, {}, "cpu", ["a note of the method"])

    return attempt


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
def test_auto_runs_on_the_cpu_what_the_gpu_cannot_and_says_why(fault):
    result = with_fallback(refusing(fault), GPU, "auto")

    assert result.device == "cpu"
    assert str(fault) in result.device_reason
    assert str(fault) in result.notes[0]
    assert result.notes[1] == "a note of the method"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
def test_a_demanded_gpu_does_not_fall_back(fault):
    with pytest.raises(type(fault)) as caught:
        with_fallback(refusing(fault), GPU, "gpu")

    assert caught.value is fault


def test_other_errors_on_the_gpu_do_not_fall_back():
    with pytest.raises(TooFewPointsError):
        with_fallback(refusing(TooFewPointsError(n_points=1, needed=2)), GPU, "auto")
