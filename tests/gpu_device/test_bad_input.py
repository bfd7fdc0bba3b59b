"""Odd input gets the same answer from the GPU as from the CPU."""

import numpy as np
import pytest

from tests.gpu_bad_input import INPUTS, METHODS, outcome


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_answer_is_that_of_the_cpu(method, name, metric):
    # auto: what cuML lacks runs on the CPU, and is the same by that.
    found = outcome(method, INPUTS[name], metric, "auto")

    assert found == outcome(method, INPUTS[name], metric, "cpu")


@pytest.mark.parametrize(
    ("method", "sent"),
    [("kmeans", {"n_clusters": 41}), ("hdbscan", {"min_samples": 41})],
    ids=["more groups than points", "more samples than points"],
)
def test_too_few_points_are_told_in_the_same_words(monkeypatch, method, sent):
    monkeypatch.setitem(METHODS, method, sent)
    vectors = INPUTS["duplicates only"]

    assert outcome(method, vectors, "euclidean", "gpu") == outcome(
        method, vectors, "euclidean", "cpu"
    )


@pytest.mark.parametrize("method", ["kmeans", "hdbscan", "agglomerative, single"])
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_very_small_and_very_large_coordinates_get_the_answer_of_the_cpu(method, scale):
    vectors = INPUTS["constant columns"] * np.float32(scale)

    found = outcome(method, vectors, "euclidean", "auto")

    assert found == outcome(method, vectors, "euclidean", "cpu")
