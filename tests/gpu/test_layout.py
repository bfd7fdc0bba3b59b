"""The map: near rows stay near, seeds and earlier maps hold it still, odd input has a place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness

from gpu.backend import Backend
from gpu.errors import InvalidParametersError, InvalidVectorsError
from gpu.layout import align, layout

CPU = Backend("cpu", "a test")


def laid_out(vectors, *, metric="euclidean", **more):
    return layout(vectors, metric=metric, backend=CPU, **more)


def turned(places, angle, scale=1.0, shift=(0.0, 0.0), mirror=False):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.diag([-1.0 if mirror else 1.0, 1.0])
    return (places @ flip @ turn * scale + np.array(shift)).astype(np.float32)


@pytest.mark.timeout(300)
def test_neighbours_stay_near_and_an_earlier_map_is_met():
    pytest.importorskip("umap", exc_type=ImportError)
    # One test for all of UMAP: its first fit compiles for some twenty seconds.
    rng = np.random.default_rng(0)
    which = np.repeat([0, 1, 2], 60)
    points = (4 * np.eye(10)[which] + rng.normal(0, 0.4, size=(180, 10))).astype(np.float32)
    shares = []

    first = laid_out(points, metric="cosine", n_landmarks=90, progress=shares.append)
    earlier = turned(first, 2.0, scale=3.0, shift=(50, -7), mirror=True)
    earlier[::3] = np.nan
    second = laid_out(points, metric="cosine", n_landmarks=90, previous=earlier)

    assert trustworthiness(points, first, n_neighbors=10, metric="cosine") > 0.85
    distances = np.linalg.norm(first[:, None] - first[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (which[distances.argmin(axis=1)] == which).all()
    known = np.isfinite(earlier).all(axis=1)
    # Alike to rounding also says that the same seed gave the same map.
    np.testing.assert_allclose(second[known], earlier[known], atol=1e-3)
    assert first.dtype == np.float32
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-4)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    angle=st.floats(0, 6.3),
    scale=st.floats(0.1, 10),
    mirror=st.booleans(),
    n_shared=st.integers(3, 30),
)
def test_alignment_recovers_any_turned_scaled_and_moved_map(seed, angle, scale, mirror, n_shared):
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(30, 2)).astype(np.float32)
    wanted = turned(places, angle, scale, rng.normal(size=2), mirror)
    previous = wanted.copy()
    previous[rng.permutation(30)[n_shared:]] = np.nan

    np.testing.assert_allclose(align(places, previous), wanted, atol=1e-3 * max(scale, 1))


def test_alignment_works_in_three_dimensions():
    rng = np.random.default_rng(1)
    places = rng.normal(size=(20, 3)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    wanted = (places @ turn * 2 + 5).astype(np.float32)

    np.testing.assert_allclose(align(places, wanted), wanted, atol=1e-4)


def test_without_shared_rows_a_map_stays_and_with_one_it_only_moves():
    places = np.array([[0, 0], [1, 0], [0, 2]], dtype=np.float32)
    unknown = np.full((3, 2), np.nan, dtype=np.float32)
    one_known = unknown.copy()
    one_known[1] = (4, 4)

    assert align(places, unknown) is places
    np.testing.assert_allclose(align(places, one_known), places + np.array([3, 4]))


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("n_points", [1, 2, 3, 15])
def test_few_points_lie_as_far_apart_as_their_main_directions_say(n_points, n_dims):
    rng = np.random.default_rng(n_points)
    points = np.zeros((n_points, 6), dtype=np.float32)
    points[:, 2] = 100 + rng.normal(size=n_points)

    places = laid_out(points, n_dims=n_dims)

    assert places.shape == (n_points, n_dims)
    between = np.abs(points[:, None, 2] - points[None, :, 2])
    np.testing.assert_allclose(
        np.linalg.norm(places[:, None] - places[None], axis=2), between, atol=1e-4
    )


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_duplicates_share_a_place(metric):
    kinds = np.eye(3, 5, dtype=np.float32)
    all_same = laid_out(np.tile(kinds[:1], (500, 1)), metric=metric)
    three = laid_out(kinds[np.arange(300) % 3], metric=metric, n_landmarks=50)

    assert not all_same.any()
    assert len(np.unique(three.round(4), axis=0)) == 3
    np.testing.assert_allclose(three[:3], three[297:], atol=1e-5)


def test_cosine_looks_at_directions_alone():
    points = np.random.default_rng(2).normal(size=(10, 4)).astype(np.float32)
    longer = points * np.arange(1, 11, dtype=np.float32)[:, None]

    np.testing.assert_allclose(
        laid_out(points, metric="cosine"), laid_out(longer, metric="cosine"), atol=1e-5
    )


def test_rows_that_are_no_landmarks_lie_among_their_nearest():
    ends = np.array([[0, 0], [10, 0]], dtype=np.float32)
    points = np.concatenate([np.repeat(ends, 20, axis=0), [[1, 0], [9, 0]]]).astype(np.float32)

    places = laid_out(points, n_landmarks=6, seed=3)[:, 0]

    # Of two landmarks the nearer one weighs 81 times as much.
    low, high = sorted({round(float(x), 3) for x in places[:40]})
    near_low, near_high = sorted(places[40:])
    assert low < near_low < low + 0.2 < high - 0.2 < near_high < high


def test_the_seed_decides():
    points = np.random.default_rng(4).normal(size=(400, 5)).astype(np.float32)

    first, again, other = (laid_out(points, n_landmarks=12, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bad_input_is_refused_with_words():
    points = np.ones((4, 3), dtype=np.float32)
    with pytest.raises(InvalidParametersError, match="n_dims"):
        laid_out(points, n_dims=4)
    with pytest.raises(InvalidParametersError, match="n_landmarks"):
        laid_out(points, n_landmarks=0)
    with pytest.raises(InvalidVectorsError, match=r"\(3, 2\), expected \(4, 2\)"):
        laid_out(points, previous=np.zeros((3, 2), dtype=np.float32))
    points[1, 1] = np.nan
    with pytest.raises(InvalidVectorsError, match="row 1"):
        laid_out(points)
    with pytest.raises(InvalidVectorsError, match="zero"):
        laid_out(np.zeros((4, 3), dtype=np.float32), metric="cosine")
