"""Collections that share a Qdrant collection: no call reaches the documents of another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from qdrant_client import grpc as pb
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from server.qdrant.client import QdrantAddress, connect_async, qdrant_errors
from server.qdrant.errors import CollectionNotFoundError, QdrantRefusedError
from server.qdrant.shared import SharingClient, place_of

SIZE = 2


@pytest.fixture
def space(client: SharingClient, collection_name: Callable[[], str]) -> str:
    """A Qdrant collection with four documents of `docs`, two of `mail` and one of nobody."""
    name = collection_name()
    client.create_collection(
        name, vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
    )
    owners = ["docs"] * 4 + ["mail"] * 2 + [None]
    client.upsert(
        name,
        [
            models.PointStruct(
                id=number,
                vector=[1.0, float(number)],
                payload={"color": "red", **({"collection_id": owner} if owner else {})},
            )
            for number, owner in enumerate(owners)
        ],
        wait=True,
    )
    return name


def marked(client: SharingClient, space: str) -> set[Any]:
    """Give the ids of all documents of the Qdrant collection that have the field `mark`."""
    points, _ = client.scroll(space, limit=100)
    return {point.id for point in points if "mark" in (point.payload or {})}


def test_reads_find_the_collection_s_own_documents(client: SharingClient, space: str) -> None:
    docs, red = f"{space}/docs", models.FieldCondition(
        key="color", match=models.MatchValue(value="red")
    )  # fmt: skip
    points, _ = client.scroll(docs, models.Filter(must=[red]), limit=100)

    assert {point.id for point in points} == {0, 1, 2, 3}
    assert client.count(docs, exact=True).count == 4
    assert client.get_collection(docs).points_count == 4
    assert {record.id for record in client.retrieve(docs, [1, 4, 6, 99])} == {1}
    assert client.retrieve(docs, []) == []


async def test_the_server_s_own_client_reads_the_same(
    qdrant_address: QdrantAddress, space: str
) -> None:
    client = connect_async(qdrant_address)
    points, _ = await client.scroll(f"{space}/mail", limit=100)

    assert {point.id for point in points} == {4, 5}
    assert (await client.get_collection(f"{space}/mail")).points_count == 2
    found = await client.retrieve(f"{space}/mail", [1, 4], with_payload=False)
    assert [(record.id, record.payload) for record in found] in ([(4, None)], [(4, {})])
    with pytest.raises(CollectionNotFoundError):
        await client.get_collection(f"{space}/nothing")
    await client.close()


@pytest.mark.parametrize("points", [[0, 1, 4, 6], models.Filter(must_not=[])])
def test_writes_reach_the_collection_s_own_documents(
    client: SharingClient, space: str, points: Any
) -> None:
    whole = {0, 1, 2, 3} if isinstance(points, models.Filter) else {0, 1}
    client.set_payload(f"{space}/docs", {"mark": 1}, points, wait=True)
    assert marked(client, space) == whole

    client.set_payload(space, {"mark": 2}, list(range(7)), wait=True)
    client.delete_payload(f"{space}/docs", ["mark"], points, wait=True)
    assert marked(client, space) == set(range(7)) - whole


def test_operations_sent_together_are_held_to_it_too(client: SharingClient, space: str) -> None:
    everybody = [pb.PointId(num=number) for number in range(7)]
    by_id = pb.PointsSelector(points=pb.PointsIdsList(ids=everybody))
    red = models.FieldCondition(key="color", match=models.MatchValue(value="red"))
    by_color = pb.PointsSelector(filter=RestToGrpc.convert_filter(models.Filter(must=[red])))
    client.set_payload(space, {"mark": 1}, list(range(7)), wait=True)
    operations = [
        pb.PointsUpdateOperation(
            delete_payload=pb.PointsUpdateOperation.DeletePayload(
                keys=["mark"], points_selector=by_color
            )
        ),
        pb.PointsUpdateOperation(
            set_payload=pb.PointsUpdateOperation.SetPayload(
                payload={"seen": pb.Value(bool_value=True)}, points_selector=by_id
            )
        ),
    ]
    client.update_batch(f"{space}/docs", pb.UpdateBatchPoints(operations=operations), 10)

    points, _ = client.scroll(space, limit=100)
    assert {p.id for p in points if "seen" in (p.payload or {})} == {0, 1, 2, 3}
    assert marked(client, space) == {4, 5, 6}
    assert sorted(p.id.num for p in client.present(f"{space}/docs", everybody, 10)) == [0, 1, 2, 3]
    assert len(client.present(space, everybody, 10)) == 7
    deletion = pb.PointsUpdateOperation(
        delete_points=pb.PointsUpdateOperation.DeletePoints(points=by_id)
    )
    with pytest.raises(TypeError, match="cannot be held to a shared collection"):
        client.update_batch(f"{space}/docs", pb.UpdateBatchPoints(operations=[deletion]), 10)


def test_samples_are_the_collection_s_own(client: SharingClient, space: str) -> None:
    drawn = client.query_points(
        f"{space}/docs",
        query=models.SampleQuery(sample=models.Sample.RANDOM),
        limit=10,
        with_payload=False,
    )
    assert {point.id for point in drawn.points} == {0, 1, 2, 3}


def test_a_call_that_is_not_translated_finds_no_collection(
    client: SharingClient, space: str
) -> None:
    point = models.PointStruct(id=50, vector=[1.0, 2.0], payload={})
    with pytest.raises((CollectionNotFoundError, QdrantRefusedError)), qdrant_errors(space):
        client.upsert(f"{space}/docs", [point], wait=True)
    with pytest.raises((CollectionNotFoundError, QdrantRefusedError)), qdrant_errors(space):
        client.delete(f"{space}/docs", [0], wait=True)
    assert client.count(space, exact=True).count == 7


def test_a_name_without_a_slash_is_all_of_it() -> None:
    assert place_of("docs").only() is None
    assert place_of("docs").only([1, 2]) == [1, 2]
