"""Failures of keeping results travel from the worker process, with their facts."""

from __future__ import annotations

import pickle

import pytest

from server.errors import RunFailure, ShoalError
from server.results.failures import (
    ArtifactError,
    OutputLostError,
    OutputNameTakenError,
    WriteStoppedError,
)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ArtifactError, "ARTIFACT_DAMAGED"),
        (OutputNameTakenError, "OUTPUT_NAME_TAKEN"),
        (OutputLostError, "OUTPUT_LOST"),
    ],
)
def test_a_failure_survives_the_way_between_processes(kind, reason):
    error = pickle.loads(pickle.dumps(kind("what happened", collection="docs")))
    assert type(error) is kind
    assert (str(error), error.reason) == ("what happened", reason)
    assert error.metadata == {"collection": "docs"}


def test_a_lost_output_is_the_runs_failure_but_a_cancel_is_none():
    assert issubclass(OutputLostError, RunFailure)
    assert not issubclass(WriteStoppedError, ShoalError)
    assert str(pickle.loads(pickle.dumps(WriteStoppedError("stopped")))) == "stopped"
