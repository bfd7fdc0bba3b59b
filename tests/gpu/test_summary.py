"""Centres, sizes and distances are those a plain loop over the groups would give."""

import numpy as np
import pytest

from gpu.errors import InvalidParametersError
from gpu.params import NOISE
from gpu.summary import confidence, summarize


def data(n_points=400, n_dims=6, n_groups=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, n_groups, size=n_points).astype(np.int32)
    points = rng.normal(size=(n_points, n_dims)) + 3 * np.eye(n_groups + 1, n_dims)[labels]
    return (points * rng.uniform(0.5, 4, size=(n_points, 1))).astype(np.float32), labels


def distance(points, centre, metric):
    points, centre = points.astype(np.float64), centre.astype(np.float64)
    if metric != "cosine" and metric != "dot":
        return np.linalg.norm(points - centre, axis=1, ord=1 if metric == "manhattan" else 2)
    return 1 - points @ centre / np.linalg.norm(points, axis=1) / np.linalg.norm(centre)


def centre_by_hand(points, metric, centroid):
    points = points.astype(np.float64)
    angular = metric in ("cosine", "dot")
    if angular:
        points = points / np.linalg.norm(points, axis=1)[:, None]
    if centroid == "medoid":
        totals = [distance(points, point, metric).sum() for point in points]
        return points[int(np.argmin(totals))]
    centre = points.mean(axis=0) if centroid == "mean" else np.median(points, axis=0)
    return centre / np.linalg.norm(centre) if angular else centre


@pytest.mark.parametrize("centroid", ["mean", "median", "medoid"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot", "manhattan"])
def test_a_summary_agrees_with_one_made_by_hand(metric, centroid):
    points, labels = data()

    made = summarize(points, labels, metric=metric, centroid=centroid)

    assert made.sizes.tolist() == np.bincount(labels[labels != NOISE]).tolist()
    assert np.isnan(made.distances[labels == NOISE]).all()
    for group in range(5):
        own = labels == group
        assert made.centroids[group] == pytest.approx(
            centre_by_hand(points[own], metric, centroid), abs=1e-5
        )
        by_hand = distance(points[own], made.centroids[group], metric)
        assert made.distances[own] == pytest.approx(by_hand, abs=1e-5)
        assert made.radii[group] == pytest.approx(np.quantile(by_hand, 0.95), abs=1e-5)


def test_the_median_is_nearer_to_its_group_by_manhattan_distance_than_the_mean():
    points, labels = data()

    mean, median = (
        summarize(points, labels, metric="manhattan", centroid=c).distances
        for c in ("mean", "median")
    )

    for group in range(5):
        assert median[labels == group].sum() < mean[labels == group].sum()


def test_a_medoid_is_a_member_and_has_the_least_summed_distance():
    points, labels = data(n_points=900)
    points += 1_000  # Far from the origin, where float32 squares lose their digits.

    made = summarize(points, labels, metric="euclidean", centroid="medoid")

    for group in range(5):
        members = points[labels == group]
        totals = [distance(members, member, "euclidean").sum() for member in members]
        own = distance(members, made.centroids[group], "euclidean")
        assert own.min() == 0
        assert own.sum() == pytest.approx(min(totals), rel=1e-6)


def test_ten_thousand_groups_are_summarized():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(10_000, dtype=np.int32), 2)
    points = rng.normal(size=(20_000, 3)).astype(np.float32)

    made = summarize(points, labels, metric="euclidean")

    assert made.centroids == pytest.approx((points[::2] + points[1::2]) / 2, abs=1e-6)
    assert made.sizes.tolist() == [2] * 10_000


def test_one_point_is_its_own_centre():
    made = summarize(np.array([[3, 4]], np.float32), np.zeros(1, np.int32), metric="cosine")

    assert made.centroids == pytest.approx(np.array([[0.6, 0.8]]))
    assert made.distances == pytest.approx([0], abs=1e-6)
    assert made.radii == pytest.approx([0], abs=1e-6)


def test_only_noise_has_no_groups():
    made = summarize(np.ones((3, 2), np.float32), np.full(3, NOISE, np.int32), metric="cosine")

    assert made.centroids.shape == (0, 2)
    assert made.sizes.tolist() == []
    assert np.isnan(made.distances).all()


def test_members_that_cancel_out_are_centred_on_the_first():
    points = np.array([[0, 2], [0, -2]], dtype=np.float32)

    made = summarize(points, np.zeros(2, np.int32), metric="cosine")

    assert made.centroids.tolist() == [[0, 1]]
    assert made.distances.tolist() == [0, 2]


def test_duplicates_lie_on_their_centre():
    made = summarize(np.full((50, 4), 7, np.float32), np.zeros(50, np.int32), metric="euclidean")

    assert made.distances.tolist() == [0] * 50


def test_an_unknown_centroid_is_refused():
    with pytest.raises(InvalidParametersError, match="mean, median, medoid"):
        summarize(np.ones((1, 1), np.float32), np.zeros(1, np.int32), metric="dot", centroid="mode")


def test_confidence_falls_with_the_rank_of_the_distance_within_the_group():
    distances = np.array([0.1, 5.0, 0.3, 0.2, 0.2, 7.0, np.nan], dtype=np.float32)
    labels = np.array([0, 1, 0, 0, 0, 1, NOISE], dtype=np.int32)

    given = confidence(distances, labels, None)

    assert given == pytest.approx([1, 1, 0.25, 0.75, 0.75, 0.5, 0])
    assert given.dtype == np.float32


def test_the_strength_of_a_method_is_its_confidence():
    strength = np.array([0.5, 1.0, 0.0], dtype=np.float32)
    labels = np.array([0, 0, NOISE], dtype=np.int32)

    given = confidence(np.array([9, 1, np.nan], np.float32), labels, strength)

    assert given.tolist() == [0.5, 1.0, 0.0]
