"""The one table from our errors to gRPC, and what a caller can read from a failed call."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import server
from server.api.errors import DETAILS_TRAILER, MAX_MESSAGE_BYTES, STATUS_OF, answer_to, status_of
from server.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    QuotaError,
    ShoalError,
    UnavailableError,
    Violation,
)
from server.results.failures import ArtifactError
from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World

CONTRACT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
}


def subclasses(kind: type[ShoalError]) -> Iterator[type[ShoalError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def test_every_error_of_the_server_has_a_status() -> None:
    for module in pkgutil.walk_packages(server.__path__, "server."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds = {kind for kind in subclasses(ShoalError) if kind.__module__.startswith("server.")}

    assert len(kinds) > 20
    for kind in kinds:
        assert status_of(kind) in CONTRACT_CODES, kind


def test_an_error_without_a_row_is_told() -> None:
    with pytest.raises(LookupError, match="UnlistedError has no gRPC status"):
        status_of(UnlistedError)


def test_a_derived_error_takes_its_bases_status_unless_it_has_its_own() -> None:
    assert ShoalError not in STATUS_OF
    assert status_of(type("Below", (NotFoundError,), {})) is grpc.StatusCode.NOT_FOUND


def details_of(error: ShoalError) -> list[Message]:
    answer = answer_to(error)
    ((name, raw),) = answer.trailers
    assert name == DETAILS_TRAILER
    status = status_pb2.Status.FromString(raw)
    assert status.code == answer.code.value[0]
    kinds = {
        kind.full_name: kind for kind in error_details_pb2.DESCRIPTOR.message_types_by_name.values()
    }
    found = []
    for detail in status.details:
        message = getattr(error_details_pb2, kinds[detail.TypeName()].name)()
        detail.Unpack(message)
        found.append(message)
    return found


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (
            InvalidRequestError([Violation("a.b[0]", "too big"), Violation("c", "missing")]),
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field="a.b[0]", description="too big"
                    ),
                    error_details_pb2.BadRequest.FieldViolation(field="c", description="missing"),
                ]
            ),
        ),
        (
            NotFoundError("run", "run_x", "see ListExecutions"),
            error_details_pb2.ResourceInfo(
                resource_type="run",
                resource_name="run_x",
                description="run 'run_x' does not exist; see ListExecutions",
            ),
        ),
        (
            PreconditionError("no", run_id="run_x", status="processing"),
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type="FAILED_PRECONDITION",
                        subject="run_x",
                        description="state: processing",
                    )
                ]
            ),
        ),
    ],
)
def test_details_name_the_facts(error: ShoalError, detail: Message) -> None:
    info, second = details_of(error)

    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (error.reason, "shoal")
    assert second == detail


@pytest.mark.parametrize("kind", [QuotaError, UnavailableError])
def test_what_may_pass_later_says_when(kind: type[QuotaError]) -> None:
    info, retry = details_of(kind("full", retry_after_s=2.5, active_runs=7))

    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert info.metadata["active_runs"] == "7"


@pytest.mark.parametrize(
    "text", ["x" * 5_000, "ü" * 5_000, "😀" * 5_000], ids=["ascii", "latin", "emoji"]
)
def test_trailers_stay_below_what_clients_accept(text: str) -> None:
    violations = [Violation(text, text) for _ in range(1000)]
    answer = answer_to(InvalidRequestError(violations, **{f"fact{i}": text for i in range(50)}))

    assert len(answer.trailers[0][1]) * 4 / 3 + MAX_MESSAGE_BYTES < 7_500
    assert answer.message.endswith("...")


def test_a_conflict_may_be_repeated() -> None:
    assert answer_to(ConflictError("again")).code is grpc.StatusCode.ABORTED


class UnlistedError(ShoalError):
    """Of no row in the table: as if somebody had forgotten it."""

    reason = "UNLISTED"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (RuntimeError, "INTERNAL"),
        (ArtifactError, "ARTIFACT_DAMAGED"),
        (UnlistedError, "UNLISTED"),
    ],
)
async def test_a_fault_of_ours_hides_its_inside_and_logs_it(
    world: World,
    caller: Caller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[Exception],
    reason: str,
) -> None:
    async def broken(*_: Any) -> None:
        raise kind("password=hunter2 at /srv/secret.py")

    monkeypatch.setattr(world.store, "get_cluster", broken)
    with caplog.at_level(logging.INFO, logger="server.api"):
        failure = await failure_of(caller.get("any"))

    assert failure.code is grpc.StatusCode.INTERNAL
    info = failure.detail(error_details_pb2.ErrorInfo)
    error_id = info.metadata["error_id"]
    assert info.reason == reason
    assert error_id.startswith("err_")
    assert error_id in failure.message
    for leak in ("hunter2", "secret", "RuntimeError", "Traceback", kind.__name__):
        assert leak not in str(failure)
    assert error_id in caplog.text
    assert "hunter2" in caplog.text  # The log has what the caller must not see.


async def test_the_log_has_a_line_for_each_call_and_no_key(
    world: World, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="server.api"):
        await failure_of(caller.get("nothing-here"))

    (line,) = [record for record in caplog.records if record.name == "server.api.interceptor"]
    assert line.levelno == logging.INFO
    said = vars(line)
    assert said["rpc"] == "/clusters.v1.ClusterService/GetCluster"
    assert said["code"] == "NOT_FOUND"
    assert said["namespace_id"] == world.namespace.namespace_id
    assert said["request_id"].startswith("req_")
    assert said["elapsed_ms"] > 0
    assert world.key not in str(said)
