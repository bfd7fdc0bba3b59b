"""k-means: as good as scikit-learn, the same for any number of threads, whole at the edges."""

import numpy as np
import pytest

from gpu.backend import Backend
from gpu.errors import InvalidVectorsError, TooFewPointsError
from gpu.kmeans import kmeans
from gpu.params import KMeansParams

CPU = Backend("cpu", "a test")


def mixture(n_points=3_000, n_dims=12, n_groups=10, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_groups, n_dims)) * 4
    which = rng.integers(n_groups, size=n_points)
    points = centres[which] + spread * rng.normal(size=(n_points, n_dims))
    return points.astype(np.float32), which


def fit(points, n_clusters, n_threads=None, progress=None, **params):
    return kmeans(
        points,
        KMeansParams(n_clusters=n_clusters, **params),
        backend=CPU,
        n_threads=n_threads,
        progress=progress,
    )


def inertia_of(points, labels):
    points = points.astype(np.float64)
    return sum(
        float(np.square(points[labels == g] - points[labels == g].mean(axis=0)).sum())
        for g in np.unique(labels)
    )


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("n_clusters", [5, 10, 37])
def test_inertia_is_within_a_percent_of_sklearn(n_clusters, offset):
    from sklearn.cluster import KMeans

    points, _ = mixture()
    points += np.float32(offset)
    ours = min(fit(points, n_clusters, n_init=5, random_state=s).details["inertia"] for s in (0, 1))
    theirs = KMeans(n_clusters, n_init=10, random_state=0).fit(points.astype(np.float64)).inertia_

    assert ours <= 1.01 * theirs


def test_well_separated_groups_are_found():
    points, which = mixture(spread=0.2)

    labels = fit(points, 10).labels

    pairs = set(zip(labels.tolist(), which.tolist(), strict=True))
    assert len(pairs) == 10


def test_more_points_than_the_seeding_sample_are_clustered_as_well():
    points, which = mixture(n_points=12_000, spread=0.2, seed=3)

    labels = fit(points, 10).labels

    assert len(set(zip(labels.tolist(), which.tolist(), strict=True))) == 10


def test_labels_and_inertia_belong_together():
    points, _ = mixture()

    result = fit(points, 9, max_iter=300, tol=0)

    assert result.details["converged"]
    assert result.details["inertia"] == pytest.approx(inertia_of(points, result.labels), rel=1e-4)


def test_each_point_is_in_the_group_of_its_nearest_mean_at_convergence():
    points, _ = mixture(n_points=5_000)
    labels = fit(points, 25, tol=0).labels
    means = np.array([points[labels == g].mean(axis=0) for g in range(25)])

    squares = np.square(points[:, None, :] - means[None]).sum(axis=2)
    own = squares[np.arange(len(points)), labels]

    assert (own <= squares.min(axis=1) * (1 + 1e-4) + 1e-4).all()


def test_groups_are_numbered_by_size():
    points, _ = mixture()

    result = fit(points, 10)
    sizes = np.bincount(result.labels)

    assert result.n_clusters == 10
    assert result.labels.dtype == np.int32
    assert (np.diff(sizes) <= 0).all()


def test_a_seed_gives_the_same_labels_whatever_the_threads():
    points, _ = mixture(n_points=9_000)

    one = fit(points, 40, n_threads=1)
    three = fit(points, 40, n_threads=3)

    assert np.array_equal(one.labels, three.labels)
    assert one.details == three.details


def test_another_seed_gives_other_labels():
    points, _ = mixture(spread=4.0)

    assert not np.array_equal(
        fit(points, 20, random_state=1).labels, fit(points, 20, random_state=2).labels
    )


def test_more_starts_are_never_worse():
    points, _ = mixture(spread=3.0)

    once = fit(points, 30, init="random", n_init=1, max_iter=5)
    often = fit(points, 30, init="random", n_init=6, max_iter=5)

    assert often.details["inertia"] <= once.details["inertia"]


@pytest.mark.parametrize(("init", "used"), [("k-means++", 1), ("random", 10)])
def test_auto_starts_are_those_of_sklearn(init, used):
    points, _ = mixture(n_points=200)

    assert fit(points, 3, init=init).effective_params["n_init"] == used


def test_max_iter_is_held():
    points, _ = mixture(spread=4.0)

    result = fit(points, 20, max_iter=2)

    assert result.details["n_iter"] == 2
    assert result.details["converged"] is False


def test_one_point_is_one_group():
    result = fit(np.ones((1, 3), dtype=np.float32), 1)

    assert result.labels.tolist() == [0]
    assert result.details["inertia"] == 0


def test_one_group_holds_everything_around_the_mean():
    points, _ = mixture(n_points=500)

    result = fit(points, 1)

    assert not result.labels.any()
    variance = np.square(points - points.mean(axis=0, dtype=np.float64)).sum()
    assert result.details["inertia"] == pytest.approx(variance, rel=1e-5)


def test_as_many_groups_as_points_leave_no_distance():
    points = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)

    result = fit(points, 60)

    assert sorted(result.labels) == list(range(60))
    assert result.details["inertia"] == 0


def test_fewer_points_than_groups_are_refused_with_both_numbers():
    with pytest.raises(TooFewPointsError) as caught:
        fit(np.zeros((3, 2), dtype=np.float32), 4)

    assert (caught.value.n_points, caught.value.needed) == (3, 4)


@pytest.mark.parametrize("n_points", [50, 9_000])
def test_fewer_distinct_points_than_groups_give_one_group_each_and_a_note(n_points):
    distinct = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    which = np.arange(n_points) % 5
    result = fit(distinct[which], 8)

    assert result.n_clusters == 5
    assert "8 groups were asked for and 5 found" in result.notes[0]
    assert len(set(zip(result.labels.tolist(), which.tolist(), strict=True))) == 5
    assert result.details["inertia"] == pytest.approx(0, abs=1e-5)


def test_rare_distinct_points_that_a_sample_misses_are_found():
    points = np.zeros((20_000, 3), dtype=np.float32)
    points[[7, 9_000, 15_000]] = [[5, 0, 0], [0, 5, 0], [0, 0, 5]]

    result = fit(points, 4)

    assert np.bincount(result.labels).tolist() == [19_997, 1, 1, 1]


def test_all_points_alike_are_one_group():
    result = fit(np.full((100, 4), 3.5, dtype=np.float32), 2)

    assert result.n_clusters == 1
    assert result.notes


def test_constant_columns_change_nothing():
    points, _ = mixture(n_points=800, n_dims=4, spread=0.2)
    wide = np.hstack([points, np.full((len(points), 3), 1e5, dtype=np.float32)])

    plain, constant = fit(points, 10), fit(wide, 10)

    assert plain.details["inertia"] == pytest.approx(constant.details["inertia"], rel=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e30])
def test_magnitude_does_not_matter(scale):
    points, which = mixture(n_points=600, spread=0.2)

    result = fit(points * np.float32(scale), 10)

    assert len(set(zip(result.labels.tolist(), which.tolist(), strict=True))) == 10
    assert result.details["inertia"] == pytest.approx(
        inertia_of(points, result.labels) * float(np.float32(scale)) ** 2, rel=1e-3
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_refused_by_number(bad):
    points, _ = mixture(n_points=100)
    points[17, 3] = bad

    with pytest.raises(InvalidVectorsError, match="row 17"):
        fit(points, 3)


@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 0), (2, 2, 2)])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(InvalidVectorsError, match="shape"):
        fit(np.zeros(shape, dtype=np.float32), 1)


def test_the_input_is_not_changed():
    points, _ = mixture(n_points=500)
    points += 1_000
    before = points.copy()

    fit(points, 5)

    assert np.array_equal(points, before)


def test_progress_rises_to_one():
    points, _ = mixture(spread=3.0)
    shares: list[float] = []

    fit(points, 20, n_init=3, progress=shares.append)

    assert shares == sorted(shares)
    assert 0 < shares[0] < 1
    assert shares[-1] == 1.0


def test_many_groups_are_seeded_in_rounds():
    points = np.random.default_rng(5).normal(size=(4_000, 4)).astype(np.float32)

    result = fit(points, 1_500, max_iter=5)

    assert result.n_clusters == 1_500
    assert np.bincount(result.labels).min() >= 1
