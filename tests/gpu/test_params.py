"""Parameters are read by scikit-learn's names; every fault is reported at once."""

import math

import pytest

from gpu.errors import InvalidParametersError
from gpu.params import (
    BUILT_METHODS,
    METHODS,
    HdbscanParams,
    KMeansParams,
    parse_params,
)


def violations(method, sent):
    with pytest.raises(InvalidParametersError) as caught:
        parse_params(method, sent)
    return caught.value.violations


def test_nothing_sent_gives_the_defaults():
    assert parse_params("kmeans", {}).params == KMeansParams(n_clusters=8, random_state=42)
    assert parse_params("hdbscan", {}).params == HdbscanParams(min_cluster_size=5)


def test_null_means_absent():
    assert parse_params("kmeans", {"n_clusters": None}).params == KMeansParams()


def test_a_whole_json_number_is_an_integer():
    params = parse_params("kmeans", {"n_clusters": 10.0, "random_state": 7.0}).params

    assert (params.n_clusters, params.random_state) == (10, 7)
    assert type(params.n_clusters) is int


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("kmeans", "n_clusters", 0),
        ("kmeans", "n_clusters", -3),
        ("kmeans", "n_clusters", 10.5),
        ("kmeans", "n_clusters", True),
        ("kmeans", "n_clusters", "8"),
        ("kmeans", "n_clusters", [8]),
        ("kmeans", "n_clusters", 2**40),
        ("kmeans", "n_clusters", math.inf),
        ("kmeans", "n_clusters", math.nan),
        ("kmeans", "init", "kmeans++"),
        ("kmeans", "init", ["random"]),
        ("kmeans", "n_init", "always"),
        ("kmeans", "n_init", 0),
        ("kmeans", "max_iter", 0),
        ("kmeans", "tol", -1e-9),
        ("kmeans", "tol", math.nan),
        ("kmeans", "tol", math.inf),
        ("kmeans", "random_state", -1),
        ("kmeans", "random_state", 2**32),
        ("hdbscan", "min_cluster_size", 1),
        ("hdbscan", "min_cluster_size", 0),
        ("hdbscan", "min_cluster_size", -0.1),
        ("hdbscan", "min_cluster_size", 2.5),
        ("hdbscan", "min_cluster_size", False),
        ("hdbscan", "min_samples", 0),
        ("hdbscan", "cluster_selection_epsilon", -0.5),
        ("hdbscan", "cluster_selection_method", "EOM"),
        ("hdbscan", "allow_single_cluster", 1),
        ("hdbscan", "allow_single_cluster", "true"),
        ("hdbscan", "max_cluster_size", 1),
        ("hdbscan", "alpha", 0),
        ("hdbscan", "alpha", math.nan),
    ],
)
def test_a_bad_value_is_refused_by_name(method, name, value):
    [fault] = violations(method, {name: value})

    assert fault.path == name
    assert fault.allowed.startswith("must be ")
    assert fault.sent


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("kmeans", "n_clusters", 1),
        ("kmeans", "n_init", "auto"),
        ("kmeans", "n_init", 3),
        ("kmeans", "tol", 0),
        ("kmeans", "random_state", 2**32 - 1),
        ("hdbscan", "min_cluster_size", 2),
        ("hdbscan", "min_cluster_size", 0.01),
        ("hdbscan", "min_samples", 1),
        ("hdbscan", "cluster_selection_method", "leaf"),
        ("hdbscan", "allow_single_cluster", True),
    ],
)
def test_a_value_at_the_edge_is_taken(method, name, value):
    assert getattr(parse_params(method, {name: value}).params, name) == value


def test_all_faults_come_at_once():
    faults = violations("kmeans", {"n_clusters": 0, "tol": "small", "n_cluster": 3})

    assert [fault.path for fault in faults] == ["n_clusters", "tol", "n_cluster"]


def test_a_misspelt_name_is_refused_with_a_suggestion():
    [fault] = violations("hdbscan", {"min_clustersize": 10})

    assert "did you mean min_cluster_size?" in fault.allowed
    assert fault.sent == "10"


def test_a_name_of_another_method_is_ignored_with_a_warning():
    parsed = parse_params("kmeans", {"eps": 0.5, "min_cluster_size": 5, "n_clusters": 3})

    assert parsed.params == KMeansParams(n_clusters=3)
    assert len(parsed.warnings) == 2
    assert "eps is ignored: it belongs to dbscan" in parsed.warnings[0]
    assert "hdbscan" in parsed.warnings[1]


def test_a_name_that_changes_nothing_here_is_ignored_with_the_reason():
    [warning] = parse_params("hdbscan", {"metric": "manhattan"}).warnings

    assert "collection's own distance" in warning


def test_an_unknown_method_lists_those_there_are():
    [fault] = violations("kmean", {})

    assert fault.path == "clustering_method"
    assert "did you mean kmeans?" in fault.allowed
    assert all(method in fault.allowed for method in METHODS)


def test_every_method_of_the_contract_is_built():
    assert BUILT_METHODS == METHODS


def test_sizes_that_contradict_each_other_are_refused():
    [fault] = violations("hdbscan", {"min_cluster_size": 10, "max_cluster_size": 5})

    assert fault.path == "max_cluster_size"
    assert "min_cluster_size, 10" in fault.allowed


def test_a_long_value_is_shortened_in_the_report():
    [fault] = violations("kmeans", {"init": "x" * 5_000})

    assert len(fault.sent) <= 80


@pytest.mark.parametrize(
    ("size", "n_points", "count"), [(0.01, 2_000, 20), (0.01, 10, 2), (0.5, 3, 2), (7, 10, 7)]
)
def test_a_share_becomes_a_count_of_at_least_two(size, n_points, count):
    resolved = HdbscanParams(min_cluster_size=size).resolved(n_points)

    assert resolved.min_cluster_size == count
    assert resolved.min_samples == count
    assert HdbscanParams(min_cluster_size=size, min_samples=3).resolved(n_points).min_samples == 3


def test_sklearn_knows_the_names_and_defaults():
    cluster = pytest.importorskip("sklearn.cluster")
    for method, model in (("kmeans", cluster.KMeans), ("hdbscan", cluster.HDBSCAN)):
        theirs = model(copy=True).get_params() if method == "hdbscan" else model().get_params()
        ours = vars(parse_params(method, {}).params)
        # approx_min_span_tree is the package hdbscan's.
        for name in ours.keys() - {"random_state", "approx_min_span_tree"}:
            assert ours[name] == theirs[name], name
        for name in theirs.keys() - ours.keys():
            assert parse_params(method, {name: theirs[name] or "x"}).warnings, name
