"""Enrichment in place: whole documents, forward only, and nobody else's fields."""

from __future__ import annotations

import uuid

import grpc
import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import grpc as pb
from qdrant_client import models

from server.jobs.definition import FieldMapping
from server.qdrant.client import QdrantAddress, connect
from server.qdrant.errors import (
    CollectionNotFoundError,
    QdrantRefusedError,
    QdrantUnavailableError,
)
from server.results.enrich import EnrichReport, enrich_sources
from server.results.failures import WriteStoppedError
from server.results.groups import Group, members_table
from server.results.writes import RetryPolicy

GROUPS = [Group("cl_0", "Tools", 2, keywords=("cli",)), Group("cl_1", "Größe", 1)]
DEFAULT = [
    FieldMapping(source_field=name, target_field=name)
    for name in ("cluster_id", "cluster_label", "distance_to_centroid")
]


def members_of(labels, ids=None, collection="docs", distances=None):
    n_points = len(labels)
    ids = [str(i) for i in range(n_points)] if ids is None else [str(i) for i in ids]
    return members_table(
        pa.array([collection] * n_points, pa.string()),
        pa.array(ids, pa.string()),
        np.array(labels, dtype=np.int32),
        GROUPS,
        distances=np.full(n_points, 0.5) if distances is None else np.array(distances),
        confidence=np.full(n_points, 0.75),
    )


@pytest.fixture
def source(client, collection_name):
    """A collection of four documents with a field of their own."""
    name = collection_name()
    fill(client, name, range(4))
    return name


def fill(client, name, ids):
    client.create_collection(name, vectors_config={})
    client.upsert(
        name, [models.PointStruct(id=i, vector={}, payload={"title": f"t{i}"}) for i in ids]
    )


def payloads(client, name):
    records, _ = client.scroll(name, limit=10_000)
    return {record.id: record.payload for record in records}


def test_every_document_gets_its_fields_and_keeps_its_own(client, source):
    members = members_of([0, 1, -1, 0], distances=[0.25, 0.5, np.nan, 0.125])
    report = enrich_sources(client, [("docs", source)], members, GROUPS, DEFAULT, "run_1")

    assert report == EnrichReport(processed=4, enriched=4, failed=0, batches=1, cleared=0)
    found = payloads(client, source)
    assert found[0] == {
        "title": "t0",
        "cluster_id": "cl_0",
        "cluster_label": "Tools",
        "distance_to_centroid": 0.25,
        "cluster_run_id": "run_1",
    }
    assert found[2] == {
        "title": "t2",
        "cluster_id": "cl_noise",
        "cluster_label": "Noise",
        "cluster_run_id": "run_1",
    }


def test_mappings_choose_the_fields_and_their_names(client, source):
    mappings = [
        FieldMapping(source_field="cluster_label", target_field="topic"),
        FieldMapping(source_field="member_count", target_field="topic_size"),
        FieldMapping(source_field="confidence", target_field="sure"),
        FieldMapping(source_field="keywords", target_field="words"),
    ]
    enrich_sources(client, [("docs", source)], members_of([0, 1]), GROUPS, mappings, "run_1")
    assert payloads(client, source)[0] == {
        "title": "t0",
        "topic": "Tools",
        "topic_size": 2,
        "sure": 0.75,
        "words": ["cli"],
        "cluster_run_id": "run_1",
    }


def test_a_document_that_became_noise_loses_its_distance(client, source):
    for run, labels in (("run_1", [0]), ("run_2", [-1])):
        enrich_sources(client, [("docs", source)], members_of(labels), GROUPS, DEFAULT, run)
    found = payloads(client, source)[0]
    assert found == {
        "title": "t0",
        "cluster_id": "cl_noise",
        "cluster_label": "Noise",
        "cluster_run_id": "run_2",
    }


def test_documents_that_left_lose_the_fields(client, source):
    first, second = members_of([0, 1, 0, -1]), members_of([0, 0])
    sources = [("docs", source)]
    enrich_sources(client, sources, first, GROUPS, DEFAULT, "run_1")
    report = enrich_sources(client, sources, second, GROUPS, DEFAULT, "run_2", first, ["run_1"])
    again = enrich_sources(client, sources, second, GROUPS, DEFAULT, "run_2", first, ["run_1"])

    assert (report.enriched, report.cleared) == (2, 2)
    assert (again.enriched, again.cleared) == (2, 0)
    found = payloads(client, source)
    assert found[1]["cluster_run_id"] == "run_2"
    assert found[2] == {"title": "t2"}
    assert found[3] == {"title": "t3"}


def test_fields_that_another_job_wrote_since_stay(client, source):
    first = members_of([0, 0])
    sources = [("docs", source)]
    enrich_sources(client, sources, first, GROUPS, DEFAULT, "run_1")
    enrich_sources(client, sources, members_of([1], ids=[1]), GROUPS, DEFAULT, "run_other")

    report = enrich_sources(
        client, sources, members_of([0], ids=[0]), GROUPS, DEFAULT, "run_2", first, ["run_1"]
    )

    assert report.cleared == 0
    assert payloads(client, source)[1]["cluster_run_id"] == "run_other"
    assert payloads(client, source)[1]["cluster_label"] == "Größe"


def test_fields_that_are_no_longer_mapped_go(client, source):
    sources = [("docs", source)]
    first = members_of([0, 1])
    enrich_sources(client, sources, first, GROUPS, DEFAULT, "run_1")
    renamed = [FieldMapping(source_field="cluster_label", target_field="topic")]
    enrich_sources(
        client,
        sources,
        members_of([0]),
        GROUPS,
        renamed,
        "run_2",
        first,
        ["run_1"],
        previous_mappings=DEFAULT,
    )
    found = payloads(client, source)
    assert found[0] == {"title": "t0", "topic": "Tools", "cluster_run_id": "run_2"}
    assert found[1] == {"title": "t1"}


def test_documents_deleted_in_between_are_counted(client, source):
    client.delete(source, [1, 3])
    report = enrich_sources(
        client, [("docs", source)], members_of([0, 0, 1, -1]), GROUPS, DEFAULT, "run_1"
    )
    assert (report.processed, report.enriched, report.failed) == (4, 2, 2)
    assert set(payloads(client, source)) == {0, 2}
    assert payloads(client, source)[2]["cluster_id"] == "cl_1"


def test_a_document_deleted_between_look_and_write_is_counted(
    client, client_between, between, source
):
    between.after["/qdrant.Points/Get"] = [lambda _: client.delete(source, [2])]
    report = enrich_sources(
        client_between, [("docs", source)], members_of([0, 0, 1, -1]), GROUPS, DEFAULT, "run_1"
    )
    assert (report.enriched, report.failed) == (3, 1)
    found = payloads(client, source)
    assert set(found) == {0, 1, 3}
    assert all(p["cluster_run_id"] == "run_1" for p in found.values())


def test_ids_may_be_uuids_and_very_large_numbers(client, collection_name):
    name = collection_name()
    ids = [str(uuid.uuid4()), 2**63 + 5, 0]
    fill(client, name, ids)
    report = enrich_sources(
        client, [("docs", name)], members_of([0, 1, 0], ids=ids), GROUPS, DEFAULT, "run_1"
    )
    assert report.failed == 0
    assert {p["cluster_run_id"] for p in payloads(client, name).values()} == {"run_1"}


def test_several_sources_are_written_under_their_own_names(client, collection_name):
    names = [collection_name(), collection_name()]
    for name in names:
        fill(client, name, range(2))
    members = pa.concat_tables(
        [members_of([0], collection="a"), members_of([1], ids=[1], collection="b")]
    )
    sources = list(zip(["a", "b"], names, strict=True))
    report = enrich_sources(client, sources, members, GROUPS, DEFAULT, "run_1")
    assert (report.enriched, report.batches) == (2, 2)
    assert payloads(client, names[0])[0]["cluster_id"] == "cl_0"
    assert payloads(client, names[0])[1] == {"title": "t1"}
    assert payloads(client, names[1])[1]["cluster_id"] == "cl_1"


@pytest.mark.parametrize("labels", [[], [-1, -1]])
def test_runs_without_groups_are_fine(client, source, labels):
    report = enrich_sources(client, [("docs", source)], members_of(labels), [], DEFAULT, "run_1")
    assert (report.processed, report.enriched) == (len(labels), len(labels))


def test_members_of_an_unknown_collection_are_refused(client, source):
    with pytest.raises(ValueError, match=r"members of \['docs'\]"):
        enrich_sources(client, [("other", source)], members_of([0]), GROUPS, DEFAULT, "run_1")


def test_a_collection_that_is_gone_says_so(client, source):
    client.delete_collection(source)
    with pytest.raises(CollectionNotFoundError, match=source):
        enrich_sources(client, [("docs", source)], members_of([0]), GROUPS, DEFAULT, "run_1")


def test_interrupted_enrichment_is_completed_by_repeating_it(client, collection_name):
    name = collection_name()
    fill(client, name, range(3000))
    members = members_of([i % 2 for i in range(3000)])
    sources = [("docs", name)]
    enrich_sources(client, sources, members, GROUPS, DEFAULT, "run_1")
    calls = iter([False, True])

    with pytest.raises(WriteStoppedError):
        enrich_sources(
            client,
            sources,
            members_of([0] * 3000),
            GROUPS,
            DEFAULT,
            "run_2",
            should_stop=lambda: next(calls, True),
        )

    half = payloads(client, name).values()
    runs = {p["cluster_run_id"] for p in half}
    assert runs == {"run_1", "run_2"}
    # Never mixed: the fields of a document are those of the run it names.
    assert all(p["cluster_id"] == "cl_0" for p in half if p["cluster_run_id"] == "run_2")

    seen = []
    report = enrich_sources(
        client,
        sources,
        members_of([0] * 3000),
        GROUPS,
        DEFAULT,
        "run_2",
        members,
        ["run_1"],
        progress=lambda done, n: seen.append((done, n)),
    )
    assert report == EnrichReport(3000, 3000, 0, 3, 0)
    assert seen[-1] == (3000, 3000)
    assert {p["cluster_run_id"] for p in payloads(client, name).values()} == {"run_2"}


def test_without_a_distance_a_group_is_written_as_one(client_between, between, source):
    """Equal values share one operation: what a run of a million documents lives on."""
    members = members_of([0, 0, 1, 0])
    enrich_sources(client_between, [("docs", source)], members, GROUPS, DEFAULT[:2], "run_1")

    (request,) = between.requests["/qdrant.Points/UpdateBatch"]
    operations = pb.UpdateBatchPoints.FromString(request).operations
    written = [
        sorted(point.num for point in operation.set_payload.points_selector.points.ids)
        for operation in operations
    ]
    assert written == [[0, 1, 3], [2]]


def test_a_qdrant_that_stays_away_is_said_to_be_unavailable():
    away = connect(QdrantAddress("127.0.0.1", grpc_port=1, timeout_s=2))
    policy = RetryPolicy(attempts=3, first_delay_s=0.01, max_delay_s=0.02)
    with pytest.raises(QdrantUnavailableError, match="does not answer"):
        enrich_sources(
            away, [("docs", "docs")], members_of([0]), GROUPS, DEFAULT, "run_1", policy=policy
        )
    away.close()


def test_a_cancel_ends_the_wait_for_a_qdrant_that_is_away():
    away = connect(QdrantAddress("127.0.0.1", grpc_port=1, timeout_s=2))
    stops = iter([False])
    policy = RetryPolicy(attempts=1000, first_delay_s=0.01, max_delay_s=0.01)
    with pytest.raises(WriteStoppedError):
        enrich_sources(
            away,
            [("docs", "docs")],
            members_of([0]),
            GROUPS,
            DEFAULT,
            "run_1",
            policy=policy,
            should_stop=lambda: next(stops, True),
        )
    away.close()


def abort(code):
    return lambda context: context.abort(code, "restarting")


def test_a_fault_that_passes_is_not_seen(client, client_between, between, source):
    between.before["/qdrant.Points/UpdateBatch"] = [
        abort(grpc.StatusCode.UNAVAILABLE),
        abort(grpc.StatusCode.RESOURCE_EXHAUSTED),
    ]
    # The third attempt is written, but its answer is lost.
    between.after["/qdrant.Points/UpdateBatch"] = [abort(grpc.StatusCode.UNAVAILABLE)]
    report = enrich_sources(
        client_between,
        [("docs", source)],
        members_of([0, 1]),
        GROUPS,
        DEFAULT,
        "run_1",
        policy=RetryPolicy(first_delay_s=0.001),
    )
    assert (report.enriched, report.failed) == (2, 0)
    assert len(between.requests["/qdrant.Points/UpdateBatch"]) == 4
    assert payloads(client, source)[0]["cluster_run_id"] == "run_1"


def test_a_refused_write_is_not_repeated(client_between, between, source):
    between.before["/qdrant.Points/UpdateBatch"] = [abort(grpc.StatusCode.PERMISSION_DENIED)]
    with pytest.raises(QdrantRefusedError, match="PERMISSION_DENIED"):
        enrich_sources(
            client_between, [("docs", source)], members_of([0]), GROUPS, DEFAULT, "run_1"
        )
    assert len(between.requests["/qdrant.Points/UpdateBatch"]) == 1


def test_in_a_shared_collection_only_its_own_documents_are_written(client, collection_name):
    name = collection_name()
    client.create_collection(name, vectors_config={})
    client.upsert(
        name,
        [
            models.PointStruct(id=i, vector={}, payload={"collection_id": "ab"[i % 2]})
            for i in range(6)
        ],
    )
    ours = f"{name}/a"
    # The members of a run name documents of the other collection too: those are not ours.
    members = members_of([0, 1, 0, 1, 0], ids=[0, 1, 2, 3, 4])
    report = enrich_sources(client, [("docs", ours)], members, GROUPS, DEFAULT, "run_1")

    assert (report.processed, report.enriched, report.failed) == (5, 3, 2)
    found = payloads(client, name)
    assert [i for i in found if "cluster_id" in found[i]] == [0, 2, 4]

    mappings = [FieldMapping(source_field="cluster_id", target_field="group")]
    enrich_sources(
        client, [("docs", ours)], members_of([0], ids=[0]), GROUPS, mappings, "run_2",
        members, ["run_1"], previous_mappings=DEFAULT,
    )  # fmt: skip
    found = payloads(client, name)
    assert found[0] == {"collection_id": "a", "group": "cl_0", "cluster_run_id": "run_2"}
    assert all(found[i] == {"collection_id": "ab"[i % 2]} for i in range(1, 6))
