"""Learned weights: noise gets none, groups get clearer, and no feature wins by its shape."""

import numpy as np
import pytest

from gpu.backend import Backend
from gpu.errors import TooFewPointsError
from gpu.feature_weights import learn_weights, simplified_silhouette
from gpu.features import concatenate
from gpu.kmeans import kmeans
from gpu.params import KMeansParams

N_POINTS = 1_200
CPU = Backend("cpu", "a test")


def mixture(which, n_dims, spread, seed):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(which.max() + 1, n_dims))
    return (centres[which] + spread * rng.normal(size=(len(which), n_dims))).astype(np.float32)


def noise(n_dims, seed):
    return np.random.default_rng(seed).normal(size=(N_POINTS, n_dims)).astype(np.float32)


@pytest.fixture(scope="module")
def six():
    return np.random.default_rng(0).integers(6, size=N_POINTS)


def agreement(blocks, weights, which, n_clusters):
    from sklearn.metrics import adjusted_rand_score

    points = concatenate(blocks, weights, normalize=True)
    labels = kmeans(points, KMeansParams(n_clusters=n_clusters, n_init=3), backend=CPU).labels
    return adjusted_rand_score(which, labels)


@pytest.mark.parametrize("n_clusters", [6, None])
@pytest.mark.parametrize("n_dims", [2, 3, 16, 48])
def test_a_noise_feature_gets_no_weight(six, n_dims, n_clusters):
    blocks = [mixture(six, 16, 1.0, seed=1), noise(n_dims, seed=2)]

    learned = learn_weights(blocks, n_clusters=n_clusters, sample_size=1_000)

    assert learned.weights[1] < 0.05
    assert learned.weights[0] > 0.95
    assert learned.quality > learned.equal.silhouette


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_learned_weights_find_the_groups_that_equal_ones_miss(six, n_dims):
    blocks = [mixture(six, 16, 1.0, seed=1), noise(n_dims, seed=2)]

    learned = learn_weights(blocks, n_clusters=6, sample_size=1_000)

    found = agreement(blocks, learned.weights, six, 6)
    assert found > agreement(blocks, (0.5, 0.5), six, 6) + 0.1
    assert found > 0.9


def test_scale_does_not_make_a_noise_feature_count(six):
    blocks = [mixture(six, 16, 0.8, seed=1), 1_000 * noise(2, seed=2)]

    learned = learn_weights(blocks, n_clusters=6, normalize=False, sample_size=1_000)

    noise_share = learned.weights[1] * 1_000 * np.sqrt(2)
    assert noise_share < 0.05 * learned.weights[0] * 4


def test_features_that_tell_different_groups_apart_are_both_used():
    rng = np.random.default_rng(3)
    first, second = rng.integers(2, size=(2, N_POINTS))
    blocks = [mixture(first, 8, 0.6, seed=4), mixture(second, 8, 0.6, seed=5)]

    learned = learn_weights(blocks, n_clusters=4, sample_size=1_000)

    assert min(learned.weights) > 0.2
    assert agreement(blocks, learned.weights, 2 * first + second, 4) > 0.9


def test_features_without_groups_count_alike():
    learned = learn_weights([noise(8, 0), noise(2, 1)], n_clusters=None, sample_size=1_000)

    assert learned.weights == (0.5, 0.5)
    assert any("count alike" in note for note in learned.notes)


def test_three_features_lose_only_the_noise(six):
    blocks = [mixture(six, 16, 1.2, seed=1), noise(4, seed=2), mixture(six, 16, 1.2, seed=3)]

    learned = learn_weights(blocks, n_clusters=6, sample_size=1_000)

    assert learned.weights[1] < 0.05
    assert min(learned.weights[0], learned.weights[2]) > 0.25


def test_the_search_repeats_itself_and_can_be_followed(six):
    blocks = [mixture(six, 8, 1.0, seed=1), noise(4, seed=2)]
    shares = []

    first = learn_weights(blocks, n_clusters=6, seed=7, sample_size=400, progress=shares.append)
    second = learn_weights(blocks, n_clusters=6, seed=7, sample_size=400)

    assert first == second
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert first.equal in first.trials
    assert all(sum(trial.weights) == pytest.approx(1, abs=1e-3) for trial in first.trials)


@pytest.mark.parametrize(
    "blocks",
    [
        [noise(3, 0)],
        [np.ones((N_POINTS, 4), dtype=np.float32), np.ones((N_POINTS, 2), dtype=np.float32)],
        [noise(1, 0), noise(1, 1)],
    ],
    ids=["one feature", "all the same", "one dimension each"],
)
def test_odd_features_get_weights_too(blocks):
    learned = learn_weights(blocks, n_clusters=None, sample_size=200)

    assert sum(learned.weights) == pytest.approx(1, abs=1e-3)
    assert -1 <= learned.quality <= 1


def test_too_few_documents_are_refused():
    with pytest.raises(TooFewPointsError):
        learn_weights([noise(3, 0)[:19]], n_clusters=2)


def test_simplified_silhouette_follows_its_definition():
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(60, 3)) + 100).astype(np.float32)
    labels = rng.integers(4, size=60).astype(np.int32)
    means = [points[labels == g].astype(float).mean(axis=0) for g in range(4)]
    expected = []
    for point, label in zip(points, labels, strict=True):
        apart = [float(np.linalg.norm(point - mean)) for mean in means]
        own = apart.pop(label)
        expected.append((min(apart) - own) / max(own, min(apart)))

    assert simplified_silhouette(points, labels) == pytest.approx(np.mean(expected), abs=1e-4)


def test_one_group_has_no_silhouette():
    assert simplified_silhouette(noise(2, 0), np.zeros(N_POINTS, dtype=np.int32)) == 0
