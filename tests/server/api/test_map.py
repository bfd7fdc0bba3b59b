"""The map of a run over the wire. The maps here were made before; the making is in runs/."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from clusters.v1 import artifact_pb2, cluster_pb2, group_pb2
from numpy.typing import NDArray

from server.results.artifacts import RunFolder
from server.results.groups import Group
from server.results.maps import write_map
from tests.server.api.conftest import FOUND
from tests.server.api.failures import failure_of
from tests.server.api.world import Caller, World


def folder_of(world: World, cluster_id: str, run_id: str) -> RunFolder:
    return RunFolder(str(world.artifacts), world.namespace.namespace_id, cluster_id, run_id)


def ask(caller: Caller, cluster_id: str = "done", **query: Any) -> Any:
    request = artifact_pb2.GetVisualizationRequest(cluster_id=cluster_id, **query)
    return caller.call(caller.clusters.GetVisualization, request)


@pytest.fixture
def places(world: World, finished: cluster_pb2.Cluster) -> NDArray[np.float32]:
    """The places of a map of the finished run, in the order of its members."""
    folder = folder_of(world, finished.cluster_id, finished.last_run_id)
    places = np.random.default_rng(5).normal(size=(20, 2)).astype(np.float32)
    write_map(folder, folder.read_members(), places)
    write_map(
        folder, folder.read_members(), np.column_stack([places, np.arange(20, dtype=np.float32)])
    )
    return places


async def test_a_map_has_every_document_and_its_groups(
    caller: Caller, finished: cluster_pb2.Cluster, products: str, places: NDArray[np.float32]
) -> None:
    answer = await ask(caller)

    assert (answer.cluster_id, answer.run_id) == (finished.cluster_id, finished.last_run_id)
    assert (answer.total_points, answer.dimensions) == (20, 2)
    assert [(point.x, point.y) for point in answer.points] == [tuple(p) for p in places.tolist()]
    assert not any(point.HasField("z") for point in answer.points)
    ids = [point.cluster_id for point in answer.points]
    assert ids == ["cl_0"] * 10 + ["cl_1"] * 6 + ["cl_noise"] * 4
    assert {point.source_collection_id for point in answer.points} == {products}
    assert {point.source_document_id for point in answer.points} == {str(i) for i in range(20)}
    red, other = answer.centroids
    assert (red.label, red.member_count) == ("Red things", 10)
    np.testing.assert_allclose([red.x, red.y], np.median(places[:10], axis=0))
    np.testing.assert_allclose([other.x, other.y], np.median(places[10:16], axis=0))
    assert not red.HasField("z")


async def test_three_dimensions_are_another_map(
    caller: Caller, places: NDArray[np.float32]
) -> None:
    answer = await ask(caller, dimensions=3)

    assert answer.dimensions == 3
    assert [point.z for point in answer.points] == list(range(20))
    assert answer.centroids[1].z == 12.5


async def test_a_map_is_thinned_and_no_group_is_lost(
    caller: Caller, places: NDArray[np.float32]
) -> None:
    thinned = await ask(caller, max_points=5)
    again = await ask(caller, max_points=5)
    whole = await ask(caller)

    assert thinned == again
    assert (len(thinned.points), thinned.total_points) == (5, 20)
    assert {point.cluster_id for point in thinned.points} == {"cl_0", "cl_1", "cl_noise"}
    assert all(point in whole.points for point in thinned.points)
    assert thinned.centroids == whole.centroids


async def test_groups_come_alone_and_under_their_new_names(
    caller: Caller, finished: cluster_pb2.Cluster, places: NDArray[np.float32]
) -> None:
    await caller.call(
        caller.clusters.PatchExecutionLabels,
        group_pb2.PatchExecutionLabelsRequest(
            cluster_id="done",
            run_id=finished.last_run_id,
            labels=[{"cluster_id": "cl_0", "label": "Crimson"}],
        ),
    )

    answer = await ask(caller, run_id=finished.last_run_id, centroids_only=True)

    assert len(answer.points) == 0
    assert answer.total_points == 20
    assert [group.label for group in answer.centroids] == ["Crimson", "Cluster 1"]
    assert all(group.HasField("x") and group.HasField("y") for group in answer.centroids)


async def test_the_files_of_a_run_hold_its_maps(
    caller: Caller, finished: cluster_pb2.Cluster, places: NDArray[np.float32]
) -> None:
    answer = await caller.call(
        caller.clusters.ExportExecution,
        artifact_pb2.ExportExecutionRequest(cluster_id="done", run_id=finished.last_run_id),
    )

    maps = {each.name: each for each in answer.artifacts if each.name.startswith("layout")}
    assert set(maps) == {"layout.parquet", "layout-3d.parquet"}
    for artifact in maps.values():
        content = Path(artifact.url.removeprefix("file://")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == artifact.sha256
        assert (len(content), 20) == (artifact.size_bytes, artifact.rows)


async def test_every_fault_of_the_request_is_told(caller: Caller) -> None:
    failure = await failure_of(ask(caller, "", max_points=0, dimensions=4))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations == {
        "cluster_id": "required",
        "max_points": "sent 0; allowed: 1 to 200000. For groups alone send centroids_only",
        "dimensions": "sent 4; allowed: 2 or 3",
    }
    failure = await failure_of(ask(caller, max_points=200_001))
    assert list(failure.violations) == ["max_points"]


async def test_the_map_comes_as_a_page(
    caller: Caller, finished: cluster_pb2.Cluster, places: NDArray[np.float32]
) -> None:
    answer = await ask(caller, format="html", max_points=6)

    assert answer.html.startswith("<!doctype html>")
    assert finished.last_run_id in answer.html
    assert len(answer.points) == 0
    assert [group.label for group in answer.centroids] == ["Red things", "Cluster 1"]
    data = json.loads(re.search(r'id="data">(.*?)</script>', answer.html)[1])
    assert (len(data["titles"]), answer.total_points) == (6, 20)
    assert [group["nearest"][0][1] for group in data["groups"]] == ["9", "15"]
    assert [len(group["nearest"]) for group in data["groups"]] == [10, 6]
    assert set(data["titles"]) == {"a", "b"}  # The only text that the documents have.
    assert data["fields"] == []


async def test_a_page_has_the_fields_that_were_asked_for(
    caller: Caller, places: NDArray[np.float32]
) -> None:
    answer = await ask(caller, format="html", hover_fields=["category"])

    data = json.loads(re.search(r'id="data">(.*?)</script>', answer.html)[1])
    assert data["fields"] == ["category"]
    assert set(data["values"][0]) == {"a", "b"}


async def test_a_field_that_no_document_has_is_refused_with_those_there_are(
    caller: Caller, places: NDArray[np.float32]
) -> None:
    failure = await failure_of(
        ask(caller, format="html", title_field="titel", hover_fields=["category", "a.b"])
    )

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.violations == {
        name: f"sent {path!r}; no document of the run has it. There are: category"
        for name, path in (("title_field", "titel"), ("hover_fields[1]", "a.b"))
    }


async def test_the_map_comes_as_a_picture(caller: Caller, places: NDArray[np.float32]) -> None:
    answer = await ask(caller, format="png")

    assert answer.png[:8] == b"\x89PNG\r\n\x1a\n"
    assert answer.html == ""


async def test_every_fault_of_a_picture_is_told(caller: Caller) -> None:
    failure = await failure_of(
        ask(caller, format="png", dimensions=3, centroids_only=True, title_field="a..b")
    )
    assert set(failure.violations) == {"dimensions", "centroids_only", "title_field"}
    failure = await failure_of(ask(caller, format="svg", hover_fields=["a"] * 21))
    assert failure.violations["format"] == "sent 'svg'; allowed: points, html, png"
    assert failure.violations["hover_fields"] == "sent 21; allowed: 20 at most"


async def test_a_run_whose_export_was_retired_has_no_map(
    caller: Caller, finished: cluster_pb2.Cluster
) -> None:
    failure = await failure_of(ask(caller))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "NO_MAP"
    assert "its vectors were retired" in failure.message
    assert finished.last_run_id in failure.message


async def test_groups_by_attributes_have_no_map(
    world: World, caller: Caller, products: str
) -> None:
    cluster = await caller.create(
        {
            "collection_ids": [products],
            "cluster_type": "attribute",
            "attribute_config": {"attributes": ["category"]},
        }
    )
    run = await world.begin(cluster.cluster_id)
    folder = folder_of(world, cluster.cluster_id, run.run_id)
    folder.begin()
    folder.write_groups([Group("cl_0", "a", 20)])
    folder.write_manifest(counts={}, device="cpu", timings_s={})
    await world.complete(cluster.cluster_id, FOUND)

    failure = await failure_of(ask(caller, cluster.cluster_id))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_MAP")
    assert "without vectors" in failure.message


async def test_a_run_that_found_nothing_has_no_map(caller: Caller, body: dict[str, Any]) -> None:
    cluster = await caller.create(body)

    failure = await failure_of(ask(caller, cluster.cluster_id))

    assert failure.reason == "NO_RESULTS"


async def test_a_map_of_others_is_not_found(
    world: World, finished: cluster_pb2.Cluster, places: NDArray[np.float32]
) -> None:
    await world.tenancy.create_namespace("org_test", "other")
    stranger = world.connect(key=await world.key_for("read", "other"), namespace="other")

    failure = await failure_of(ask(stranger, finished.cluster_id))

    assert failure.code is grpc.StatusCode.NOT_FOUND
