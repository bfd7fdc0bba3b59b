"""What can go wrong in the service, in the caller's words. Knows nothing of gRPC.

ShoalError
├── InvalidRequestError          the request itself is wrong; carries every violation
├── UnauthenticatedError         no key, or one that is not known
├── ForbiddenError               a key without the role or the namespace
├── NotFoundError                names the kind and the id that is not there
│   └── ClusterNotFoundError
├── AlreadyExistsError
│   ├── ClusterNameTakenError
│   └── RequestIdTakenError
├── PreconditionError            the state forbids it; carries the state
├── QuotaError                   a limit was met; says when to try again
├── UnavailableError             a backing store is away; says when to try again
│   └── ServerStoppingError
├── ConflictError                two writers met; the caller may repeat the call
└── RunFailure                   why a run ended as failed (never the answer of a call)

`api/errors.py` maps each class to a gRPC status. `reason` is part of the API: clients
branch on it, so it never changes; `docs/errors.md` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Violation:
    """One fault of a request: where it is, what was sent, and what is allowed."""

    field: str
    description: str


class ShoalError(Exception):
    """Base of all errors that a caller may see.

    Parameters
    ----------
    message : str
        What happened, with the facts, and what the caller can do.
    **facts
        Kept as attributes and sent as ``google.rpc.ErrorInfo`` metadata.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        """Pickle with the facts, so that errors survive the way from the worker process."""
        return _rebuild, (type(self), self.message, self.__dict__)

    @property
    def metadata(self) -> dict[str, str]:
        """The facts as text, for the error details of an answer."""
        return {name: str(value) for name, value in self.facts.items() if value is not None}


def _rebuild(cls: type[ShoalError], message: str, state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InvalidRequestError(ShoalError):
    """The request is wrong; `violations` lists every fault, not only the first."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation], **facts: Any) -> None:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        super().__init__(text or "the request is not valid", **facts)
        self.violations = tuple(violations)


class UnauthenticatedError(ShoalError):
    """The call carries no key, or one that this server does not know."""

    reason = "UNAUTHENTICATED"


class ForbiddenError(ShoalError):
    """The key is known but lacks the role or the namespace for this call."""

    reason = "FORBIDDEN"


class NotFoundError(ShoalError):
    """What the call names does not exist in the caller's namespace."""

    reason = "NOT_FOUND"

    def __init__(self, kind: str, name: str, hint: str = "", **facts: Any) -> None:
        message = f"{kind} {name!r} does not exist" + (f"; {hint}" if hint else "")
        super().__init__(message, kind=kind, name=name, **facts)
        self.kind = kind
        self.name = name


class ClusterNotFoundError(NotFoundError):
    """No cluster of that id or name in the caller's namespace."""

    reason = "CLUSTER_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__("cluster", name, "see ListClusters for those there are")


class AlreadyExistsError(ShoalError):
    """A name, or a request id with another body, is already taken."""

    reason = "ALREADY_EXISTS"


class ClusterNameTakenError(AlreadyExistsError):
    """Another cluster of the namespace has that name."""

    reason = "CLUSTER_NAME_TAKEN"


class RequestIdTakenError(AlreadyExistsError):
    """The request id was used before, within 24 hours, with another body."""

    reason = "REQUEST_ID_TAKEN"


class PreconditionError(ShoalError):
    """The call is right but the present state forbids it; `state` says which."""

    reason = "FAILED_PRECONDITION"


class QuotaError(ShoalError):
    """A limit was met. `retry_after_s` says when another try may pass."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, message: str, *, retry_after_s: float = 5.0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after_s = retry_after_s


class UnavailableError(ShoalError):
    """A store that the call needs does not answer. `retry_after_s`: when to try again."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_s: float = 2.0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after_s = retry_after_s


class ServerStoppingError(UnavailableError):
    """This server is stopping and takes no new runs; call again, another one answers."""

    reason = "SERVER_STOPPING"


class ConflictError(ShoalError):
    """Somebody else changed the record in between; repeat the call."""

    reason = "CONFLICT"


class RunFailure(ShoalError):
    """A run cannot go on, for a reason its owner can understand and mend."""

    reason = "RUN_FAILED"
