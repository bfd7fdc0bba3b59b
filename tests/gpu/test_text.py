"""Embedding texts without a model: what is near, and the edges."""

from __future__ import annotations

import numpy as np
import pytest

from gpu.text import embed_texts

SEA = ["whales swim in the deep ocean", "dolphins swim in the ocean", "the ocean is deep, whales"]
LAW = ["the court heard the appeal", "the judge of the court ruled", "judge and court of appeal"]
MONEY = ["banks lend money", "money of banks earns interest", "banks pay interest on money"]
TEXTS = SEA + LAW + MONEY


def test_texts_on_one_subject_are_nearer_than_others():
    vectors = embed_texts(TEXTS, n_dims=3)
    similarity = vectors @ vectors.T
    subject = np.repeat([0, 1, 2], 3)
    same = subject[:, None] == subject

    assert similarity[same].min() > similarity[~same].max()


def test_rows_have_length_one_and_repeat_with_the_seed():
    vectors = embed_texts(TEXTS, n_dims=4)

    assert vectors.shape == (9, 4)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embed_texts(TEXTS, n_dims=4), vectors, atol=1e-5)


def test_a_text_without_words_that_count_is_a_row_of_zeros():
    vectors = embed_texts([*TEXTS, "", "the and of", "zyzzyva"], n_dims=4)

    assert not vectors[9:].any()
    assert (np.linalg.norm(vectors[:9], axis=1) > 0.99).all()


def test_more_dimensions_than_words_leaves_zeros():
    vectors = embed_texts(["red green", "red green", "blue red", "blue green"], n_dims=50)

    assert vectors.shape == (4, 50)
    assert not vectors[:, 3:].any()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("texts", [[], ["", ""], ["the", "of"], ["alone"]])
def test_nothing_to_embed_is_no_error(texts: list[str]):
    vectors = embed_texts(texts, n_dims=5)

    assert vectors.shape == (len(texts), 5)
    assert not vectors.any()


def test_dimensions_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        embed_texts(TEXTS, n_dims=0)
