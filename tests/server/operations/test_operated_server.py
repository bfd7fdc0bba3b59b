"""What one real server tells its operators: logs, metrics, traces; and what it tells nobody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shoal_command import run_shoal

from server.jobs.model import STAGES
from tests.server.operations.conftest import Operated

# Real servers come and go in their set-up, which takes longer on a busy machine.
pytestmark = pytest.mark.timeout(300)


def metric(operated: Operated, name: str, **labels: str) -> float:
    """Give a sample of the exposition."""
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    for line in operated.metrics.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample == (f"{name}{{{wanted}}}" if wanted else name):
            return float(value)
    raise AssertionError(f"no sample {name} {labels} in\n{operated.metrics}")


def test_the_jobs_went_through_mutual_tls_and_ended_as_they_should(operated: Operated) -> None:
    assert operated.ran.code == 0, operated.ran.err
    assert operated.ran.json()["cluster"]["status"] == "COMPLETED_WITH_ERRORS"
    assert operated.failed.code == 1
    assert operated.refused.code == 5
    assert operated.stranger.code == 3  # Without a certificate nobody gets as far as a key.
    assert operated.exit_code == 0


def test_no_secret_stands_in_anything_that_was_written(operated: Operated) -> None:
    written: dict[str, bytes] = {
        str(path): path.read_bytes()
        for path in operated.folder.rglob("*")
        if path.is_file() and path.parent.name != "tls"
    }
    written["spans"] = str(operated.spans).encode()
    written["metrics"] = operated.metrics.encode()
    for name in ("ran", "failed", "refused", "stranger"):
        ended = getattr(operated, name)
        written[f"what the command said: {name}"] = f"{ended.out}{ended.err}".encode()
    found = {
        f"{secret} in {place}"
        for place, content in written.items()
        for secret, value in operated.secrets.items()
        if value.encode() in content
    }

    assert any(place.endswith("jobs.sqlite") for place in written)
    assert any(place.endswith("server.log") for place in written)
    assert all(len(value) >= 16 for value in operated.secrets.values())
    assert found == set()


def test_what_the_model_said_is_told_without_the_key_it_quoted(operated: Operated) -> None:
    told = " ".join(operated.ran.json()["cluster"]["llm_labeling_errors"])

    assert told
    assert "canary" not in told


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://shoal:canary-p%40ss@127.0.0.1:1/?serverSelectionTimeoutMS=200",
        "mongodb://shoal:canary-p%40ss@[bad",
        "mongodb://shoal:canary-p@ss@127.0.0.1:1",
    ],
)
def test_a_mongodb_that_cannot_be_used_is_told_without_its_password(
    uri: str, tmp_path: Path
) -> None:
    ended = run_shoal(
        "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path, "--log-level", "DEBUG",
        SHOAL_MONGODB_URI=uri,
    )  # fmt: skip

    assert ended.code in (3, 6)
    assert "MongoDB" in ended.err
    assert "canary" not in ended.err + ended.out


def test_every_line_is_json_and_says_when_and_how_bad(operated: Operated) -> None:
    assert len(operated.lines) > 20
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in operated.lines)


def test_lines_of_a_run_carry_its_ids(operated: Operated) -> None:
    ended = [line for line in operated.lines if line["message"].endswith("ended: completed")]

    assert [line["run_id"] for line in ended] == [operated.run_id]
    assert ended[0]["cluster_id"] == operated.ran.json()["cluster"]["cluster_id"]


def test_every_call_has_one_line_with_its_caller_and_its_end(operated: Operated) -> None:
    (created, _) = [
        line for line in operated.lines if line.get("rpc", "").endswith("/CreateCluster")
    ]
    (refused,) = [line for line in operated.lines if line.get("code") == "UNAUTHENTICATED"]

    assert created["code"] == "OK"
    assert created["elapsed_ms"] > 0
    assert created["namespace_id"].startswith("ns_")
    assert re.fullmatch(r"[0-9a-f]{32}", created["trace_id"])
    assert "namespace_id" not in refused


def test_prometheus_sees_calls_runs_and_stages(operated: Operated) -> None:
    assert metric(operated, "shoal_rpcs_total", code="OK", rpc="CreateCluster") == 2
    assert metric(operated, "shoal_rpcs_total", code="UNAUTHENTICATED", rpc="ListClusters") == 1
    assert metric(operated, "shoal_rpc_seconds_count", rpc="CreateCluster") == 2
    assert metric(operated, "shoal_failed_logins_total") == 1
    assert metric(operated, "shoal_runs_ended_total", status="completed") == 1
    assert metric(operated, "shoal_runs_ended_total", status="failed") == 1
    assert metric(operated, "shoal_runs_active", status="pending") == 0
    assert metric(operated, "shoal_queue_depth") == 0
    assert metric(operated, "shoal_runs_in_hand") == 0
    assert metric(operated, "shoal_lease_losses_total") == 0
    assert metric(operated, "shoal_exported_points_total") >= 200
    for stage in STAGES:
        assert metric(operated, "shoal_stage_seconds_count", stage=stage) >= 1, stage


def test_a_trace_leads_from_the_call_to_the_run_to_its_stages(operated: Operated) -> None:
    spans = operated.spans_of_the_run()
    call, run = spans["clusters.v1.ClusterService/CreateCluster"], spans["run"]

    assert run.parent_span_id == call.span_id
    for stage in STAGES:
        assert spans[stage].trace_id == call.trace_id
        assert spans[stage].parent_span_id == run.span_id, stage
        assert spans[stage].end_time_unix_nano >= spans[stage].start_time_unix_nano
