"""The methods that scikit-learn computes: its groups, our edges, notes and refusals."""

import numpy as np
import pytest
from gpu_mixtures import mixture
from sklearn.metrics import adjusted_rand_score

from gpu.backend import Backend
from gpu.clustering import fit
from gpu.errors import (
    InvalidParametersError,
    InvalidVectorsError,
    TooFewPointsError,
    UnsupportedOnDeviceError,
)
from gpu.params import NOISE, parse_params

METHODS = ("spectral", "gaussian_mixture", "mean_shift", "optics")


def run(method, points, metric="euclidean", **sent):
    return fit(
        points,
        method=method,
        params=parse_params(method, sent).params,
        metric=metric,
        device="cpu",
    )


def theirs(method, points):
    from sklearn.cluster import OPTICS, MeanShift, SpectralClustering, estimate_bandwidth
    from sklearn.mixture import GaussianMixture

    models = {
        "spectral": SpectralClustering(6, affinity="nearest_neighbors", random_state=42),
        "gaussian_mixture": GaussianMixture(6, covariance_type="diag", random_state=42),
        "mean_shift": MeanShift(bandwidth=estimate_bandwidth(points)),
        "optics": OPTICS(min_samples=10),
    }
    return models[method].fit_predict(points)


SENT = {
    "spectral": {"n_clusters": 6, "affinity": "nearest_neighbors"},
    "gaussian_mixture": {"n_clusters": 6, "covariance_type": "diag"},
    "mean_shift": {},
    "optics": {"min_samples": 10},
}


@pytest.mark.parametrize("method", METHODS)
def test_groups_agree_with_sklearn(method):
    # Spectral clustering of a graph in parts is arbitrary, so its groups have to overlap.
    points, _ = mixture(n_points=400, spread=2.4 if method == "spectral" else 0.8)

    found = run(method, points, **SENT[method])

    reference = theirs(method, points.astype(np.float64))
    assert found.n_clusters == reference.max() + 1 > 1
    assert adjusted_rand_score(found.labels, reference) >= 0.99


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_labels_again(method):
    points, _ = mixture(n_points=300, spread=2.0)

    assert (
        run(method, points, **SENT[method]).labels == run(method, points, **SENT[method]).labels
    ).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_row_that_is_not_finite_is_refused_by_number(method):
    points, _ = mixture(n_points=50)
    points[7, 0] = np.nan

    with pytest.raises(InvalidVectorsError, match="row 7"):
        run(method, points, **SENT[method])


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_do_not_break_it(method):
    points = np.repeat(np.eye(2, 4, dtype=np.float32), 30, axis=0)

    found = run(
        method, points, **(SENT[method] | ({"n_clusters": 2} if method != "optics" else {}))
    )

    assert len(found.labels) == 60
    assert found.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("method", "sent", "needed"),
    [
        ("spectral", {"n_clusters": 8}, 8),
        ("spectral", {"n_clusters": 2, "affinity": "nearest_neighbors"}, 10),
        ("gaussian_mixture", {"n_components": 5}, 5),
        ("gaussian_mixture", {"n_components": 1}, 2),
        ("optics", {}, 5),
        ("optics", {"min_samples": 2, "min_cluster_size": 9}, 9),
    ],
)
def test_too_few_points_are_refused_with_the_number_needed(method, sent, needed):
    points, _ = mixture(n_points=1 if needed == 2 else 4)

    with pytest.raises(TooFewPointsError) as caught:
        run(method, points, **sent)

    assert caught.value.needed == needed


@pytest.mark.parametrize("method", ["gaussian_mixture", "mean_shift", "optics"])
def test_what_cuml_lacks_is_refused_on_the_gpu(method):
    from importlib import import_module

    function = getattr(import_module(f"gpu.{method}"), method)
    with pytest.raises(UnsupportedOnDeviceError, match="cuML has no"):
        function(mixture()[0], parse_params(method, {}).params, backend=Backend("gpu", "a test"))


def test_spectral_on_the_gpu_takes_neighbour_graphs_only():
    from gpu.spectral import spectral

    with pytest.raises(UnsupportedOnDeviceError, match="affinity"):
        spectral(
            mixture()[0], parse_params("spectral", {}).params, backend=Backend("gpu", "a test")
        )


def test_a_graph_in_parts_is_noted():
    points, _ = mixture(n_points=200, spread=0.1)

    notes = run("spectral", points, n_clusters=6, affinity="nearest_neighbors", n_neighbors=5).notes

    assert any("not fully connected" in note for note in notes)


def test_spectral_with_one_point_or_group_has_nothing_to_cut():
    assert run("spectral", np.ones((1, 2), dtype=np.float32), n_clusters=1).labels.tolist() == [0]


def test_strength_of_a_mixture_is_the_posterior():
    points, _ = mixture(n_points=400, n_groups=2, n_dims=2, spread=3.0)

    found = run("gaussian_mixture", points, n_clusters=2)

    assert ((found.strength >= 0.5) & (found.strength <= 1)).all()
    assert found.strength.min() < 0.9
    assert found.details["converged"]


def test_n_clusters_is_another_name_of_n_components():
    assert parse_params("gaussian_mixture", {"n_clusters": 3}).params.n_components == 3
    with pytest.raises(InvalidParametersError, match="another name of n_components"):
        parse_params("gaussian_mixture", {"n_components": 4, "n_clusters": 3})


def test_a_collapsed_gaussian_names_the_parameter_to_change():
    points, _ = mixture(n_points=60, n_dims=40)

    with pytest.raises(InvalidParametersError, match="reg_covar"):
        run("gaussian_mixture", points, n_clusters=8, reg_covar=0)


def test_a_mixture_that_did_not_converge_is_noted():
    points, _ = mixture(n_points=500, spread=4.0)

    found = run("gaussian_mixture", points, n_clusters=6, max_iter=1)

    assert not found.details["converged"]
    assert any("converge" in note for note in found.notes)


def test_the_estimated_bandwidth_is_reported_in_the_callers_metric():
    points, _ = mixture(n_points=300, spread=0.3)
    estimated = run("mean_shift", points, metric="cosine").effective_params["bandwidth"]

    again = run("mean_shift", points, metric="cosine", bandwidth=estimated)

    assert 0 < estimated < 2
    assert again.effective_params["bandwidth"] == estimated
    assert (again.labels == run("mean_shift", points, metric="cosine").labels).all()


def test_mean_shift_can_leave_points_out():
    points = np.vstack([mixture(n_points=200, n_groups=1)[0], np.full((1, 8), 500, np.float32)])

    found = run(
        "mean_shift", points, bandwidth=8.0, bin_seeding=True, min_bin_freq=2, cluster_all=False
    )

    assert found.labels[-1] == NOISE


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_the_cut_of_optics_is_dbscan(metric):
    points, _ = mixture(n_points=300, spread=0.8)
    sent = {"max_eps": 5.0, "eps": 4.0, "cluster_method": "dbscan"}

    cut = run("optics", points, metric=metric, **sent)
    direct = run("dbscan", points, metric=metric, eps=4.0)

    assert cut.n_clusters == direct.n_clusters > 1
    assert adjusted_rand_score(cut.labels, direct.labels) >= 0.95


def test_a_cosine_eps_of_optics_is_a_cosine_distance():
    points, _ = mixture(n_points=300, spread=0.5)
    sent = {"max_eps": 0.2, "eps": 0.05, "cluster_method": "dbscan"}

    cut = run("optics", points, metric="cosine", **sent)
    direct = run("dbscan", points, metric="cosine", eps=0.05)

    assert adjusted_rand_score(cut.labels, direct.labels) >= 0.97
    assert (cut.effective_params["max_eps"], cut.effective_params["eps"]) == (0.2, 0.05)
