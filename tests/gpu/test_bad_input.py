"""Odd input gets a clear answer from every method: groups that make sense, or what is wrong."""

import numpy as np
import pytest

from gpu.errors import HostMemoryError, TooFewPointsError
from gpu.params import parse_params
from tests.gpu_bad_input import INPUTS, METHODS, outcome


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_answer_is_groups_or_a_fault_in_plain_words(method, name, metric):
    found = outcome(method, INPUTS[name], metric, "cpu")

    if name in ("a NaN", "no rows", "float64") or (name == "all zeros" and metric == "cosine"):
        assert found[0] == "InvalidVectorsError"
        said = {"a NaN": "row 7", "no rows": "(0, 4)", "float64": "float64", "all zeros": "row 0"}
        assert said[name] in found[1]
    elif isinstance(found, tuple):
        # Full covariances of 100 000 dimensions fit no memory, and that is seen first.
        is_wide = (method, name) == ("gaussian_mixture", "1 x 100 000")
        assert found[0] == (HostMemoryError if is_wide else TooFewPointsError).__name__, found
        assert len(INPUTS[name]) < 3
    elif name == "duplicates only":
        # These two cut into as many parts as were asked for, whatever the points, as scikit-learn.
        assert found == 3 if method.startswith(("agglomerative", "spectral")) else found <= 1


@pytest.mark.parametrize(
    ("method", "sent"),
    [("kmeans", {"n_clusters": 41}), ("hdbscan", {"min_samples": 41})],
    ids=["more groups than points", "more samples than points"],
)
def test_both_numbers_are_named_when_points_are_too_few(monkeypatch, method, sent):
    monkeypatch.setitem(METHODS, method, sent)
    assert parse_params(method, sent).params

    kind, said = outcome(method, INPUTS["duplicates only"], "euclidean", "cpu")

    assert kind == "TooFewPointsError"
    assert "40" in said
    assert "41" in said


@pytest.mark.parametrize("method", ["kmeans", "agglomerative, single"])
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e25])
def test_the_unit_of_the_coordinates_does_not_matter(method, scale):
    vectors = INPUTS["constant columns"] * np.float32(scale)

    assert outcome(method, vectors, "euclidean", "cpu") == 3
