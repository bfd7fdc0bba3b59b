"""Odd input gets the same answer from the GPU as from the CPU."""

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
