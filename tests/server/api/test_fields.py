"""Every field of Cluster, Execution, Group and Member: when it is filled, as the page says.

Records are built by hand, one moment after another: what a moment adds to the answer has to be
what `docs/fields.md` lists under its word, and every field has to be filled at some moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters.v1.cluster_pb2 import Cluster
from clusters.v1.execution_pb2 import Execution
from clusters.v1.group_pb2 import Group as GroupMessage
from clusters.v1.group_pb2 import Member as MemberMessage
from google.protobuf import json_format
from google.protobuf.message import Message
from store_records import after, cluster

from server.api.convert.clusters import cluster_to_pb
from server.api.convert.executions import execution_to_pb
from server.api.convert.groups import broken_off, group_to_pb, member_to_pb
from server.errors import NotFoundError
from server.jobs.definition import ClusterDefinition, parse_definition
from server.jobs.findings import Member
from server.jobs.model import (
    ClusterRecord,
    OutputCollection,
    ParentGroup,
    RunError,
    RunRecord,
    RunResult,
)
from server.results.groups import MEMBERS_SCHEMA, Group

PAGE = Path(__file__).parents[3] / "docs" / "fields.md"
TEXT, IMAGE = "mixpeek://text@v1/embedding", "mixpeek://image@v1/embedding"

VECTOR: dict[str, Any] = {
    "collection_ids": ["docs"],
    "vector_config": {"clustering_method": "auto"},
}
ATTRIBUTE: dict[str, Any] = {
    "collection_ids": ["docs"],
    "cluster_type": "attribute",
    "attribute_config": {"attributes": ["section"]},
}
LABELING = {
    "enabled": True,
    "model_name": "gpt-4o-mini-2024-07-18",
    "labeling_inputs": {"input_mappings": [{"input_key": "title", "path": "title"}]},
}
MAPPINGS = [{"source_field": "cluster_id", "target_field": "topic"}]
SENT: dict[str, Any] = VECTOR | {
    "vector_config": {
        "clustering_method": "auto",
        "feature_uris": [TEXT, IMAGE],
        "multi_feature_strategy": "weighted",
        "algorithm_params": {"random_state": 7},
        "sample_size": 100,
    },
    "filters": {"section": "python"},
    "llm_labeling": LABELING,
    "enrich_source_collection": True,
    "source_enrichment_config": {"field_mappings": MAPPINGS},
    "description": "for people",
    "metadata": {"owner": "search"},
    "parent_cluster_id": "upper",
    "parent_group_id": "cl_3",
}
RELATION = {
    "parent_cluster_id": "cl_0",
    "child_cluster_id": "cl_0_sub_0",
    "overlap": 1.0,
    "method": "nested",
}
RESULT = RunResult(
    algorithm="hdbscan",
    num_clusters=2,
    num_documents=90,
    num_noise=9,
    device="cpu",
    device_reason="SHOAL_DEVICE is cpu",
    effective_params={"min_cluster_size": 5},
    feature_uris=[TEXT],
    distance="cosine",
    learned_weights={TEXT: 0.75, IMAGE: 0.25},
    learning_quality_score=0.5,
    hierarchy_relationships=[RELATION],
    quality_metrics={"silhouette": 0.25, "davies_bouldin": float("nan")},
    timings_s={"export": 0.5, "cluster": 1.5},
    timeline={"export": [[0.25, 0.75]], "cluster": [[1.0, 2.5]]},
    outputs=[OutputCollection(collection_id="out_1", name="topics-1", generation="out_1__a")],
    artifacts_url="file:///artifacts/run_2",
    source_bucket_ids=["bkt_1", "bkt_2"],
    labeling_errors=["the model did not answer: cl_1"],
    libraries={"numpy": "2.4"},
    labeling_usage={"requests": 3, "prompt_tokens": 120},
)
GROUP = Group(cluster_id="cl_0", label="Tests", member_count=81)


def draft(body: dict[str, Any], **changes: Any) -> ClusterRecord:
    return cluster(1, definition=parse_definition(body), **changes)


def queued(definition: ClusterDefinition, number: int = 1, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "run_id": f"run_{number}",
        "task_id": f"task_{number}",
        "definition": definition,
        "queued_at": after(number),
    }
    return RunRecord(**(values | changes))


STARTED: dict[str, Any] = {"status": "processing", "stage": "cluster", "started_at": after(10)}
FOUND = STARTED | {
    "status": "completed",
    "stage": "write",
    "finished_at": after(14.5),
    "result": RESULT,
    "warnings": ["3 documents have no vector"],
}
FAILED = STARTED | {
    "status": "failed",
    "finished_at": after(12),
    "error": RunError(reason="DEVICE_MEMORY", message="too many documents"),
    "warnings": ["tried twice"],
}


def with_run(body: dict[str, Any], *moments: dict[str, Any]) -> ClusterRecord:
    """Give a cluster with a run for each of `moments`."""
    record = draft(body)
    runs = [queued(record.definition, n, **moment) for n, moment in enumerate(moments, start=1)]
    return record.model_copy(update={"runs": runs})


def execution(body: dict[str, Any], moment: dict[str, Any], *groups: Group) -> Execution:
    record = with_run(body, moment)
    figures = {"elbow": {"n_clusters": [1, 2]}} if groups else {}
    return execution_to_pb(
        record, record.runs[-1], [group_to_pb(group) for group in groups], figures
    )


def filled(message: Message) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def shown(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def moments_of_clusters() -> Iterator[tuple[str, set[str]]]:
    """Give what each moment adds to a Cluster, under the page's word for the moment."""
    bare, attributes = filled(cluster_to_pb(draft(VECTOR))), filled(cluster_to_pb(draft(ATTRIBUTE)))
    yield "always", bare & attributes
    yield "vector", bare - attributes
    yield "attribute", attributes - bare
    yield "sent", filled(cluster_to_pb(draft(SENT))) - bare
    waiting = filled(cluster_to_pb(with_run(VECTOR, {})))
    yield "queued", waiting - bare
    working = filled(cluster_to_pb(with_run(VECTOR, STARTED)))
    yield "started", working - waiting
    yield "ended", filled(cluster_to_pb(with_run(VECTOR, FAILED))) - working
    yield "found", filled(cluster_to_pb(with_run(VECTOR, FOUND))) - working
    yield "child", filled(cluster_to_pb(draft(VECTOR, child_cluster_ids=["clust_2"]))) - bare


def moments_of_executions() -> Iterator[tuple[str, set[str]]]:
    """Give what each moment adds to an Execution."""
    bare, working = filled(execution(VECTOR, {})), filled(execution(VECTOR, STARTED))
    yield "always", bare
    yield "sent", filled(execution(SENT, {})) - bare
    yield "started", working - bare
    yield "ended", filled(execution(VECTOR, FAILED)) - working
    yield "found", filled(execution(VECTOR, FOUND, GROUP)) - working


def moments_of_groups() -> Iterator[tuple[str, set[str]]]:
    """Give what each trait of a group adds to it."""
    bare = filled(group_to_pb(GROUP))
    place = np.array([0.5, -1.5, 2.5], dtype=np.float32)
    yield "always", bare
    for word, changes, with_vector in (
        ("named", {"summary": "All about tests", "keywords": ("tests",)}, False),
        ("nested", {"parent_cluster_id": "cl_9"}, False),
        ("independent", {"feature_uri": TEXT}, False),
        ("placed", {"place": place[:2]}, False),
        ("asked", {"centroid": place}, True),
        ("vector", {"cohesion": 0.25}, False),
    ):
        yield word, filled(group_to_pb(replace(GROUP, **changes), with_vector=with_vector)) - bare
    yield "deep", {"z"} & filled(group_to_pb(replace(GROUP, place=place)))


def moments_of_members() -> Iterator[tuple[str, set[str]]]:
    """Give what each trait of a member adds to it."""
    row: dict[str, Any] = dict.fromkeys(MEMBERS_SCHEMA.names)
    row |= dict.fromkeys(MEMBERS_SCHEMA.names[:4], "a")

    def of(payload: dict[str, Any] | None = None, **values: float) -> set[str]:
        return filled(member_to_pb(Member(1, row | values, payload)))

    yield "always", of()
    yield "vector", of(distance_to_centroid=0.5, confidence=0.5) - of()
    yield "placed", of(x=0.5, y=0.5) - of()
    yield "deep", of(x=0.5, y=0.5, z=0.5) - of(x=0.5, y=0.5)
    yield "asked", of({"title": "x"}) - of()
    yield "broken", filled(broken_off(NotFoundError("group", "cl_0")))


def documented(name: str) -> dict[str, set[str]]:
    """Read the page's rows about a message: field to the words of its moments."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \| \S.* \|$", section, re.MULTILINE)
    return {field: set(words.split(", ")) for field, words in rows}


@pytest.mark.parametrize("kind", [Cluster, Execution, GroupMessage, MemberMessage])
def test_the_page_names_every_field_in_the_order_of_the_contract(kind: type[Message]):
    assert list(documented(kind.DESCRIPTOR.name)) == [
        field.name for field in sorted(kind.DESCRIPTOR.fields, key=lambda field: field.number)
    ]


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        (Cluster, moments_of_clusters),
        (Execution, moments_of_executions),
        (GroupMessage, moments_of_groups),
        (MemberMessage, moments_of_members),
    ],
    ids=["Cluster", "Execution", "Group", "Member"],
)
def test_each_moment_fills_what_the_page_says_and_no_field_is_never_filled(
    kind: type[Message], moments: Any
):
    seen: dict[str, set[str]] = {field.name: set() for field in kind.DESCRIPTOR.fields}
    for word, names in moments():
        for name in names:
            seen[name].add(word)

    assert [name for name, words in seen.items() if not words] == []
    assert seen == documented(kind.DESCRIPTOR.name)


def test_a_successful_run_is_told_as_it_was():
    assert shown(cluster_to_pb(with_run(VECTOR, FOUND))) == {
        "cluster_name": "name 1",
        "namespace_id": "ns_a",
        "organization_id": "org_a",
        "input_collections": ["docs"],
        "cluster_type": "vector",
        "cluster_id": "clust_1",
        "source_bucket_ids": ["bkt_1", "bkt_2"],
        "feature_uris": [TEXT],
        "multi_feature_strategy": "concatenate",
        "learned_weights": {TEXT: 0.75, IMAGE: 0.25},
        "learning_quality_score": 0.5,
        "effective_feature_method": "mean",
        "output_collection_ids": ["out_1"],
        "output_collection_names": ["topics-1"],
        "algorithm": "hdbscan",
        "num_clusters": 2,
        "num_documents_clustered": 90,
        "execution_time_seconds": 4.5,
        "hierarchy_detected": True,
        "hierarchy_relationships": [RELATION],
        "status": "COMPLETED_WITH_ERRORS",
        "last_execution_task_id": "task_1",
        "created_at": "2026-03-01T12:00:01.123456Z",
        "updated_at": "2026-03-01T12:00:01.123456Z",
        "last_executed_at": "2026-03-01T12:00:10.123456Z",
        "completed_at": "2026-03-01T12:00:14.623456Z",
        "llm_labeling_errors": ["the model did not answer: cl_1"],
        "last_run_id": "run_1",
        # JSON has no NaN: a measure that is not defined is null, not absent and not 0.
        "quality_metrics": {"silhouette": 0.25, "davies_bouldin": None},
        "warnings": ["3 documents have no vector"],
        "vector_config": {"clustering_method": "auto"},
    }


def test_what_was_sent_comes_back_as_sent():
    answer = shown(cluster_to_pb(draft(SENT)))

    for name in ("filters", "llm_labeling", "source_enrichment_config", "metadata", "description"):
        assert answer[name] == SENT[name]
    assert answer["vector_config"] == SENT["vector_config"]
    assert answer["algorithm_params"] == {"random_state": 7}
    assert answer["enrich_source"] is True
    assert answer["status"] == "DRAFT"


def test_a_failed_run_leaves_what_the_one_before_found():
    answer = cluster_to_pb(with_run(VECTOR, FOUND, FAILED))

    assert (answer.status, answer.last_run_id, answer.error) == (
        "FAILED",
        "run_2",
        "too many documents",
    )
    assert list(answer.warnings) == ["tried twice"]
    assert (answer.num_clusters, answer.algorithm) == (2, "hdbscan")
    assert answer.completed_at.ToDatetime(after(0).tzinfo) == after(14.5)


def test_a_skipped_run_says_why_and_keeps_the_counts_before():
    skipped = RunResult(
        algorithm="auto", num_clusters=0, num_documents=1, skipped_reason="1 document is too few"
    )
    answer = cluster_to_pb(with_run(VECTOR, FOUND, FOUND | {"result": skipped, "warnings": []}))

    ran = filled(execution(VECTOR, FOUND | {"result": skipped}))

    assert answer.status == "SKIPPED"
    assert list(answer.warnings) == ["1 document is too few"]
    assert (answer.num_clusters, answer.num_documents_clustered) == (2, 90)
    # No method ran, so none is told of, and no device either.
    assert not ran & {"algorithm", "device", "device_reason", "effective_params"}


def test_a_parent_that_was_named_is_told_by_its_id():
    within = ParentGroup(cluster_id="clust_9", run_id="run_9", group_id="cl_3")
    answer = cluster_to_pb(with_run(SENT, {"within": within}))

    assert (answer.parent_cluster_id, answer.parent_group_id) == ("clust_9", "cl_3")


def test_a_failure_names_its_reason_for_programs():
    failed = execution(VECTOR, FAILED)

    assert (failed.error, failed.error_info.reason) == ("too many documents", "DEVICE_MEMORY")
    assert failed.execution_time_seconds == 2
