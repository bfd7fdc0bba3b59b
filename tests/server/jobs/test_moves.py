"""The legal moves of a run: who may do what, and what an old lease is worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.errors import PreconditionError
from server.jobs import moves
from server.jobs.definition import ClusterDefinition, VectorConfig
from server.jobs.model import ClusterRecord, RunError, RunResult
from server.jobs.moves import LeaseLostError, RunActiveError

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LEASE_S = 30.0
DEFINITION = ClusterDefinition(
    collection_ids=["docs"], vector_config=VectorConfig(clustering_method="kmeans")
)
RESULT = RunResult(algorithm="kmeans", num_clusters=2, num_documents=10)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def draft() -> ClusterRecord:
    return ClusterRecord(
        cluster_id="clust_1",
        organization_id="org_dev",
        namespace_id="ns_1",
        cluster_name="mine",
        definition=DEFINITION,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.fixture
def pending(draft: ClusterRecord) -> ClusterRecord:
    return moves.queue_run(draft, DEFINITION, NOW)


@pytest.fixture
def claimed(pending: ClusterRecord) -> ClusterRecord:
    return moves.claim(pending, "server-a", NOW, LEASE_S)


def run_id(cluster: ClusterRecord) -> str:
    return cluster.runs[-1].run_id


def test_status_follows_the_newest_run(draft: ClusterRecord) -> None:
    words = [draft.status]
    cluster = moves.queue_run(draft, DEFINITION, NOW)
    words.append(cluster.status)
    cluster = moves.claim(cluster, "a", NOW, LEASE_S)
    words.append(cluster.status)
    cluster = moves.enter_stage(cluster, run_id(cluster), 1, "cluster", NOW)
    words.append(cluster.status)
    cluster = moves.commit(cluster, run_id(cluster), 1, RESULT, [], NOW)
    words.append(cluster.status)
    cluster = moves.finish(cluster, run_id(cluster), 1, "completed", NOW)
    words.append(cluster.status)

    assert words == ["DRAFT", "PENDING", "IN_PROGRESS", "PROCESSING", "PROCESSING", "COMPLETED"]


@pytest.mark.parametrize(
    ("update", "word"),
    [
        ({"labeling_errors": ["cl_0: timeout"]}, "COMPLETED_WITH_ERRORS"),
        ({"skipped_reason": "skipped: the filter leaves 1 documents"}, "SKIPPED"),
    ],
)
def test_completed_has_shades(claimed: ClusterRecord, update: dict[str, object], word: str) -> None:
    result = RESULT.model_copy(update=update)
    cluster = moves.commit(claimed, run_id(claimed), 1, result, [], NOW)
    cluster = moves.finish(cluster, run_id(cluster), 1, "completed", NOW)
    assert cluster.status == word


def test_a_second_run_waits_for_the_first(claimed: ClusterRecord) -> None:
    with pytest.raises(RunActiveError) as raised:
        moves.queue_run(claimed, DEFINITION, NOW)
    assert raised.value.facts["run_id"] == run_id(claimed)
    assert "processing" in raised.value.message


def test_a_held_run_cannot_be_claimed_until_its_lease_ends(claimed: ClusterRecord) -> None:
    with pytest.raises(LeaseLostError, match="server-a"):
        moves.claim(claimed, "server-b", later(LEASE_S - 1), LEASE_S)

    taken = moves.claim(claimed, "server-b", later(LEASE_S + 1), LEASE_S)
    lease = taken.runs[-1].lease

    assert lease is not None
    assert (lease.owner, lease.number) == ("server-b", 2)
    assert taken.runs[-1].attempts == 2
    assert taken.runs[-1].started_at == NOW


def test_an_old_lease_changes_nothing(claimed: ClusterRecord) -> None:
    taken = moves.claim(claimed, "server-b", later(LEASE_S + 1), LEASE_S)
    run = run_id(taken)
    for move in (
        lambda: moves.renew(taken, run, 1, NOW, LEASE_S),
        lambda: moves.enter_stage(taken, run, 1, "load", NOW),
        lambda: moves.commit(taken, run, 1, RESULT, [], NOW),
        lambda: moves.finish(taken, run, 1, "completed", NOW),
        lambda: moves.release(taken, run, 1, NOW, blameless=True),
    ):
        with pytest.raises(LeaseLostError):
            move()


def test_renew_moves_the_end_of_the_lease(claimed: ClusterRecord) -> None:
    renewed = moves.renew(claimed, run_id(claimed), 1, later(20), LEASE_S)
    lease = renewed.runs[-1].lease
    assert lease is not None
    assert lease.expires_at == later(20 + LEASE_S)


def test_a_run_ends_once(claimed: ClusterRecord) -> None:
    failed = moves.finish(
        claimed, run_id(claimed), 1, "failed", NOW, RunError(reason="X", message="why")
    )
    with pytest.raises(LeaseLostError):
        moves.finish(failed, run_id(failed), 1, "completed", NOW)
    with pytest.raises(LeaseLostError):
        moves.claim(failed, "server-b", later(1000), LEASE_S)


def test_cancel_of_a_pending_run_is_its_end(pending: ClusterRecord) -> None:
    canceled = moves.request_cancel(pending, run_id(pending), later(1))
    assert canceled.status == "CANCELED"
    assert canceled.runs[-1].finished_at == later(1)


def test_cancel_of_a_running_run_is_a_request_that_forbids_the_commit(
    claimed: ClusterRecord,
) -> None:
    asked = moves.request_cancel(claimed, run_id(claimed), NOW)
    assert asked.status == "IN_PROGRESS"
    assert asked.runs[-1].cancel_requested
    assert moves.request_cancel(asked, run_id(asked), later(1)) is asked
    with pytest.raises(LeaseLostError, match="canceled"):
        moves.commit(asked, run_id(asked), 1, RESULT, [], NOW)


def test_cancel_of_a_run_that_nobody_holds_is_its_end(claimed: ClusterRecord) -> None:
    left = moves.release(claimed, run_id(claimed), 1, NOW, blameless=False)
    canceled = moves.request_cancel(left, run_id(left), later(1))
    assert canceled.status == "CANCELED"
    with pytest.raises(LeaseLostError):
        moves.finish(canceled, run_id(canceled), 1, "completed", later(2))


def test_cancel_after_the_commit_is_refused(claimed: ClusterRecord) -> None:
    committed = moves.commit(claimed, run_id(claimed), 1, RESULT, [], NOW)
    with pytest.raises(PreconditionError, match="past its commit"):
        moves.request_cancel(committed, run_id(committed), NOW)


def test_cancel_of_a_finished_run_leaves_it(claimed: ClusterRecord) -> None:
    done = moves.finish(claimed, run_id(claimed), 1, "completed", NOW)
    assert moves.request_cancel(done, run_id(done), NOW) is done


def test_a_blameless_release_costs_no_attempt(claimed: ClusterRecord) -> None:
    released = moves.release(claimed, run_id(claimed), 1, NOW, blameless=True)
    again = moves.claim(released, "server-b", later(1), LEASE_S)
    assert again.runs[-1].attempts == 1

    blamed = moves.release(claimed, run_id(claimed), 1, NOW, blameless=False)
    assert moves.claim(blamed, "server-b", later(1), LEASE_S).runs[-1].attempts == 2


def test_the_newest_success_outlives_the_trimming(claimed: ClusterRecord) -> None:
    cluster = moves.commit(claimed, run_id(claimed), 1, RESULT, [], NOW)
    success = run_id(cluster)
    cluster = moves.finish(cluster, success, 1, "completed", NOW)
    for _ in range(moves.MAX_RUNS_KEPT + 5):
        cluster = moves.queue_run(cluster, DEFINITION, NOW)
        cluster = moves.request_cancel(cluster, run_id(cluster), NOW)

    assert len(cluster.runs) == moves.MAX_RUNS_KEPT
    assert cluster.newest_success is not None
    assert cluster.newest_success.run_id == success


def test_a_skipped_run_is_no_success(claimed: ClusterRecord) -> None:
    skipped = RESULT.model_copy(update={"skipped_reason": "skipped"})
    cluster = moves.commit(claimed, run_id(claimed), 1, skipped, [], NOW)
    cluster = moves.finish(cluster, run_id(cluster), 1, "completed", NOW)
    assert cluster.newest_success is None
