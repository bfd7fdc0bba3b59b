"""Quality figures agree with scikit-learn's, and are absent where they mean nothing."""

import numpy as np
import pytest

from gpu.metrics import quality
from gpu.params import NOISE
from gpu.sampling import sample_rows


def data(n_points=600, n_dims=8, n_groups=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, n_groups, size=n_points).astype(np.int32)
    labels[:n_groups] = np.arange(n_groups)
    points = rng.normal(size=(n_points, n_dims)) + 2 * np.eye(n_groups + 1, n_dims)[labels]
    return points.astype(np.float32), labels


def unit(points):
    return points / np.linalg.norm(points, axis=1)[:, None]


@pytest.mark.parametrize("offset", [0.0, 500.0])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("n_groups", [2, 6, 150])
def test_figures_agree_with_sklearn(metric, n_groups, offset):
    from sklearn import metrics

    points, labels = data(n_groups=n_groups, n_dims=max(8, n_groups + 1))
    points += np.float32(offset)

    found = quality(points, labels, metric=metric)

    kept = points[labels != NOISE].astype(np.float64)
    own = labels[labels != NOISE]
    space = unit(kept) if metric == "cosine" else kept
    assert found["silhouette"] == pytest.approx(
        metrics.silhouette_score(kept, own, metric=metric), abs=1e-4
    )
    assert found["davies_bouldin"] == pytest.approx(
        metrics.davies_bouldin_score(space, own), rel=2e-4
    )
    assert found["calinski_harabasz"] == pytest.approx(
        metrics.calinski_harabasz_score(space, own), rel=2e-4
    )


@pytest.mark.parametrize("offset", [0.0, 500.0])
def test_manhattan_has_the_silhouette_alone(offset):
    from sklearn import metrics

    points, labels = data()
    points += np.float32(offset)

    found = quality(points, labels, metric="manhattan")

    kept, own = points[labels != NOISE], labels[labels != NOISE]
    assert found["silhouette"] == pytest.approx(
        metrics.silhouette_score(kept, own, metric="manhattan"), abs=1e-5
    )
    assert found["davies_bouldin"] is None
    assert found["calinski_harabasz"] is None
    assert found["noise_ratio"] > 0


def test_silhouette_of_a_large_input_is_that_of_a_seeded_sample():
    from sklearn import metrics

    points, labels = data(n_points=900)
    labels = np.abs(labels)

    found = quality(points, labels, metric="euclidean", sample_size=200, seed=9)

    rows = sample_rows(900, 200, seed=9)
    assert found["silhouette_sample_size"] == 200
    assert found["silhouette"] == pytest.approx(
        metrics.silhouette_score(points[rows], labels[rows]), abs=1e-4
    )
    again = quality(points, labels, metric="euclidean", sample_size=200, seed=9)
    other = quality(points, labels, metric="euclidean", sample_size=200, seed=10)
    assert again["silhouette"] == found["silhouette"] != other["silhouette"]


def test_noise_is_counted_and_otherwise_left_out():
    points, labels = data()
    grouped = labels != NOISE

    whole = quality(points, labels, metric="euclidean")
    alone = quality(points[grouped], labels[grouped], metric="euclidean")

    assert whole["noise_ratio"] == pytest.approx(1 - grouped.mean())
    assert alone["noise_ratio"] == 0
    assert whole["davies_bouldin"] == pytest.approx(alone["davies_bouldin"])
    assert whole["silhouette"] == pytest.approx(alone["silhouette"])


def test_sizes_are_listed_by_group():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, NOISE], dtype=np.int32)

    found = quality(np.eye(8, dtype=np.float32), labels, metric="euclidean")

    assert found["n_clusters"] == 3
    assert found["sizes"] == {"min": 1, "median": 2.0, "max": 4, "all": [4, 2, 1]}


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [NOISE] * 4, [0, 1, 2, 3], [0, NOISE, NOISE, NOISE], [0, 1, NOISE, NOISE]],
    ids=["one group", "only noise", "all alone", "one point", "two points alone"],
)
def test_undefined_indices_are_absent(labels):
    points = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    found = quality(points, np.array(labels, dtype=np.int32), metric="cosine")

    assert found["silhouette"] is None
    assert found["davies_bouldin"] is None
    assert found["calinski_harabasz"] is None
    assert found["n_clusters"] == len(set(labels) - {NOISE})
    assert (found["sizes"] is None) == (found["n_clusters"] == 0)


def test_groups_of_duplicates_are_perfectly_apart():
    points = np.repeat(np.array([[1, 0], [0, 1]], dtype=np.float32), 5, axis=0)
    labels = np.repeat(np.array([0, 1], dtype=np.int32), 5)

    found = quality(points, labels, metric="euclidean")

    assert found["silhouette"] == pytest.approx(1)
    assert found["davies_bouldin"] is None
    assert found["calinski_harabasz"] is None


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_profile_has_each_groups_silhouettes(metric):
    from sklearn.metrics import silhouette_samples

    points, labels = data()
    kept = points[labels != NOISE].astype(np.float64)
    own = labels[labels != NOISE]
    theirs = silhouette_samples(kept, own, metric=metric)

    profile = quality(points, labels, metric=metric)["silhouette_profile"]

    assert [row["group"] for row in profile] == list(range(6))
    for row in profile:
        of_group = theirs[own == row["group"]]
        assert row["n_points"] == len(of_group)
        expected = np.quantile(of_group, [0, 0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(row["quantiles"], expected, atol=3e-4)


def test_the_profile_is_of_the_first_groups_and_of_none_where_there_is_no_silhouette():
    points, labels = data(n_points=1500, n_groups=250, n_dims=251)

    assert len(quality(points, labels, metric="euclidean")["silhouette_profile"]) == 200
    alone = np.zeros(len(points), dtype=np.int32)
    assert quality(points, alone, metric="euclidean")["silhouette_profile"] == []
