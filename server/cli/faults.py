"""How commands fail: in words, with every fault listed, and with an exit code per kind.

Codes are for scripts and never change: 0 done; 1 the run failed or was canceled, or
doctor found a fault; 2 wrong
usage or a refused argument; 3 the server or a store does not answer; 4 not found; 5 the key
does not allow it; 6 the present state forbids it (a name that is taken, a run that is
active, a limit that is met); 7 a fault of shoal itself; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import typer
from typer.core import TyperGroup

from server.cli.console import stderr
from server.errors import InvalidRequestError, ShoalError, Violation

EXIT_FAILED = 1
EXIT_INVALID = 2
EXIT_UNAVAILABLE = 3
EXIT_NOT_FOUND = 4
EXIT_DENIED = 5
EXIT_STATE = 6
EXIT_INTERNAL = 7
EXIT_INTERRUPTED = 130

EXIT_CODES_HELP = (
    "Exit codes: 0 done · 1 run failed or canceled, or doctor found a fault · "
    "2 bad usage or argument · 3 unavailable · 4 not found · 5 key not allowed · "
    "6 state forbids it · 7 internal fault · 130 interrupted."
)

_EXIT_OF: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: EXIT_INVALID,
    grpc.StatusCode.OUT_OF_RANGE: EXIT_INVALID,
    grpc.StatusCode.UNIMPLEMENTED: EXIT_INVALID,
    grpc.StatusCode.UNAVAILABLE: EXIT_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: EXIT_UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND: EXIT_NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: EXIT_DENIED,
    grpc.StatusCode.PERMISSION_DENIED: EXIT_DENIED,
    grpc.StatusCode.ALREADY_EXISTS: EXIT_STATE,
    grpc.StatusCode.FAILED_PRECONDITION: EXIT_STATE,
    grpc.StatusCode.ABORTED: EXIT_STATE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: EXIT_STATE,
    grpc.StatusCode.CANCELLED: EXIT_FAILED,
}

_WANTS_JSON = "shoal.json"


@dataclass
class CallFailedError(Exception):
    """A call that ended with an error, with all that the server said about it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: Sequence[Violation] = ()
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return self.message


def remember_json(ctx: typer.Context, wanted: bool) -> bool:
    """Note that errors of this command are JSON too; the callback of ``--json``."""
    if wanted:
        ctx.meta[_WANTS_JSON] = True
    return wanted


class ReportingGroup(TyperGroup):
    """The root command: turns every error below it into a report and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ShoalError as error:
            # Loads the generated stubs, which commands on the store do without until now.
            from server.api.errors import status_of

            violations = error.violations if isinstance(error, InvalidRequestError) else ()
            failure = CallFailedError(
                status_of(type(error)), error.message, error.reason, violations
            )
        except CallFailedError as error:
            failure = error
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        _report(failure, as_json=ctx.meta.get(_WANTS_JSON, False))
        raise typer.Exit(_EXIT_OF.get(failure.code, EXIT_INTERNAL))


def _report(failure: CallFailedError, *, as_json: bool) -> None:
    if as_json:
        body = {
            "code": failure.code.name,
            "reason": failure.reason,
            "message": failure.message,
            "violations": [
                {"field": violation.field, "description": violation.description}
                for violation in failure.violations
            ],
        }
        sys.stderr.write(json.dumps({"error": body}) + "\n")
        return
    console = stderr()
    if not failure.violations:
        console.print(f"error: {failure.message}", style="red")
    else:
        console.print("error: the request was refused", style="red")
        for violation in failure.violations:
            console.print(f"  - {violation.field}: {violation.description}")
    if failure.retry_after_s is not None:
        console.print(f"  another try may pass in {failure.retry_after_s:g} s")


def hide_tracebacks() -> None:
    """Let a fault of shoal's own end in one line and exit code 7."""

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        failure = CallFailedError(
            grpc.StatusCode.INTERNAL,
            f"shoal itself failed: {kind.__name__}: {error}; "
            "`shoal --traceback …` shows where. Please report it",
        )
        _report(failure, as_json=False)
        sys.stderr.flush()
        raise SystemExit(EXIT_INTERNAL)

    sys.excepthook = report
