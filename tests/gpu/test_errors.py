"""Errors cross a process boundary whole, and say what happened with the numbers."""

import pickle

import pytest

from gpu import errors
from gpu.errors import (
    ClusteringError,
    DeviceFailedError,
    DeviceMemoryError,
    DeviceUnavailableError,
    HostMemoryError,
    InvalidParametersError,
    InvalidVectorsError,
    TooFewPointsError,
    UnsupportedOnDeviceError,
    Violation,
)

EXAMPLES = [
    InvalidVectorsError("row 3 is not finite"),
    InvalidParametersError([Violation("tol", "-1", "must be a finite number of at least 0")]),
    TooFewPointsError(n_points=3, needed=8),
    HostMemoryError(needed_bytes=2_000, free_bytes=1_000, fits_points=7),
    DeviceUnavailableError(why="no NVIDIA driver"),
    DeviceMemoryError(needed_bytes=2_000, free_bytes=1_000),
    DeviceFailedError(why="RuntimeError: the solver did not converge"),
    UnsupportedOnDeviceError(parameter="min_samples", value=2_000, why="cuML takes 1 to 1,023"),
]


def subclasses(kind: type[ClusteringError]) -> set[type[ClusteringError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_every_error_that_can_be_raised_has_an_example():
    abstract = {ClusteringError, errors.DeviceError}
    assert {type(error) for error in EXAMPLES} == subclasses(ClusteringError) - abstract


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickling_keeps_type_message_and_fields(error):
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.reason == error.reason


def test_reasons_are_distinct_and_do_not_change():
    assert {type(error).__name__: error.reason for error in EXAMPLES} == {
        "InvalidVectorsError": "INVALID_VECTORS",
        "InvalidParametersError": "INVALID_PARAMETERS",
        "TooFewPointsError": "TOO_FEW_POINTS",
        "HostMemoryError": "HOST_MEMORY",
        "DeviceUnavailableError": "DEVICE_UNAVAILABLE",
        "DeviceMemoryError": "DEVICE_MEMORY",
        "DeviceFailedError": "DEVICE_FAILED",
        "UnsupportedOnDeviceError": "UNSUPPORTED_ON_DEVICE",
    }


def test_a_memory_error_says_how_many_points_would_fit():
    message = str(HostMemoryError(needed_bytes=2_000_000, free_bytes=1_000, fits_points=1_234))

    assert "2,000,000" in message
    assert "1,234 points would fit" in message
