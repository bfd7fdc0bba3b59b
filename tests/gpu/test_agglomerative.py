"""Agglomerative clustering gives scikit-learn's groups for each linkage and metric."""

import numpy as np
import pytest
from gpu_mixtures import mixture

from gpu.agglomerative import agglomerative
from gpu.backend import Backend
from gpu.clustering import fit as fit_any
from gpu.errors import (
    InvalidParametersError,
    InvalidVectorsError,
    TooFewPointsError,
    UnsupportedOnDeviceError,
)
from gpu.params import AgglomerativeParams, parse_params

CPU = Backend("cpu", "a test")
LINKAGES = ("ward", "complete", "average", "single")


def fit(points, metric="euclidean", **params):
    return agglomerative(points, AgglomerativeParams(**params), backend=CPU, metric=metric)


def same_partition(ours, theirs):
    pairs = set(zip(ours.tolist(), theirs.tolist(), strict=True))
    return len(pairs) == len(set(ours.tolist())) == len(set(theirs.tolist()))


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_groups_are_those_of_sklearn(linkage, metric):
    from sklearn.cluster import AgglomerativeClustering

    if linkage == "ward" and metric != "euclidean":
        pytest.skip("ward has no distance but the Euclidean one")
    points, _ = mixture(n_points=400)
    found = fit_any(
        points,
        method="agglomerative",
        params=AgglomerativeParams(n_clusters=9, linkage=linkage),
        metric=metric,
    )

    theirs = AgglomerativeClustering(9, metric=metric, linkage=linkage)
    assert same_partition(found.labels, theirs.fit(points.astype(np.float64)).labels_)
    assert found.n_clusters == 9


@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_threshold_is_that_of_sklearn(linkage):
    from sklearn.cluster import AgglomerativeClustering

    points, _ = mixture(n_points=300)
    found = fit(points, n_clusters=None, distance_threshold=3.0, linkage=linkage)

    theirs = AgglomerativeClustering(None, distance_threshold=3.0, linkage=linkage)
    assert same_partition(found.labels, theirs.fit(points.astype(np.float64)).labels_)
    assert found.effective_params["n_clusters"] == found.n_clusters


def test_a_cosine_threshold_is_a_cosine_distance_also_for_ward():
    angles = np.radians([0, 10, 90, 100])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    just_above = 1 - np.cos(np.radians(10)) + 1e-4

    for linkage in LINKAGES:
        groups = [
            fit_any(
                points,
                method="agglomerative",
                params=parse_params(
                    "agglomerative", {"distance_threshold": threshold, "linkage": linkage}
                ).params,
                metric="cosine",
            ).n_clusters
            for threshold in (just_above, just_above - 2e-4)
        ]
        assert groups == [2, 4], linkage


def test_ward_has_no_manhattan_distance():
    with pytest.raises(InvalidParametersError, match="complete, average or single"):
        fit_any(
            mixture()[0],
            method="agglomerative",
            params=AgglomerativeParams(),
            metric="manhattan",
        )


def test_as_many_groups_as_points():
    points, _ = mixture(n_points=12)

    assert sorted(fit(points, n_clusters=12).labels) == list(range(12))


def test_one_point_is_one_group():
    assert fit(np.ones((1, 2), dtype=np.float32), n_clusters=1).labels.tolist() == [0]


def test_fewer_points_than_groups_are_refused():
    with pytest.raises(TooFewPointsError):
        fit(np.ones((3, 2), dtype=np.float32), n_clusters=4)


def test_duplicates_merge_first():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)

    result = fit(points, n_clusters=3)

    assert np.bincount(result.labels).tolist() == [5, 5, 5]
    assert len(set(result.labels[:5])) == 1


def test_a_row_that_is_not_finite_is_refused_by_number():
    points, _ = mixture(n_points=50)
    points[7, 0] = np.inf

    with pytest.raises(InvalidVectorsError, match="row 7"):
        fit(points, n_clusters=2)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (AgglomerativeParams(), "linkage"),
        (AgglomerativeParams(None, "single", 1.0), "distance_threshold"),
    ],
)
def test_what_cuml_lacks_is_refused_before_the_device_is_touched(params, name):
    with pytest.raises(UnsupportedOnDeviceError) as caught:
        agglomerative(mixture()[0], params, backend=Backend("gpu", "a test"))

    assert caught.value.parameter == name
