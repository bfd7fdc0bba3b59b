"""HDBSCAN on the CPU against scikit-learn's, by exactness of the tree and agreement of groups."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from gpu.backend import Backend
from gpu.errors import InvalidVectorsError, TooFewPointsError, UnsupportedOnDeviceError
from gpu.hdbscan import _search_on_gpu, hdbscan
from gpu.params import NOISE, HdbscanParams

CPU = Backend("cpu", "asked for by the test")
GPU = Backend("gpu", "asked for by the test")
BLOCKS_ONLY = 0  # A budget that no matrix fits in.
DATA = Path(os.environ.get("SHOAL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def mixture(n_points=600, n_dims=12, n_groups=6, seed=0):
    """Groups of different density, and a tenth of the points scattered between them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-10, 10, (n_groups, n_dims))
    group = rng.integers(n_groups, size=n_points)
    spread = np.linspace(0.3, 1.5, n_groups)[group, None]
    points = centres[group] + spread * rng.normal(size=(n_points, n_dims))
    stray = rng.random(n_points) < 0.1
    points[stray] = rng.uniform(-12, 12, (stray.sum(), n_dims))
    return points.astype(np.float32)


def reference(vectors, *, algorithm="auto", **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HDBSCAN(algorithm=algorithm, copy=True, **params).fit(vectors)


@pytest.mark.parametrize("budget", [None, BLOCKS_ONLY], ids=["dense", "blocks"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"min_cluster_size": 20, "min_samples": 3},
        {"min_samples": 1},
        {"min_samples": 60, "min_cluster_size": 10},
        {"cluster_selection_method": "leaf"},
        {"cluster_selection_epsilon": 2.0},
        {"cluster_selection_method": "leaf", "cluster_selection_epsilon": 1.5},
        {"max_cluster_size": 80},
        {"allow_single_cluster": True, "min_cluster_size": 200, "min_samples": 5},
        {"alpha": 1.5},
        {"alpha": 0.7, "min_samples": 3},
    ],
    ids=str,
)
def test_groups_and_strengths_are_those_of_scikit_learn(params, budget):
    vectors = mixture()
    expected = reference(vectors, **params)

    found = hdbscan(vectors, HdbscanParams(**params), backend=CPU, matrix_budget_bytes=budget)

    assert adjusted_rand_score(expected.labels_, found.labels) >= 0.99
    same = (expected.labels_ == NOISE) == (found.labels == NOISE)
    assert same.mean() >= 0.99
    np.testing.assert_allclose(found.strength[same], expected.probabilities_[same], atol=0.02)
    assert found.n_clusters == len(set(expected.labels_) - {NOISE})


@pytest.mark.parametrize("budget", [None, BLOCKS_ONLY], ids=["dense", "blocks"])
@pytest.mark.parametrize("params", [{}, {"min_cluster_size": 15, "min_samples": 3}], ids=str)
def test_real_embeddings_give_the_groups_of_scikit_learn(params, budget):
    path = DATA / "debian_packages.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there; set SHOAL_TEST_DATA")
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["text_embedding"])["text_embedding"].slice(0, 2000)
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(2000, -1).astype(np.float32)
    expected = reference(vectors, algorithm="brute", **params)

    found = hdbscan(vectors, HdbscanParams(**params), backend=CPU, matrix_budget_bytes=budget)

    assert found.n_clusters > 5
    assert adjusted_rand_score(expected.labels_, found.labels) >= 0.99
    np.testing.assert_allclose(found.strength, expected.probabilities_, atol=1e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    vectors=arrays(
        np.float32,
        st.tuples(st.integers(6, 40), st.integers(1, 4)),
        elements=st.floats(-100, 100, width=32, allow_subnormal=False),
    ),
    min_samples=st.integers(1, 5),
    method=st.sampled_from(["eom", "leaf"]),
)
def test_any_small_input_gives_one_strength_and_label_per_point(vectors, min_samples, method):
    params = HdbscanParams(
        min_cluster_size=3, min_samples=min_samples, cluster_selection_method=method
    )

    dense = hdbscan(vectors, params, backend=CPU)
    blocks = hdbscan(vectors, params, backend=CPU, matrix_budget_bytes=BLOCKS_ONLY)

    for found in (dense, blocks):
        sizes = np.bincount(found.labels[found.labels != NOISE], minlength=found.n_clusters)
        assert len(sizes) == found.n_clusters
        assert (sizes >= 3).all()
        assert (np.diff(sizes) <= 0).all()
        assert ((found.strength >= 0) & (found.strength <= 1)).all()
        assert (found.strength[found.labels == NOISE] == 0).all()


def test_groups_are_numbered_by_size():
    found = hdbscan(mixture(), HdbscanParams(), backend=CPU)

    sizes = np.bincount(found.labels[found.labels != NOISE])

    assert found.labels.dtype == np.int32
    assert found.strength.dtype == np.float32
    assert list(sizes) == sorted(sizes, reverse=True)


def test_the_order_of_rows_does_not_matter_beyond_ties():
    vectors = mixture(seed=3)
    shuffle = np.random.default_rng(1).permutation(len(vectors))

    plain = hdbscan(vectors, HdbscanParams(), backend=CPU)
    shuffled = hdbscan(vectors[shuffle], HdbscanParams(), backend=CPU)

    assert adjusted_rand_score(plain.labels[shuffle], shuffled.labels) >= 0.97


@pytest.mark.parametrize("unit", [1e-30, 1e-3, 1e15, 1e30])
def test_the_unit_of_the_vectors_does_not_matter(unit):
    vectors = mixture()

    plain = hdbscan(vectors, HdbscanParams(), backend=CPU)
    scaled = hdbscan(vectors * np.float32(unit), HdbscanParams(), backend=CPU)

    assert adjusted_rand_score(plain.labels, scaled.labels) >= 0.99


def test_a_share_of_the_points_sets_the_smallest_group():
    found = hdbscan(mixture(), HdbscanParams(min_cluster_size=0.1), backend=CPU)

    assert found.effective_params["min_cluster_size"] == 60
    assert found.effective_params["min_samples"] == 60
    assert np.bincount(found.labels[found.labels != NOISE]).min() >= 60


@pytest.mark.parametrize("budget", [None, BLOCKS_ONLY], ids=["dense", "blocks"])
def test_nothing_but_duplicates(budget):
    vectors = np.full((50, 7), 0.1, dtype=np.float32)
    single = HdbscanParams(allow_single_cluster=True)

    plain = hdbscan(vectors, HdbscanParams(), backend=CPU, matrix_budget_bytes=budget)
    one = hdbscan(vectors, single, backend=CPU, matrix_budget_bytes=budget)

    assert (plain.labels == NOISE).all()
    assert plain.n_clusters == 0
    assert "all points are noise" in plain.notes[0]
    assert (one.labels == 0).all()
    assert (one.strength == 1).all()


def test_duplicated_groups_come_apart_with_full_strength():
    corners = np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [30, 20, 10])]

    found = hdbscan(corners, HdbscanParams(), backend=CPU)

    assert list(np.bincount(found.labels)) == [30, 20, 10]
    assert (found.strength == 1).all()


def test_scattered_points_are_all_noise():
    vectors = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)

    found = hdbscan(vectors, HdbscanParams(min_cluster_size=25, min_samples=5), backend=CPU)

    assert found.n_clusters == 0
    assert (found.labels == NOISE).all()
    assert "at least 25 points" in found.notes[0]


def test_fewer_points_than_a_group_needs_are_noise_and_it_is_said():
    vectors = mixture(n_points=10)

    found = hdbscan(vectors, HdbscanParams(min_cluster_size=11, min_samples=2), backend=CPU)

    assert (found.labels == NOISE).all()
    assert (found.strength == 0).all()
    assert found.notes == ["all 10 points are noise: a group needs min_cluster_size = 11"]


def test_one_point_is_noise():
    vectors = np.ones((1, 3), dtype=np.float32)

    found = hdbscan(vectors, HdbscanParams(min_samples=1), backend=CPU)

    assert list(found.labels) == [NOISE]


@pytest.mark.parametrize("backend", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("params", [{}, {"min_samples": 5, "min_cluster_size": 2}], ids=str)
def test_more_samples_than_points_are_refused(params, backend):
    with pytest.raises(TooFewPointsError, match=r"4 points are too few.* at least 5"):
        hdbscan(mixture(n_points=4), HdbscanParams(**params), backend=backend)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(bad):
    vectors = mixture(n_points=50)
    vectors[17, 3] = vectors[30, 0] = bad

    with pytest.raises(InvalidVectorsError, match=r"2 of 50 rows .* first: row 17"):
        hdbscan(vectors, HdbscanParams(), backend=CPU)


@pytest.mark.parametrize(
    "vectors", [np.zeros((3, 2)), np.zeros(5, np.float32), np.zeros((0, 4), np.float32)]
)
def test_what_is_no_float32_matrix_is_refused(vectors):
    with pytest.raises(InvalidVectorsError, match="expected"):
        hdbscan(vectors, HdbscanParams(), backend=CPU)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"min_samples": 1}, r"min_samples = 1 .* 2 to 1,024"),
        ({"min_samples": 1025}, r"min_samples = 1025 .* 2 to 1,024"),
        ({"min_cluster_size": 1050}, r"min_samples = 1050 .* 2 to 1,024"),
        ({"alpha": 1.5}, r"alpha = 1.5 .* multiplies"),
    ],
)
def test_what_cuml_does_otherwise_is_refused_before_the_device_is_touched(params, said):
    vectors = np.zeros((1100, 2), dtype=np.float32)

    with pytest.raises(UnsupportedOnDeviceError, match=said):
        hdbscan(vectors, HdbscanParams(**params), backend=GPU)


def test_few_points_are_searched_exactly_on_the_gpu_even_where_approximate_was_asked_for():
    params = HdbscanParams(min_samples=10, approx_min_span_tree=True)

    assert _search_on_gpu(params, 255) == {"build_algo": "brute_force"}
    assert _search_on_gpu(params, 256)["build_algo"] == "nn_descent"


@pytest.mark.parametrize("budget", [None, BLOCKS_ONLY], ids=["dense", "blocks"])
def test_progress_rises_from_the_distances_to_the_end(budget):
    told = []

    found = hdbscan(
        mixture(n_points=2000),
        HdbscanParams(),
        backend=CPU,
        progress=told.append,
        matrix_budget_bytes=budget,
    )

    assert found.details["spanning_tree"] == ("blocks" if budget == BLOCKS_ONLY else "dense")
    assert told == sorted(told)
    assert told[-1] == 1
    assert any(share < 0.6 for share in told)
    assert sum(0.6 <= share < 1 for share in told) >= 2


def test_the_result_does_not_depend_on_the_number_of_threads():
    vectors = mixture(n_points=1500)

    one = hdbscan(vectors, HdbscanParams(), backend=CPU, n_threads=1)
    three = hdbscan(vectors, HdbscanParams(), backend=CPU, n_threads=3)

    np.testing.assert_array_equal(one.labels, three.labels)
    np.testing.assert_array_equal(one.strength, three.strength)


def test_the_vectors_are_left_as_they_were():
    vectors = mixture()
    before = vectors.copy()

    hdbscan(vectors, HdbscanParams(), backend=CPU)

    np.testing.assert_array_equal(vectors, before)
