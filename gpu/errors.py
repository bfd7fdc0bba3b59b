"""What can go wrong in a clustering, as one tree::

    ClusteringError
    ├── InvalidVectorsError        the matrix itself cannot be clustered
    ├── InvalidParametersError     the parameters can never work; lists every fault
    ├── TooFewPointsError          the parameters need more points than there are
    ├── HostMemoryError            the fit does not fit into this machine's memory
    └── DeviceError                the GPU cannot do it; with device "auto" the CPU does
        ├── DeviceUnavailableError     there is no usable GPU
        ├── DeviceMemoryError          the GPU has too little free memory
        ├── UnsupportedOnDeviceError   the GPU library lacks this method or value
        └── DeviceFailedError          the GPU library gave up for another reason

A `reason` is part of the API: clients branch on it, so it never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


def _rebuild(
    kind: type[ClusteringError], args: tuple[object, ...], state: dict[str, object]
) -> ClusteringError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ClusteringError(Exception):
    """Base of all errors of `gpu`; never raised itself."""

    reason: ClassVar[str] = "CLUSTERING"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with its message, which keyword-only constructors refuse;
        # errors cross a process boundary on their way out of a worker.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class InvalidVectorsError(ClusteringError):
    """The vectors are not a matrix of usable rows."""

    reason = "INVALID_VECTORS"


@dataclass(frozen=True)
class Violation:
    """One fault in the parameters.

    Attributes
    ----------
    path : str
        Name of the parameter, or ``clustering_method``, ``metric``.
    sent : str
        What was sent, as JSON, shortened when long.
    allowed : str
        What would be taken, in plain words.
    """

    path: str
    sent: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path} = {self.sent}: {self.allowed}"


class InvalidParametersError(ClusteringError):
    """Parameters that no data could make work; holds every fault, not only the first."""

    reason = "INVALID_PARAMETERS"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(str(violation) for violation in violations))
        self.violations = list(violations)


class TooFewPointsError(ClusteringError):
    """The parameters ask for more points than there are."""

    reason = "TOO_FEW_POINTS"

    def __init__(self, *, n_points: int, needed: int) -> None:
        super().__init__(
            f"{n_points:,} points are too few, these parameters need at least {needed:,}; "
            "ask for fewer or smaller groups, or widen the filter"
        )
        self.n_points = n_points
        self.needed = needed


class HostMemoryError(ClusteringError):
    """The fit would need more memory than this machine has free."""

    reason = "HOST_MEMORY"

    def __init__(self, *, needed_bytes: int, free_bytes: int, fits_points: int) -> None:
        advice = (
            f"about {fits_points:,} points would fit, set sample_size to that or less"
            if fits_points
            else "not even one point would fit with these parameters; ask for fewer groups, "
            "components or neighbours, or give the worker more memory"
        )
        super().__init__(
            f"fit needs about {needed_bytes:,} bytes of memory, {free_bytes:,} are free; {advice}"
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.fits_points = fits_points


class DeviceError(ClusteringError):
    """The GPU cannot do this fit; never raised itself."""

    reason = "DEVICE"


class DeviceUnavailableError(DeviceError):
    """A GPU was demanded and none is usable."""

    reason = "DEVICE_UNAVAILABLE"

    def __init__(self, *, why: str) -> None:
        super().__init__(f"no usable GPU: {why}; use device auto or cpu")
        self.why = why


class DeviceMemoryError(DeviceError):
    """The fit needs more device memory than is free; a later try may succeed."""

    reason = "DEVICE_MEMORY"

    def __init__(self, *, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"fit needs about {needed_bytes:,} bytes on the device, {free_bytes:,} are free; "
            "cluster fewer points or retry later"
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class DeviceFailedError(DeviceError):
    """The GPU, its driver or its library gave up on this fit; the CPU may do it."""

    reason = "DEVICE_FAILED"

    def __init__(self, *, why: str) -> None:
        super().__init__(f"the GPU or its library failed: {why}; use device auto or cpu")
        self.why = why


class UnsupportedOnDeviceError(DeviceError):
    """The GPU library lacks a method or a value of a parameter."""

    reason = "UNSUPPORTED_ON_DEVICE"

    def __init__(self, *, parameter: str, value: object, why: str) -> None:
        super().__init__(f"{parameter} = {value!r} is not supported on the GPU: {why}")
        self.parameter = parameter
        self.value = value
        self.why = why
