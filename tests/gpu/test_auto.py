"""auto finds groups that are there, says that there are none where there are none, and says why."""

import numpy as np
import pytest
from gpu_mixtures import mixture
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from gpu.clustering import fit
from gpu.errors import InvalidVectorsError
from gpu.params import NOISE, AutoParams, parse_params
from gpu.sampling import assign_rest
from gpu.summary import summarize


def run(points, metric="euclidean", seed=42, progress=None):
    return fit(
        points,
        method="auto",
        params=AutoParams(random_state=seed),
        metric=metric,
        device="cpu",
        progress=progress,
    )


@pytest.mark.parametrize(
    ("n_groups", "n_dims", "n_points", "spread"),
    [(3, 2, 900, 0.6), (5, 10, 1_500, 1.0), (12, 50, 2_000, 1.0), (20, 100, 2_000, 2.0)],
)
def test_a_mixture_is_found_as_it_was_drawn(n_groups, n_dims, n_points, spread):
    points, which = mixture(n_points, n_dims, n_groups, spread, seed=n_groups)

    found = run(points)

    assert found.n_clusters == n_groups
    assert adjusted_rand_score(which, found.labels) >= 0.95


def test_a_mixture_of_directions_is_found():
    points, which = mixture(1_500, 32, 10, 1.5, seed=5)
    lengths = np.random.default_rng(0).uniform(0.1, 10, size=(len(points), 1))

    found = run((points * lengths).astype(np.float32), metric="cosine")

    assert adjusted_rand_score(which, found.labels) >= 0.95


def test_groups_of_unequal_size_are_found():
    sizes = [1_200, 600, 250, 100]
    rng = np.random.default_rng(1)
    which = np.repeat(range(4), sizes)
    points = rng.normal(size=(4, 16))[which] * 4 + rng.normal(size=(len(which), 16))

    assert adjusted_rand_score(which, run(points.astype(np.float32)).labels) >= 0.95


def test_shapes_that_are_not_round_are_found_by_their_gaps():
    from sklearn.datasets import make_moons

    points, which = make_moons(800, noise=0.05, random_state=0)

    found = run(points.astype(np.float32))

    assert found.details["chosen_method"] == "hdbscan"
    assert adjusted_rand_score(which, found.labels) >= 0.95


def test_touching_blobs_are_compact_groups():
    points, which = mixture(1_500, 2, 4, 1.0, seed=0, apart=0.0)
    points += np.array([[0, 0], [5.4, 0], [0, 5.4], [5.4, 5.4]], dtype=np.float32)[which]

    found = run(points)

    assert found.details["chosen_method"] == "kmeans"
    assert found.details["chosen_params"]["n_clusters"] == 4
    assert adjusted_rand_score(which, found.labels) >= 0.95


@pytest.mark.parametrize("shape", [(1_500, 1), (1_500, 2), (1_000, 10), (600, 64)])
def test_uniform_noise_has_no_groups(shape):
    points = np.random.default_rng(0).random(shape).astype(np.float32)

    found = run(points)

    assert found.n_clusters == 0
    assert (found.labels == NOISE).all()
    assert any("there are no groups" in note for note in found.notes)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_cloud_has_no_groups(metric):
    points = np.random.default_rng(3).normal(size=(1_000, 24)).astype(np.float32)

    assert run(points, metric).n_clusters == 0


def overlapping(n_points=2_000, seed=0):
    """Many groups without gaps: spread as wide as their centres are apart, in a few directions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(25, 12))
    which = rng.integers(25, size=n_points)
    inside = centres[which] + 0.55 * rng.normal(size=(n_points, 12))
    points = np.hstack([inside, 0.3 * rng.normal(size=(n_points, 40))])
    return points.astype(np.float32), which


@pytest.fixture(scope="module")
def communities():
    points, which = overlapping()
    return points, which, run(points)


def test_overlapping_groups_are_communities_and_the_unsure_are_left_out(communities):
    _, which, found = communities
    grouped = found.labels != NOISE

    assert found.details["chosen_method"] == "graph_communities"
    assert 0.5 < grouped.mean() < 1
    assert adjusted_rand_score(which[grouped], found.labels[grouped]) > 0.6
    assert (found.strength[grouped] > 0.5).all()
    assert (found.strength[~grouped] <= 0.5).all()


def test_the_nearest_group_is_named_for_every_point(communities):
    _, which, found = communities
    grouped = found.labels != NOISE

    assert (found.nearest[grouped] == found.labels[grouped]).all()
    assert (found.nearest != NOISE).mean() > 0.99
    # The unsure ones are placed far better than by chance.
    assert adjusted_rand_score(which[~grouped], found.nearest[~grouped]) > 0.2


def test_the_nearest_group_is_truer_than_the_nearest_centroid():
    # Members differ most in directions in which groups do not differ at all.
    points, which = overlapping()
    points[:, 12:18] *= 4

    found = run(points)

    left = found.labels == NOISE
    centroids = summarize(points, found.labels, metric="euclidean").centroids
    by_centroid = assign_rest(points[left], centroids, None, "euclidean")
    own = adjusted_mutual_info_score(which[left], found.nearest[left])
    assert own > adjusted_mutual_info_score(which[left], by_centroid) + 0.05


def test_points_beyond_the_sample_join_the_groups_of_the_sample(communities, monkeypatch):
    points, _, whole = communities
    monkeypatch.setattr("gpu.auto.MOST_POINTS", 1_500)

    part = run(points)
    both = (part.labels != NOISE) & (whole.labels != NOISE)

    assert part.details["chosen_method"] == "graph_communities"
    assert both.mean() > 0.5
    assert adjusted_rand_score(whole.labels[both], part.labels[both]) > 0.7


def test_gaps_hold_beyond_the_sample(monkeypatch):
    monkeypatch.setattr("gpu.auto.MOST_POINTS", 500)
    points, which = mixture(1_500, 8, 5, 0.5)

    assert adjusted_rand_score(which, run(points).labels) == 1


def test_what_was_chosen_is_told_with_the_reasons():
    points, _ = mixture(900, 10, 5)

    found = run(points)

    assert found.effective_params["chosen_method"] == found.details["chosen_method"]
    assert found.details["chosen_params"]
    assert "principal components" in found.notes[0]
    assert found.notes[-1].startswith("chosen: ")
    assert found.notes == found.details["reasons"]


def test_a_seed_gives_the_same_groups_again(communities):
    points, _, found = communities

    assert (run(points).labels == found.labels).all()


def test_progress_rises_to_one():
    shares: list[float] = []

    run(overlapping(1_000)[0], progress=shares.append)

    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("n_points", [1, 5, 19])
def test_too_few_points_are_no_groups(n_points):
    found = run(np.random.default_rng(0).normal(size=(n_points, 4)).astype(np.float32))

    assert found.n_clusters == 0
    assert "too few" in found.notes[0]


def test_points_that_are_all_the_same_are_one_group():
    found = run(np.full((50, 3), 0.5, dtype=np.float32))

    assert found.n_clusters == 1
    assert "the same" in found.notes[0]


def test_duplicates_of_a_few_points_are_groups():
    points = np.repeat(np.random.default_rng(0).normal(size=(4, 6)), 40, axis=0)

    assert run(points.astype(np.float32)).n_clusters == 4


def test_a_row_that_is_not_finite_is_refused_by_number():
    points, _ = mixture(100)
    points[7, 0] = np.nan

    with pytest.raises(InvalidVectorsError, match="row 7"):
        run(points)


def test_parameters_of_methods_are_ignored_with_a_warning():
    parsed = parse_params("auto", {"n_clusters": 5, "random_state": 1})

    assert parsed.params == AutoParams(1)
    assert "n_clusters is ignored" in parsed.warnings[0]


def test_compact_groups_have_an_elbow_that_bends_where_they_are():
    rng = np.random.default_rng(3)
    centers = 4.2 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    points = (centers[:, None] + rng.normal(size=(4, 400, 2))).reshape(-1, 2).astype(np.float32)

    found = run(points)
    curve = dict(zip(*(found.details["elbow"][n] for n in ("n_clusters", "inertia")), strict=True))

    assert found.details["chosen_method"] == "kmeans"
    assert 4 in curve
    assert curve[1] / curve[4] > 3 * curve[4] / curve[8]
    assert "condensed_tree" not in found.details


def test_gaps_have_a_tree_that_names_the_groups_by_their_size():
    sizes = [100, 600, 250]
    rng = np.random.default_rng(1)
    which = np.repeat(range(3), sizes)
    points = rng.normal(size=(3, 8))[which] * 12 + rng.normal(size=(len(which), 8))

    found = run(points.astype(np.float32))
    tree = found.details["condensed_tree"]
    selected = {g: size for g, size in zip(tree["group"], tree["size"], strict=True) if g != NOISE}

    assert found.details["chosen_method"] == "hdbscan"
    assert [selected[group] for group in range(3)] == sorted(selected.values(), reverse=True)
    assert sorted(selected) == [0, 1, 2]
