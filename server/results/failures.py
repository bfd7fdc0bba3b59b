"""What can go wrong while results are kept.

ShoalError
├── ArtifactError                a file of a run is damaged
└── RunFailure
    ├── OutputNameTakenError     somebody else's collection has the output's name
    └── OutputLostError          an output collection is not what was written

WriteStoppedError is no ShoalError: it is not a failure but the answer to a cancel.
"""

from __future__ import annotations

from server.errors import RunFailure, ShoalError


class ArtifactError(ShoalError):
    """A file of a run is missing, damaged or not where a run may write."""

    reason = "ARTIFACT_DAMAGED"


class OutputNameTakenError(RunFailure):
    """A collection that is not ours has the name that readers shall use."""

    reason = "OUTPUT_NAME_TAKEN"


class OutputLostError(RunFailure):
    """An output collection is not what was written: gone, or with other documents."""

    reason = "OUTPUT_LOST"


class WriteStoppedError(Exception):
    """The run was canceled while it wrote; what was written so far is not published."""
