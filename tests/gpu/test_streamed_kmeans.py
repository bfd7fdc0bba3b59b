"""k-means over rows that pass through in blocks is k-means over all of them.

The array module is NumPy here; tests/gpu/test_strict_arrays.py holds the same code to CuPy's ways,
and tests/gpu_device to a device.
"""

import numpy as np
import pytest
from gpu_mixtures import mixture
from sklearn.metrics import adjusted_rand_score

from gpu.backend import Backend
from gpu.device_memory import STREAMED_PIECE_BYTES, streamed_bytes, streamed_piece_rows
from gpu.errors import TooFewPointsError
from gpu.kmeans import kmeans
from gpu.memory import estimate
from gpu.params import KMeansParams
from gpu.parts import Frame, Part, unit_for
from gpu.streamed_kmeans import StreamedPart, streamed_kmeans

CPU = Backend("cpu", "")
BLOCK_BYTES = 20_000


class StopError(Exception):
    """What a progress callback raises to end a fit."""


def streamed(points, params, block_bytes=BLOCK_BYTES, **how):
    return streamed_kmeans(points, params, xp=np, n_threads=1, block_bytes=block_bytes, **how)


def exact_inertia(points, labels):
    points = points.astype(np.float64)
    means = {group: points[labels == group].mean(axis=0) for group in np.unique(labels)}
    return sum(np.square(points[labels == g] - mean).sum() for g, mean in means.items())


@pytest.mark.parametrize("params", [{}, {"init": "random", "n_init": 2}, {"max_iter": 3}], ids=str)
@pytest.mark.parametrize("offset", [0, 3_000])
def test_it_finds_what_k_means_finds_with_all_rows_at_once(params, offset):
    points, _ = mixture(12_000, 16, n_groups=30, spread=1.5, seed=3)
    points += np.float32(offset)
    params = KMeansParams(n_clusters=30, **params)
    whole = kmeans(points, params, backend=CPU)

    found = streamed(points, params)

    assert found.inertia == pytest.approx(whole.details["inertia"], rel=1e-4)
    assert found.n_iter == whole.details["n_iter"]
    assert found.converged == whole.details["converged"]
    assert adjusted_rand_score(found.labels, whole.labels) > 0.999
    assert found.labels.dtype == np.int32
    if found.converged:
        assert found.inertia == pytest.approx(exact_inertia(points, found.labels), rel=1e-3)


def test_the_cut_into_blocks_changes_nothing_and_a_seed_gives_the_same():
    points, _ = mixture(8_000, 12, n_groups=20, seed=4)
    params = KMeansParams(n_clusters=20)

    first, again, other = (streamed(points, params, n) for n in (BLOCK_BYTES, BLOCK_BYTES, 5_000))

    assert np.array_equal(first.labels, again.labels)
    assert first.inertia == again.inertia
    assert np.array_equal(first.labels, other.labels)
    assert first.inertia == pytest.approx(other.inertia, rel=1e-6)


def test_empty_groups_are_filled_with_the_farthest_rows():
    points = np.random.default_rng(0).normal(0, 1e-3, (6_000, 4)).astype(np.float32)
    for row, at in ((10, 100), (2_500, 200), (5_900, -300)):
        points[row] = at
    params = KMeansParams(n_clusters=4, init="random", random_state=1)

    found = streamed(points, params)

    assert len(np.unique(found.labels)) == 4
    whole = kmeans(points, params, backend=CPU).details["inertia"]
    assert found.inertia == pytest.approx(whole, rel=0.05)


def test_fewer_distinct_rows_than_groups_give_one_group_each():
    points = np.repeat(np.eye(3, 8, dtype=np.float32), 2_000, axis=0)

    found = streamed(points, KMeansParams(n_clusters=5))

    assert len(np.unique(found.labels)) == 3
    assert found.inertia == 0


def test_fewer_rows_than_groups_are_refused():
    points, _ = mixture(50)

    with pytest.raises(TooFewPointsError):
        streamed(points, KMeansParams(n_clusters=51))


@pytest.mark.parametrize("frame", [None, Frame(np.linspace(-2, 2, 8), 3.0)], ids=["", "framed"])
def test_every_answer_is_that_of_a_part_that_is_held_whole(frame):
    points, _ = mixture(3_000, 8, n_groups=9, seed=5)
    rng = np.random.default_rng(1)
    centroids = points[rng.choice(3_000, 7, replace=False)]
    shifts, unit = np.full(7, 9.0, dtype=np.float32), unit_for(3_000, float(abs(points).max()))
    whole = Part(points.copy(), lambda work, items: [work(item) for item in items])
    part = StreamedPart(points, np, BLOCK_BYTES, 100, lambda: None)

    assert part.reach(np.full(8, 0.5)) == pytest.approx(whole.reach(np.full(8, 0.5)))
    whole.put_into(frame)
    part.frame = frame
    ours, theirs = part.moments(), whole.moments()
    assert (ours.n_rows, ours.largest) == (theirs.n_rows, pytest.approx(theirs.largest))
    assert ours.squares == pytest.approx(theirs.squares)
    np.testing.assert_allclose(ours.total, theirs.total, rtol=1e-9)
    rows = np.array([2, 3, 2_999])
    np.testing.assert_array_equal(part.take(rows), whole.take(rows))
    np.testing.assert_array_equal(part.distinct(20), whole.distinct(20))
    asked = [
        ("begin", (centroids, unit)),
        ("follow", (centroids + np.float32(0.1), shifts, unit)),
        ("move", (centroids, unit, rows, np.array([6, 0, 1]))),
    ]
    for question, details in asked:
        ours, theirs = getattr(part, question)(*details), getattr(whole, question)(*details)
        np.testing.assert_array_equal(ours.counts, theirs.counts, question)
        np.testing.assert_allclose(ours.sums * unit, theirs.sums * unit, rtol=1e-5, atol=1e-3)
        assert ours.n_changed == theirs.n_changed
    for ours, theirs in zip(part.farthest(centroids, 9), whole.farthest(centroids, 9), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    ours, theirs = part.finish(centroids), whole.finish(centroids)
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1] == pytest.approx(theirs[1], rel=1e-6)


def test_it_can_be_stopped_between_two_blocks():
    points, _ = mixture(8_000, 12, n_groups=20, spread=4.0)
    n_told = 0

    def stop_at_the_hundredth(share):
        nonlocal n_told
        n_told += 1
        if n_told == 100:
            raise StopError

    with pytest.raises(StopError):
        streamed(points, KMeansParams(n_clusters=20), progress=stop_at_the_hundredth)

    assert n_told == 100


def test_progress_is_told_with_each_block_and_never_falls():
    points, _ = mixture(8_000, 12, n_groups=20, spread=4.0)
    shares = []

    found = streamed(points, KMeansParams(n_clusters=20), progress=shares.append)

    n_blocks = -(-8_000 // (BLOCK_BYTES // 48))
    assert len(shares) >= n_blocks * (found.n_iter + 2)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0 < shares[-1] <= 1


def test_what_does_not_fit_at_once_is_estimated_for_blocks():
    params, shape = KMeansParams(n_clusters=1_000), (30_000_000, 768)
    whole = estimate("kmeans", *shape, params, "gpu")

    assert estimate("kmeans", *shape, params, "gpu", free=whole) == whole
    needed = estimate("kmeans", *shape, params, "gpu", free=whole - 1)
    assert needed == streamed_bytes(*shape, params)
    assert 4 * 30_000_000 < needed < whole / 100


@pytest.mark.parametrize(("n_dims", "n_clusters"), [(2, 2), (768, 1_000), (4_096, 100_000)])
def test_a_piece_takes_no_more_than_its_share(n_dims, n_clusters):
    rows = streamed_piece_rows(n_dims, n_clusters)

    assert 1 <= rows <= 8_192
    assert rows * n_clusters * 9 <= STREAMED_PIECE_BYTES
