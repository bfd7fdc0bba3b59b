"""Concatenation: distances add up by squared weights, and bad blocks are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.errors import InvalidVectorsError
from gpu.features import concatenate


def block(n_points, n_dims, seed):
    return np.random.default_rng(seed).normal(size=(n_points, n_dims)).astype(np.float32)


def squared(points):
    points = points.astype(float)
    return np.square(points[:, None] - points[None]).sum(axis=2)


@settings(max_examples=40, deadline=None)
@given(
    n_points=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    normalize=st.booleans(),
    data=st.data(),
)
def test_squared_distances_add_up_by_squared_weights(n_points, sizes, seed, normalize, data):
    blocks = [block(n_points, size, seed + i) for i, size in enumerate(sizes)]
    weights = [data.draw(st.floats(0.1, 5)) for _ in sizes]

    joined = concatenate(blocks, weights, normalize=normalize)

    parts = [b / np.linalg.norm(b, axis=1, keepdims=True) if normalize else b for b in blocks]
    expected = sum(w**2 * squared(p) for w, p in zip(weights, parts, strict=True))
    assert joined.shape == (n_points, sum(sizes))
    assert joined.dtype == np.float32
    assert joined.flags.c_contiguous
    np.testing.assert_allclose(squared(joined), expected, rtol=1e-3, atol=1e-4)


def test_normalized_rows_all_have_the_same_length():
    joined = concatenate([block(20, 3, 0), block(20, 8, 1) * 100], [3, 4], normalize=True)

    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 5, rtol=1e-5)


def test_a_weight_of_zero_leaves_the_feature_out():
    blocks = [block(20, 3, 0), block(20, 8, 1)]

    assert np.array_equal(concatenate(blocks, [1, 0], normalize=False), blocks[0])


def test_features_of_different_documents_are_refused():
    with pytest.raises(InvalidVectorsError, match=r"\[19, 20\]"):
        concatenate([block(20, 3, 0), block(19, 3, 1)], [1, 1], normalize=True)


def test_a_zero_row_cannot_be_normalized_and_is_named():
    zero = block(20, 3, 0)
    zero[4] = 0

    with pytest.raises(InvalidVectorsError, match="row 4"):
        concatenate([block(20, 3, 1), zero], [1, 1], normalize=True)


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0]])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        concatenate([block(5, 3, 0), block(5, 3, 1)], weights, normalize=True)
