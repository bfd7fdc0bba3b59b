"""Where a run's files are, over the wire, in every format."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq
import pytest
from clusters.v1 import artifact_pb2, cluster_pb2, group_pb2

from server.results.artifacts import RunFolder
from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World


async def export(
    caller: Caller, cluster: cluster_pb2.Cluster, **more: Any
) -> artifact_pb2.ExportExecutionResponse:
    request = artifact_pb2.ExportExecutionRequest(
        cluster_id=cluster.cluster_id, run_id=cluster.last_run_id, **more
    )
    answer: artifact_pb2.ExportExecutionResponse = await caller.call(
        caller.clusters.ExportExecution, request
    )
    return answer


def content_of(
    answer: artifact_pb2.ExportExecutionResponse,
) -> dict[str, tuple[Path, artifact_pb2.Artifact]]:
    """Find the files by their last name, each checked against what was said of it."""
    found = {}
    for artifact in answer.artifacts:
        assert artifact.url == f"{answer.artifacts_url}/{artifact.name}"
        path = Path(artifact.url.removeprefix("file://"))
        content = path.read_bytes()
        assert len(content) == artifact.size_bytes
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        found[path.name] = (path, artifact)
    return found


async def rename(caller: Caller, cluster: cluster_pb2.Cluster, label: str) -> None:
    await caller.call(
        caller.clusters.PatchExecutionLabels,
        group_pb2.PatchExecutionLabelsRequest(
            cluster_id=cluster.cluster_id,
            run_id=cluster.last_run_id,
            labels=[{"cluster_id": "cl_0", "label": label}],
        ),
    )


async def test_parquet_is_given_as_stored(caller: Caller, finished: cluster_pb2.Cluster) -> None:
    answer = await export(caller, finished)

    files = content_of(answer)
    assert answer.format == "parquet"
    assert files.keys() == {"members.parquet", "centroids.parquet", "manifest.json"}
    assert [files[name][1].rows for name in ("members.parquet", "centroids.parquet")] == [20, 2]
    assert not files["manifest.json"][1].HasField("rows")


async def test_csv_holds_every_row(caller: Caller, finished: cluster_pb2.Cluster) -> None:
    files = content_of(await export(caller, finished, format="csv"))

    with files["members.csv"][0].open(newline="") as source:
        members = list(csv.DictReader(source))
    with files["centroids.csv"][0].open(newline="") as source:
        groups = list(csv.DictReader(source))
    assert len(members) == files["members.csv"][1].rows == 20
    assert members[0]["source_document_id"] == "9"
    assert members[0]["cluster_label"] == "Red things"
    assert members[-1]["distance_to_centroid"] == ""
    assert json.loads(groups[0]["keywords"]) == ["red", "warm"]
    assert json.loads(groups[1]["centroid"]) == [1, 2, 3, 4]
    assert files.keys() == {"members.csv", "centroids.csv"}


async def test_json_lines_hold_every_row(caller: Caller, finished: cluster_pb2.Cluster) -> None:
    files = content_of(await export(caller, finished, format="jsonl"))

    members = [json.loads(line) for line in files["members.jsonl"][0].read_text().splitlines()]
    groups = [json.loads(line) for line in files["centroids.jsonl"][0].read_text().splitlines()]
    stored = pq.read_table(
        Path(files["members.jsonl"][0]).parents[2] / "members.parquet"
    ).to_pylist()
    assert [row["source_document_id"] for row in members] == [
        row["source_document_id"] for row in stored
    ]
    assert members[0]["distance_to_centroid"] == pytest.approx(stored[0]["distance_to_centroid"])
    assert len(str(members[1]["distance_to_centroid"])) < 12  # As many digits as float32 has.
    assert members[-1]["distance_to_centroid"] is None
    assert groups[0]["keywords"] == ["red", "warm"]
    assert (groups[0]["summary"], groups[1]["summary"]) == ("What is red", None)


async def test_a_copy_is_made_once_however_many_ask(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    answers = await asyncio.gather(*(export(caller, finished, format="csv") for _ in range(6)))
    again = await export(caller, finished, format="csv")

    assert all(answer == again for answer in answers)
    (path, _) = content_of(again)["members.csv"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "centroids.csv",
        "csv.json",
        "members.csv",
    ]


async def test_copies_are_the_same_wherever_they_are_made(
    world: World, caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    first = await export(caller, finished, format="jsonl")
    for path, _ in content_of(first).values():
        path.unlink()
        path.with_name("jsonl.json").unlink(missing_ok=True)
    second = await export(caller, finished, format="jsonl")

    assert content_of(second)
    assert first == second


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
async def test_files_carry_the_names_of_now(
    caller: Caller, finished: cluster_pb2.Cluster, format: str
) -> None:
    before = content_of(await export(caller, finished, format=format))
    await rename(caller, finished, "Warm things")
    after = content_of(await export(caller, finished, format=format))

    assert b"Warm things" not in before[f"members.{format}"][0].read_bytes()
    path, artifact = after[f"members.{format}"]
    assert artifact.rows == 20
    if format == "parquet":
        labels = set(pq.read_table(path)["cluster_label"].to_pylist())
        assert labels == {"Warm things", "Cluster 1", "Noise"}
        assert pq.read_schema(path).metadata == pq.read_schema(before[path.name][0]).metadata
        assert "manifest.json" in after
        assert len(after) == len(before)
    else:
        assert path.read_text().count("Warm things") == 10
        assert "Red things" not in path.read_text()


async def test_what_is_wrong_is_told_at_once(caller: Caller) -> None:
    failure = await failure_of(
        caller.call(
            caller.clusters.ExportExecution, artifact_pb2.ExportExecutionRequest(format="xlsx")
        )
    )

    assert failure.violations.keys() == {"cluster_id", "run_id", "format"}
    assert "parquet, csv, jsonl" in failure.violations["format"]


async def test_retired_artifacts_are_not_found_and_stay_gone(
    world: World, caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    folder = RunFolder(
        str(world.artifacts),
        world.namespace.namespace_id,
        finished.cluster_id,
        finished.last_run_id,
    )
    folder.delete()

    for format in ("parquet", "csv"):
        failure = await failure_of(export(caller, finished, format=format))
        assert failure.code is grpc.StatusCode.NOT_FOUND
    assert not Path(folder.root).exists()


async def test_an_unfinished_run_has_no_files(caller: Caller, body: dict[str, Any]) -> None:
    pending = await caller.create({**body, "cluster_name": "done"})

    failure = await failure_of(export(caller, pending))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_RESULTS")
