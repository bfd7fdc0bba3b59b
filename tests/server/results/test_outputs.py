"""Output collections: what is in them, and that readers see the old or the new, never half."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace

import grpc
import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import models

from server.jobs.model import OutputCollection
from server.qdrant.client import connect
from server.results import renaming
from server.results.failures import OutputLostError, OutputNameTakenError, WriteStoppedError
from server.results.groups import Group, member_order, members_table
from server.results.outputs import (
    abandon_outputs,
    discard_outputs,
    generation_of,
    plan_output,
    publish_outputs,
    remove_outputs,
    slug,
    stage_groups,
    stage_members,
)

N_DIMS = 3


def groups_of(n_groups: int, n_members: int = 0) -> list[Group]:
    rng = np.random.default_rng(7)
    return [
        Group(
            f"cl_{i}",
            f"Gruppe {i} → größer",
            n_members,
            summary="What it is" if i == 0 else None,
            keywords=("a", "b") if i == 0 else (),
            parent_cluster_id="cl_0" if i == 1 else None,
            centroid=rng.normal(size=N_DIMS).astype(np.float32),
        )
        for i in range(n_groups)
    ]


def members_of(labels: np.ndarray, groups: list[Group]) -> pa.Table:
    n_points = len(labels)
    distances = np.linspace(0.5, 0.1, n_points) if n_points else np.zeros(0)
    return members_table(
        pa.array(["docs"] * n_points, pa.string()),
        pa.array([str(i) for i in range(n_points)], pa.string()),
        labels,
        groups,
        distances=distances,
    )


def stage(client, output, n_groups=2, labels=(0, 1, -1, 0), late=None, progress=None, **options):
    """Fill the output; `late` are the groups under names that come when members are written."""
    groups = groups_of(n_groups)
    labels = np.array(labels, dtype=np.int32)
    staged = stage_members(
        client,
        output,
        members_of(labels, groups),
        distance="Cosine",
        n_dims=N_DIMS,
        progress=progress,
        **options,
    )
    return stage_groups(client, output, staged, late or groups)


def documents(client, name, **match):
    must = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value))
        for key, value in match.items()
    ]
    records, _ = client.scroll(
        name, scroll_filter=models.Filter(must=must), limit=1000, with_vectors=True
    )
    return records


def next_generation(output: OutputCollection, run_id: str) -> OutputCollection:
    return output.model_copy(update={"generation": f"{output.name}.{run_id}"})


def test_groups_become_documents_with_their_centroid(client, output):
    stage(client, output)
    publish_outputs(client, output, drain_s=0)

    first, second = sorted(
        documents(client, output.name, is_centroid=True), key=lambda r: r.payload["cluster_id"]
    )

    assert first.payload == {
        "is_centroid": True,
        "cluster_id": "cl_0",
        "label": "Gruppe 0 → größer",
        "summary": "What it is",
        "keywords": ["a", "b"],
        "member_count": 0,
    }
    assert second.payload["parent_cluster_id"] == "cl_0"
    centroid = groups_of(1)[0].centroid
    assert first.vector["vector"] == pytest.approx(centroid / np.linalg.norm(centroid), abs=1e-6)


def renamed(groups: list[Group]) -> list[Group]:
    return [replace(group, label=f"{group.label}!") for group in groups]


def members_and_labels(client, name: str) -> set[tuple[str, str]]:
    return {
        (r.payload["cluster_id"], r.payload["cluster_label"])
        for r in documents(client, name, is_centroid=False)
    }


def test_names_that_come_last_reach_all_documents(client, output):
    groups = groups_of(3)
    late = [groups[0], *renamed(groups[1:])]
    labels = np.tile([0, 1, 2, -1], 20)
    seen = []

    def look(n_written: int, n_total: int) -> None:
        if n_written == n_total:
            seen.append(members_and_labels(client, output.generation))

    written = stage(client, output, 3, labels, late, look)

    first = {(group.cluster_id, group.label) for group in groups}
    assert written == 83
    assert seen == [first | {("cl_noise", "Noise")}]
    assert members_and_labels(client, output.generation) == {
        ("cl_0", "Gruppe 0 → größer"),
        ("cl_1", "Gruppe 1 → größer!"),
        ("cl_2", "Gruppe 2 → größer!"),
        ("cl_noise", "Noise"),
    }
    centroids = documents(client, output.generation, is_centroid=True)
    assert sorted(r.payload["label"] for r in centroids) == [group.label for group in late]


def test_names_that_come_between_two_batches_are_in_the_later_ones(
    client, output, monkeypatch: pytest.MonkeyPatch
):
    late = renamed(groups_of(1))
    known = []
    told = []
    n_members = 5_000
    requests = renaming.LateNames.requests

    def noted(staged, collection, groups):
        for request in requests(staged, collection, groups):
            told.append(len(request.points_selector.points.ids))
            yield request

    monkeypatch.setattr(renaming.LateNames, "requests", noted)

    stage(
        client,
        output,
        1,
        np.zeros(n_members),
        late,
        progress=lambda n_written, n_total: known.append(True),
        names=lambda: late if known else None,
        n_in_flight=1,
    )

    assert 0 < sum(told) < n_members  # Those written before, not those after.
    label = models.FieldCondition(key="cluster_label", match=models.MatchValue(value=late[0].label))
    counted = client.count(output.generation, count_filter=models.Filter(must=[label]))
    assert counted.count == n_members


def test_members_become_documents_without_vector(client, output):
    stage(client, output)

    members = documents(client, output.generation, is_centroid=False)
    of_group = documents(client, output.generation, cluster_id="cl_1", is_centroid=False)

    assert len(members) == 4
    assert all(not record.vector for record in members)
    assert of_group[0].payload == {
        "is_centroid": False,
        "cluster_id": "cl_1",
        "cluster_label": "Gruppe 1 → größer",
        "source_collection_id": "docs",
        "source_document_id": "1",
        "distance_to_centroid": pytest.approx(0.5 - 0.4 / 3),
    }
    (noise,) = documents(client, output.generation, cluster_id="cl_noise")
    assert noise.payload["cluster_label"] == "Noise"
    assert "distance_to_centroid" not in noise.payload


def test_a_search_finds_the_nearest_centroid(client, output):
    stage(client, output)
    wanted = groups_of(2)[1].centroid
    found = client.query_points(
        output.generation, query=wanted.tolist(), using="vector", limit=1
    ).points
    assert found[0].payload["cluster_id"] == "cl_1"


def test_members_carry_their_own_vector_when_asked_for(client, output):
    labels = np.array([1, 0, 0, -1], dtype=np.int32)
    groups = groups_of(2)
    vectors = np.eye(4, N_DIMS, dtype=np.float32)
    vectors[3] = [0, 0, -1]
    distances = np.linspace(0.5, 0.1, 4)
    stage_members(
        client,
        output,
        members_of(labels, groups),
        distance="Euclid",
        n_dims=N_DIMS,
        vectors=vectors,
        vector_rows=member_order(labels, distances),
    )
    for record in documents(client, output.generation, is_centroid=False):
        source = int(record.payload["source_document_id"])
        assert record.vector["vector"] == vectors[source].tolist()


def test_both_fields_that_readers_filter_by_are_indexed(client, output):
    stage(client, output)
    schema = client.get_collection(output.generation).payload_schema
    assert {name: index.data_type.value for name, index in schema.items()} == {
        "cluster_id": "keyword",
        "is_centroid": "bool",
    }


@pytest.mark.parametrize(
    ("n_groups", "labels", "expected"),
    [(0, [], 0), (0, [-1, -1, -1], 3), (1, [0], 2), (3, [], 3)],
)
def test_small_runs_are_whole_too(client, output, n_groups, labels, expected):
    assert stage(client, output, n_groups=n_groups, labels=labels) == expected
    assert publish_outputs(client, output, drain_s=0) == "switched"
    assert client.count(output.name, exact=True).count == expected


def test_a_run_without_vectors_has_outputs_without_vectors(client, output):
    groups = [Group("cl_0", "web", 2)]
    members = members_of(np.array([0, 0]), groups)
    staged = stage_members(client, output, members, distance="", n_dims=None)
    stage_groups(client, output, staged, groups)
    assert client.count(output.generation, exact=True).count == 3


def test_progress_ends_with_all_members(client, output):
    seen = []
    labels = np.zeros(4500, dtype=np.int32)
    stage(
        client, output, n_groups=1, labels=labels, progress=lambda done, n: seen.append((done, n))
    )
    assert len(seen) >= 3
    assert seen[-1] == (4500, 4500)
    assert sorted(seen) == seen


def test_an_interrupted_staging_is_repeated_from_the_start(client, output):
    calls = iter([False, False, True])
    with pytest.raises(WriteStoppedError):
        stage(
            client,
            output,
            n_groups=1,
            labels=np.zeros(9000),
            should_stop=lambda: next(calls, True),
        )
    assert 0 < client.count(output.generation, exact=True).count < 9001

    assert stage(client, output, labels=[0, 1, -1]) == 5
    assert client.count(output.generation, exact=True).count == 5


def test_discarding_leaves_what_readers_see(client, output):
    second = next_generation(output, "run_2")
    stage(client, output)
    publish_outputs(client, output, drain_s=0)
    stage(client, second)

    assert discard_outputs(client, second) is True
    assert discard_outputs(client, second) is False
    assert discard_outputs(client, output) is False
    assert client.count(output.name, exact=True).count == 6


def attempts(output: OutputCollection, *numbers: int) -> list[OutputCollection]:
    """The generations of several attempts of one run."""
    return [
        output.model_copy(update={"generation": generation_of(output.name, "run_1", number)})
        for number in numbers
    ]


def test_an_attempt_discards_those_before_it_and_none_after(client, output):
    first, second, third = attempts(output, 1, 2, 3)
    for each in (third, second, first):  # Those before are slow; they do not touch the third.
        stage(client, each)

    assert discard_outputs(client, second) is True
    assert not client.collection_exists(first.generation)
    assert not client.collection_exists(second.generation)
    assert client.count(third.generation, exact=True).count == 6


def test_an_attempt_that_lost_its_run_abandons_its_own_generation_alone(client, output):
    first, second = attempts(output, 1, 2)
    stage(client, second)
    stage(client, first)

    assert abandon_outputs(client, second) is True
    assert abandon_outputs(client, second) is False
    publish_outputs(client, first, drain_s=0)
    assert abandon_outputs(client, first) is False
    assert client.count(output.name, exact=True).count == 6


def test_publishing_twice_changes_nothing(client, output):
    stage(client, output)
    assert publish_outputs(client, output, drain_s=0) == "switched"
    assert publish_outputs(client, output, drain_s=0) == "already"
    assert client.count(output.name, exact=True).count == 6


def test_a_second_publisher_finishes_what_the_first_left(client, output):
    second = next_generation(output, "run_2")
    stage(client, output)
    publish_outputs(client, output, drain_s=0)
    stage(client, second)
    # The first publisher died between the switch and the removal.
    client.update_collection_aliases(
        [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(
                    collection_name=second.generation, alias_name=output.name
                )
            )
        ]
    )
    assert publish_outputs(client, second, drain_s=0) == "already"
    assert not client.collection_exists(output.generation)


def test_a_late_publisher_does_not_bring_the_old_back(client, output):
    second = next_generation(output, "run_2")
    stage(client, output)
    stage(client, second, labels=[0])
    publish_outputs(client, second, drain_s=0)

    assert publish_outputs(client, output, drain_s=0) == "superseded"
    assert client.count(output.name, exact=True).count == 3


def test_a_generation_in_work_is_left_alone(client, output):
    second = next_generation(output, "run_2")
    stage(client, output)
    stage(client, second)
    publish_outputs(client, output, in_work=[second.generation], drain_s=0)
    assert client.collection_exists(second.generation)


def test_collections_that_only_look_alike_stay(client, output, collection_name):
    stage(client, output)
    lookalikes = [f"{output.name}.backup", f"{output.name}.run_1.copy", f"{output.name}2.run_1"]
    for name in lookalikes:
        client.create_collection(name, vectors_config={})
    try:
        publish_outputs(client, next_generation(output, "run_1"), drain_s=0)
        remove_outputs(client, output)
        assert all(client.collection_exists(name) for name in lookalikes)
    finally:
        for name in lookalikes:
            client.delete_collection(name)


def test_somebody_elses_collection_of_that_name_is_not_touched(client, output, collection_name):
    taken = collection_name()
    clash = OutputCollection(collection_id=taken, name=taken, generation=f"{taken}.run_1")
    stage(client, clash)
    client.create_collection(taken, vectors_config={})
    try:
        with pytest.raises(OutputNameTakenError, match=taken):
            publish_outputs(client, clash, drain_s=0)
        with pytest.raises(OutputNameTakenError, match=taken):
            stage(client, clash)
        assert client.count(taken, exact=True).count == 0
    finally:
        discard_outputs(client, clash)


def test_a_document_that_somebody_added_is_found_out(client, output):
    def add_one(done: int, total: int) -> None:
        client.upsert(output.generation, [models.PointStruct(id=1, vector={}, payload={})])

    with pytest.raises(OutputLostError, match="holds 7 documents after 6 were written"):
        stage(client, output, progress=add_one)


def test_a_lost_answer_writes_nothing_twice(client, client_between, between, output):
    def lose(context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")

    between.after = {
        "/qdrant.Points/Upsert": [lose],
        "/qdrant.Collections/Create": [lose],
        "/qdrant.Collections/UpdateAliases": [lose],
    }
    assert stage(client_between, output) == 6
    assert publish_outputs(client_between, output, drain_s=0) == "switched"
    assert between.after == {method: [] for method in between.after}
    assert client.count(output.name, exact=True).count == 6


def test_publishing_what_was_never_staged_fails(client, output):
    with pytest.raises(OutputLostError, match="gone before it was published"):
        publish_outputs(client, output, drain_s=0)


def test_a_published_generation_is_not_filled_again(client, output):
    stage(client, output)
    publish_outputs(client, output, drain_s=0)
    with pytest.raises(OutputLostError, match="published already"):
        stage(client, output)
    assert client.count(output.name, exact=True).count == 6


def test_removing_outputs_leaves_nothing_and_may_be_repeated(client, output):
    stage(client, output)
    publish_outputs(client, output, drain_s=0)
    stage(client, next_generation(output, "run_2"))

    assert remove_outputs(client, output) == 2
    assert remove_outputs(client, output) == 0
    assert not client.collection_exists(output.name)


def test_readers_see_a_full_generation_all_the_time(qdrant_address, client, output):
    """The sizes of the generations tell which one a reader saw; nothing else may be seen."""
    sizes = [300, 450, 600]
    stage(client, output, n_groups=1, labels=np.zeros(sizes[0], dtype=np.int32))
    publish_outputs(client, output, drain_s=0)
    seen: list[int | str] = []
    is_over = threading.Event()
    has_read = threading.Semaphore(0)

    def read() -> None:
        reader = connect(qdrant_address)
        while not is_over.is_set():
            try:
                records, _ = reader.scroll(output.name, limit=1000, with_payload=False)
                seen.append(len(records))
            except Exception as error:
                seen.append(repr(error))
            has_read.release()
        reader.close()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number, size in enumerate(sizes[1:], start=2):
        generation = next_generation(output, f"run_{number}")
        stage(client, generation, n_groups=1, labels=np.zeros(size, dtype=np.int32))
        publish_outputs(client, generation, drain_s=0.2)
        for _ in range(4):
            assert has_read.acquire(timeout=20)
    is_over.set()
    for thread in threads:
        thread.join(timeout=20)

    assert set(seen) <= {size + 1 for size in sizes}
    assert sizes[-1] + 1 in seen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Clusters", "my-clusters"),
        ("  Größe & Maß__2024  ", "grosse-mass-2024"),
        ("日本語", "cluster"),
        ("--", "cluster"),
        ("x" * 300, "x" * 64),
        ("clust_1/../../etc", "clust-1-etc"),
    ],
)
def test_slugs_are_plain_names(text, expected):
    assert slug(text) == expected


def test_output_names_follow_the_template():
    output = plan_output(
        "My Clusters",
        "clust_abcdefghij",
        "run_9",
        "ns_1",
        "{namespace_id}__{collection_id}",
        feature="Text Embedding",
    )
    assert output == OutputCollection(
        collection_id="my-clusters-efghij-text-embedding",
        name="ns_1__my-clusters-efghij-text-embedding",
        generation="ns_1__my-clusters-efghij-text-embedding.run_9",
        feature="Text Embedding",
    )


def test_an_output_can_be_named_as_an_input():
    output = plan_output("日本__x", f"clust_{uuid.uuid4().hex}", "run_1", "ns", "{collection_id}")
    assert "__" not in output.collection_id
    assert output.collection_id.startswith("x-")
    assert output.name == output.collection_id


def test_the_short_id_stands_in_a_name_once():
    name = "clusters of docs abc123"
    output = plan_output(name, "clust_000000abc123", "run_1", "ns", "{collection_id}")
    assert output.collection_id == "clusters-of-docs-abc123"


def test_attempts_of_a_run_never_share_a_generation(client, output):
    first = output.model_copy(update={"generation": generation_of(output.name, "run_7", 1)})
    second = output.model_copy(update={"generation": generation_of(output.name, "run_7", 2)})
    other = next_generation(output, "run_70")
    stage(client, other)
    stage(client, first)
    stage(client, second)  # Removes what the attempt before it staged.
    assert not client.collection_exists(first.generation)
    assert client.collection_exists(other.generation)

    publish_outputs(client, second, in_work=[other.generation], drain_s=0)
    assert client.count(output.name, exact=True).count == 6
    assert not discard_outputs(client, first)
    assert client.count(output.name, exact=True).count == 6
