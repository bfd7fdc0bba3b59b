"""The legal moves of a run, as pure functions: a record in, the changed record out.

    pending ──claim──▶ processing ──commit──▶ (publishing) ──finish──▶ completed
       │                  │  ▲ claim again, when the lease ran out
       └──cancel──▶ canceled ◀┘──fail──▶ failed

Nothing here touches a database: `ledger.py` writes what a move returns, and only if nobody
wrote in between. A move by a worker shows the number of its lease; an older number than the
record's raises `LeaseLostError`, so whoever lost a run can change nothing of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from server.errors import PreconditionError, ShoalError
from server.jobs.definition import ClusterDefinition
from server.jobs.ids import new_id
from server.jobs.model import (
    ClusterRecord,
    Lease,
    ParentGroup,
    RunError,
    RunRecord,
    RunResult,
    Stage,
)

MAX_RUNS_KEPT = 50
"""Run records a cluster keeps; the oldest finished ones go first."""

MAX_ATTEMPTS = 3
"""Claims of one run before it is given up: something in it kills its worker."""


class LeaseLostError(ShoalError):
    """Another server holds the run now, or it has ended; stop working on it."""

    reason = "LEASE_LOST"


class RunActiveError(PreconditionError):
    """The cluster has a run that has not ended; wait for it or cancel it."""

    reason = "RUN_ACTIVE"


@dataclass(frozen=True)
class RunOptions:
    """How a run is asked for, beside its definition.

    Attributes
    ----------
    mode : {"full", "assign"}
        assign: new documents go to the stored centroids.
    assignment_threshold : float or None
        Least cosine similarity for that.
    request_id, request_sha256 : str or None
        The caller's name for the request, and what its body was.
    traceparent : str or None
        The span of the call, for the run's to lie under.
    """

    mode: Literal["full", "assign"] = "full"
    assignment_threshold: float | None = None
    request_id: str | None = None
    request_sha256: str | None = None
    traceparent: str | None = None


FULL = RunOptions()


def queue_run(
    cluster: ClusterRecord,
    definition: ClusterDefinition,
    now: datetime,
    options: RunOptions = FULL,
    within: ParentGroup | None = None,
) -> ClusterRecord:
    """Add a pending run; refused while another one is active."""
    active = cluster.newest_run
    if active is not None and not active.is_final:
        raise RunActiveError(
            f"run {active.run_id} of this cluster is {active.status}; wait for it or cancel it",
            run_id=active.run_id,
            status=active.status,
        )
    run = RunRecord(
        run_id=new_id("run"),
        task_id=new_id("task"),
        **asdict(options),
        within=within,
        definition=definition,
        queued_at=now,
    )
    return _touch(cluster, now, runs=_trimmed([*cluster.runs, run]))


def claim(cluster: ClusterRecord, owner: str, now: datetime, lease_s: float) -> ClusterRecord:
    """Take the newest run: a pending one, or one whose lease ran out."""
    run = cluster.newest_run
    if run is None or run.is_final:
        raise LeaseLostError("the run has ended")
    if run.lease is not None and run.lease.expires_at > now:
        raise LeaseLostError(f"run {run.run_id} is held by {run.lease.owner}")
    number = run.lease.number + 1 if run.lease else 1
    claimed = run.model_copy(
        update={
            "status": "processing",
            "started_at": run.started_at or now,
            "attempts": run.attempts + 1,
            "lease": Lease(owner=owner, number=number, expires_at=now + timedelta(seconds=lease_s)),
        }
    )
    return _with_run(cluster, claimed, now)


def renew(
    cluster: ClusterRecord, run_id: str, lease_number: int, now: datetime, lease_s: float
) -> ClusterRecord:
    """Say that the holder of the lease is still at work."""
    run, lease = _held(cluster, run_id, lease_number)
    longer = lease.model_copy(update={"expires_at": now + timedelta(seconds=lease_s)})
    return _with_run(cluster, run.model_copy(update={"lease": longer}), now)


def release(
    cluster: ClusterRecord, run_id: str, lease_number: int, now: datetime, *, blameless: bool
) -> ClusterRecord:
    """End the lease at once, so that the run is claimed again without a wait.

    `blameless`: the run did not cause it (a server stops), so the attempt does not count.
    """
    run, lease = _held(cluster, run_id, lease_number)
    update = {
        "lease": lease.model_copy(update={"expires_at": now}),
        "attempts": run.attempts - 1 if blameless else run.attempts,
    }
    return _with_run(cluster, run.model_copy(update=update), now)


def enter_stage(
    cluster: ClusterRecord, run_id: str, lease_number: int, stage: Stage, now: datetime
) -> ClusterRecord:
    """Note which stage the run is in."""
    run, _ = _held(cluster, run_id, lease_number)
    return _with_run(cluster, run.model_copy(update={"stage": stage}), now)


def request_cancel(cluster: ClusterRecord, run_id: str, now: datetime) -> ClusterRecord:
    """Ask a run to stop. One that nobody holds is canceled at once; a final one stays as it is."""
    run = _run(cluster, run_id)
    if run.is_final or run.cancel_requested:
        return cluster
    if run.committed_at is not None:
        raise PreconditionError(
            f"run {run_id} is past its commit and is publishing its results; it cannot be canceled",
            run_id=run_id,
            status=run.status,
        )
    if run.lease is None or run.lease.expires_at <= now:
        ended = {"status": "canceled", "finished_at": now, "cancel_requested": True}
        return _with_run(cluster, run.model_copy(update=ended), now)
    return _with_run(cluster, run.model_copy(update={"cancel_requested": True}), now)


def commit(
    cluster: ClusterRecord,
    run_id: str,
    lease_number: int,
    result: RunResult,
    warnings: list[str],
    now: datetime,
) -> ClusterRecord:
    """Fix the run's results: from here it only goes forward."""
    run, _ = _held(cluster, run_id, lease_number)
    if run.cancel_requested:
        raise LeaseLostError(f"run {run_id} was canceled before its commit")
    done = {"result": result, "warnings": warnings, "committed_at": now, "stage": "write"}
    return _with_run(cluster, run.model_copy(update=done), now)


def finish(
    cluster: ClusterRecord,
    run_id: str,
    lease_number: int,
    status: Literal["completed", "failed", "canceled"],
    now: datetime,
    error: RunError | None = None,
    extra_warnings: list[str] | None = None,
) -> ClusterRecord:
    """End the run; the one place where a final state of a claimed run is written."""
    run, _ = _held(cluster, run_id, lease_number)
    ended = {
        "status": status,
        "finished_at": now,
        "error": error,
        "warnings": [*run.warnings, *(extra_warnings or [])],
    }
    return _with_run(cluster, run.model_copy(update=ended), now)


def _run(cluster: ClusterRecord, run_id: str) -> RunRecord:
    run = cluster.run(run_id)
    if run is None:
        raise LeaseLostError(f"run {run_id} is gone")
    return run


def _held(cluster: ClusterRecord, run_id: str, lease_number: int) -> tuple[RunRecord, Lease]:
    run = _run(cluster, run_id)
    if run.is_final or run.lease is None or run.lease.number != lease_number:
        raise LeaseLostError(f"run {run_id} is no longer ours (lease {lease_number})")
    return run, run.lease


def _with_run(cluster: ClusterRecord, changed: RunRecord, now: datetime) -> ClusterRecord:
    runs = [changed if run.run_id == changed.run_id else run for run in cluster.runs]
    return _touch(cluster, now, runs=runs)


def _touch(cluster: ClusterRecord, now: datetime, *, runs: list[RunRecord]) -> ClusterRecord:
    return cluster.model_copy(update={"runs": runs, "updated_at": now})


def _trimmed(runs: list[RunRecord]) -> list[RunRecord]:
    """Keep the newest runs, and the newest successful one whatever its age."""
    kept = runs[-MAX_RUNS_KEPT:]
    successes = [run for run in runs if run.status == "completed" and not run.is_skipped]
    if successes and successes[-1] not in kept:
        kept = [successes[-1], *kept[1:]]
    return kept
