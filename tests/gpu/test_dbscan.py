"""DBSCAN gives scikit-learn's groups, borders included, for any number of threads."""

import numpy as np
import pytest
from gpu_mixtures import mixture

from gpu.backend import Backend
from gpu.clustering import fit as fit_any
from gpu.dbscan import dbscan
from gpu.errors import InvalidVectorsError, UnsupportedOnDeviceError
from gpu.params import NOISE, DbscanParams

CPU = Backend("cpu", "a test")


def fit(points, eps, min_samples=5, **options):
    return dbscan(points, DbscanParams(eps, min_samples), backend=CPU, **options)


def reference(points, eps, min_samples=5, metric="euclidean"):
    from sklearn.cluster import DBSCAN

    from gpu.clustering import renumber_by_size

    model = DBSCAN(eps=eps, min_samples=min_samples, metric=metric).fit(points.astype(np.float64))
    return renumber_by_size(model.labels_)[0]


@pytest.mark.parametrize(("n_dims", "eps"), [(2, 0.5), (2, 0.2), (8, 2.1), (40, 8.0)])
@pytest.mark.parametrize("offset", [0, 1_000])
def test_labels_are_those_of_sklearn(n_dims, eps, offset):
    points, _ = mixture(n_points=1_500, n_dims=n_dims, seed=n_dims)
    points += np.float32(offset)

    labels = fit(points, eps).labels

    assert (labels == reference(points, eps)).all()
    assert 0 < (labels == NOISE).sum() < len(points)


def test_manhattan_distance_is_that_of_sklearn():
    points, _ = mixture(n_points=700, n_dims=6)

    labels = fit(points, 4.0, metric="manhattan").labels

    assert (labels == reference(points, 4.0, metric="manhattan")).all()
    assert len(set(labels)) > 2


def test_a_cosine_eps_is_a_cosine_distance():
    from sklearn.cluster import DBSCAN

    points, _ = mixture(n_points=600, n_dims=8, spread=0.7)
    found = fit_any(points, method="dbscan", params=DbscanParams(eps=0.05), metric="cosine")
    theirs = DBSCAN(eps=0.05, metric="cosine").fit(points.astype(np.float64)).labels_

    assert found.n_clusters == theirs.max() + 1 > 1
    assert ((found.labels == NOISE) == (theirs == NOISE)).all()
    assert found.effective_params["eps"] == 0.05


def test_threads_do_not_change_the_labels():
    points, _ = mixture(n_points=2_000, n_dims=3)

    one, three = (fit(points, 0.6, n_threads=n).labels for n in (1, 3))

    assert (one == three).all()


def test_duplicates_are_dense():
    result = fit(np.ones((20, 3), dtype=np.float32), 1e-6)

    assert result.labels.tolist() == [0] * 20
    assert result.details["n_core_points"] == 20


def test_one_point_is_noise_and_says_so():
    result = fit(np.ones((1, 3), dtype=np.float32), 1.0)

    assert result.labels.tolist() == [NOISE]
    assert "all points are noise" in result.notes[0]


def test_one_point_may_be_its_own_neighbourhood():
    assert fit(np.ones((1, 3), dtype=np.float32), 1.0, min_samples=1).labels.tolist() == [0]


def test_a_row_that_is_not_finite_is_refused_by_number():
    points, _ = mixture(n_points=50)
    points[7, 0] = np.nan

    with pytest.raises(InvalidVectorsError, match="row 7"):
        fit(points, 1.0)


def test_manhattan_distance_is_not_for_the_gpu():
    with pytest.raises(UnsupportedOnDeviceError, match="manhattan"):
        dbscan(
            np.ones((5, 2), dtype=np.float32),
            DbscanParams(),
            backend=Backend("gpu", "a test"),
            metric="manhattan",
        )
