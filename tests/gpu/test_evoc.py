"""EVoC through our door. Its package compiles for a minute in every process: one fit serves all."""

import numpy as np
import pytest
from gpu_mixtures import mixture
from sklearn.metrics import homogeneity_score

from gpu.backend import Backend
from gpu.clustering import fit
from gpu.errors import (
    InvalidParametersError,
    InvalidVectorsError,
    TooFewPointsError,
    UnsupportedOnDeviceError,
)
from gpu.evoc import evoc
from gpu.params import NOISE, EvocParams, parse_params

CPU = Backend("cpu", "a test")


@pytest.mark.timeout(600)  # The package's cache may be cold.
def test_groups_strength_and_layers_of_a_mixture():
    points, which = mixture(600, 24, 6, 1.0)
    params = parse_params("evoc", {"noise_level": 0.2}).params

    found = fit(points, method="evoc", params=params, metric="cosine", device="cpu")
    again = fit(points, method="evoc", params=params, metric="cosine", device="cpu")

    grouped = found.labels != NOISE
    assert grouped.mean() > 0.6
    # It may split a group, but does not mix them.
    assert homogeneity_score(which[grouped], found.labels[grouped]) > 0.95
    assert ((found.strength >= 0) & (found.strength <= 1)).all()
    assert found.details["layers"][found.details["chosen_layer"]] == found.n_clusters
    assert (found.labels == again.labels).all()


def test_the_number_of_points_it_needs_is_told():
    with pytest.raises(TooFewPointsError) as caught:
        evoc(np.ones((15, 3), dtype=np.float32), EvocParams(), backend=CPU)

    assert caught.value.needed == 16


def test_it_compares_directions_only():
    with pytest.raises(InvalidParametersError, match="cosine or dot"):
        fit(mixture()[0], method="evoc", params=EvocParams(), metric="euclidean")


def test_a_row_that_is_not_finite_is_refused_by_number():
    points, _ = mixture(n_points=50)
    points[7, 0] = np.nan

    with pytest.raises(InvalidVectorsError, match="row 7"):
        evoc(points, EvocParams(), backend=CPU)


def test_it_is_not_for_the_gpu():
    with pytest.raises(UnsupportedOnDeviceError, match="no GPU code"):
        evoc(mixture()[0], EvocParams(), backend=Backend("gpu", "a test"))
