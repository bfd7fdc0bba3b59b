"""Preprocessing: each step against its definition, the metric after it, and odd input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu import preprocess
from gpu.backend import Backend
from gpu.errors import DeviceMemoryError, InvalidVectorsError, TooFewPointsError
from gpu.params import METRICS
from gpu.preprocess import apply_steps
from gpu.steps import Normalize, Pca, Umap, Whitening, metric_after
from gpu.vectors import unit_rows

CPU = Backend("cpu", "a test")


def cloud(n_points=400, n_dims=6, seed=0, offset=3.0):
    """Correlated points off the origin, with spreads from 1 down to 1/n_dims."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0]
    points = rng.normal(size=(n_points, n_dims)) / np.arange(1, n_dims + 1) @ turn
    return (points + offset).astype(np.float32)


def run(vectors, *steps, metric="euclidean", progress=None):
    return apply_steps(vectors, steps, metric=metric, backend=CPU, progress=progress)


def apart(points):
    return np.linalg.norm(points[:, None].astype(float) - points[None].astype(float), axis=2)


def test_no_steps_give_the_vectors_themselves():
    points = cloud()

    prepared = run(points, metric="manhattan")

    assert prepared.vectors is points
    assert prepared.metric == "manhattan"


def test_hard_whitening_makes_the_covariance_the_identity():
    done = run(cloud(), Whitening(epsilon=1e-6)).vectors.astype(float)

    np.testing.assert_allclose(np.cov(done.T), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(done.mean(axis=0), 0, atol=1e-4)


def test_whitening_follows_its_formula_and_does_not_turn_the_axes():
    points = cloud().astype(np.float64)
    values, turn = np.linalg.eigh(np.cov(points.T))
    soft = turn @ np.diag((values + 0.5 * values.mean()) ** -0.5) @ turn.T

    done = run(points.astype(np.float32), Whitening(epsilon=0.5)).vectors

    np.testing.assert_allclose(done, (points - points.mean(axis=0)) @ soft, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_whitening_does_not_depend_on_the_scale(scale):
    plain = run(cloud(), Whitening()).vectors
    scaled = run(cloud() * np.float32(scale), Whitening()).vectors

    np.testing.assert_allclose(plain, scaled, atol=1e-3)


def test_larger_epsilon_evens_out_less():
    def unevenness(epsilon):
        values = np.linalg.eigvalsh(np.cov(run(cloud(), Whitening(epsilon)).vectors.T))
        return values.max() / values.min()

    shares = [unevenness(epsilon) for epsilon in (1e-6, 0.1, 1.0, 100.0)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(1, abs=0.01)


def test_whitening_keeps_cosine_and_looks_at_directions_only():
    points = cloud()
    stretched = points * np.linspace(0.5, 2, len(points), dtype=np.float32)[:, None]

    done, same = (
        run(points, Whitening(), metric="cosine"),
        run(stretched, Whitening(), metric="dot"),
    )

    assert (done.metric, same.metric) == ("cosine", "cosine")
    np.testing.assert_allclose(done.vectors, same.vectors, atol=1e-3)


@pytest.mark.parametrize("n_dims", [1, 5])
def test_equal_vectors_are_not_blown_up(n_dims):
    points = np.full((20, n_dims), 0.1, dtype=np.float32)

    done = run(points, Whitening(), Pca(2, whiten=True))

    assert np.isfinite(done.vectors).all()
    assert np.ptp(done.vectors, axis=0).max() < 1e-3
    assert "all vectors are the same" in done.notes[0]


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_agrees_with_sklearn(whiten):
    from sklearn.decomposition import PCA

    points = cloud()
    theirs = PCA(4, whiten=whiten, svd_solver="full").fit_transform(points.astype(float))

    ours = run(points, Pca(4, whiten=whiten)).vectors

    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)


@pytest.mark.parametrize("share", [0.3, 0.8, 0.95, 0.999])
def test_pca_keeps_the_fewest_directions_that_hold_the_share(share):
    from sklearn.decomposition import PCA

    points = cloud()
    theirs = PCA(share, svd_solver="full").fit(points.astype(float)).n_components_

    done = run(points, Pca(share))

    assert done.vectors.shape == (400, theirs)
    assert f"kept {theirs} of 6" in done.notes[0]


def test_pca_of_unit_rows_keeps_cosine_distances_as_euclidean_ones():
    points = cloud()
    done = run(points, Pca(6), metric="cosine")

    assert done.metric == "euclidean"
    np.testing.assert_allclose(apart(done.vectors), apart(unit_rows(points)), atol=1e-4)


def test_more_directions_than_dimensions_are_told():
    done = run(cloud(), Pca(50))

    assert done.vectors.shape == (400, 6)
    assert any("asked for 50" in note for note in done.notes)


def test_pca_far_from_the_origin_keeps_its_digits():
    near = cloud(offset=0.0)
    far = near + np.float32(1_000)

    np.testing.assert_allclose(apart(run(far, Pca(6)).vectors), apart(far.astype(float)), atol=1e-3)


def test_normalize_leaves_the_origin_in_place():
    points = np.array([[3, 4], [0, 0], [0, -2]], dtype=np.float32)

    done = run(points, Normalize())

    np.testing.assert_allclose(done.vectors, [[0.6, 0.8], [0, 0], [0, -1]], rtol=1e-6)
    assert "1 zero vectors" in done.notes[0]


def test_normalize_of_nothing_but_the_origin_changes_nothing():
    done = run(np.ones((1, 1), dtype=np.float32), Pca(3), Normalize())

    assert done.vectors.tolist() == [[0.0]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n_points=st.integers(1, 40),
    n_dims=st.integers(1, 12),
    seed=st.integers(0, 1_000),
    steps=st.lists(
        st.sampled_from([Normalize(), Whitening(), Whitening(1e-6), Pca(3), Pca(0.9, True)]),
        min_size=1,
        max_size=4,
    ),
    metric=st.sampled_from(["cosine", "euclidean", "dot"]),
)
def test_any_steps_give_finite_rows_usable_by_the_metric_after(
    n_points, n_dims, seed, steps, metric
):
    rng = np.random.default_rng(seed)
    points = rng.integers(1, 4, size=(n_points, n_dims)).astype(np.float32)
    before = points.copy()
    shares = []

    done = run(points, *steps, metric=metric, progress=shares.append)

    assert len(done.vectors) == n_points
    assert done.vectors.dtype == np.float32
    assert np.isfinite(done.vectors).all()
    assert done.metric in ("euclidean", "cosine")
    if done.metric == "cosine":
        assert done.vectors.any(axis=1).all()
    assert np.array_equal(points, before)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_order_matters():
    first = run(cloud(), Normalize(), Pca(2)).vectors
    second = run(cloud(), Pca(2), Normalize()).vectors

    np.testing.assert_allclose(np.linalg.norm(second, axis=1), 1, rtol=1e-5)
    assert not np.allclose(np.linalg.norm(first, axis=1), 1)


def test_rows_that_cannot_be_used_are_named():
    points = cloud()
    points[7, 2] = np.nan

    with pytest.raises(InvalidVectorsError, match="row 7"):
        run(points, Pca(2))


def test_umap_refuses_too_few_points_before_it_is_loaded():
    with pytest.raises(TooFewPointsError, match="at least 13"):
        run(cloud(12), Umap())


@pytest.mark.timeout(300)
def test_umap_keeps_groups_apart_and_repeats_itself():
    pytest.importorskip("umap", exc_type=ImportError)
    # One test for all of UMAP: its first fit compiles for some twenty seconds.
    rng = np.random.default_rng(0)
    which = np.repeat([0, 1, 2], 30)
    points = (5 * np.eye(8)[which] + 0.3 * rng.normal(size=(90, 8))).astype(np.float32)
    step = Umap(n_components=2, n_neighbors=200, random_state=3)

    first = run(points, Normalize(), step, metric="cosine")
    second = run(points, Normalize(), step, metric="cosine")

    assert first.metric == "euclidean"
    assert first.vectors.shape == (90, 2)
    assert np.array_equal(first.vectors, second.vectors)
    assert any("89 neighbours" in note for note in first.notes)
    distances = apart(first.vectors)
    np.fill_diagonal(distances, np.inf)
    assert (which[distances.argmin(axis=1)] == which).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "steps",
    [(), (Normalize(),), (Whitening(),), (Pca(2),), (Pca(2), Normalize()), (Normalize(), Pca(2))],
)
def test_the_metric_after_the_steps_is_known_before_them(metric, steps):
    assert run(cloud(), *steps, metric=metric).metric == metric_after(steps, metric)


@pytest.mark.parametrize("spare", [CPU, None], ids=["auto", "gpu"])
def test_a_step_that_the_gpu_has_no_memory_for_runs_on_the_cpu_where_one_may(monkeypatch, spare):
    def full_gpu(vectors, step, *, backend, **options):
        if backend.device == "gpu":
            raise DeviceMemoryError(needed_bytes=2_000, free_bytes=1_000)
        return vectors[:, :2], ["laid out"]

    monkeypatch.setattr(preprocess, "umap", full_gpu)
    gpu = Backend("gpu", "a test")

    def prepare():
        steps = (Normalize(), Umap(n_components=2))
        return apply_steps(cloud(), steps, metric="euclidean", backend=gpu, spare=spare)

    if spare is None:
        with pytest.raises(DeviceMemoryError):
            prepare()
        return
    prepared = prepare()
    assert prepared.vectors.shape == (400, 2)
    assert "umap ran on the CPU" in prepared.notes[0]
    assert "1,000 are free" in prepared.notes[0]
    assert prepared.notes[1:] == ["laid out"]
