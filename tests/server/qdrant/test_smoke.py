from qdrant_client import models


def test_points_come_back(client, collection_name):
    name = collection_name()
    client.create_collection(name, vectors_config=models.VectorParams(size=2, distance="Euclid"))
    client.upsert(name, [models.PointStruct(id=1, vector=[1.0, 2.0], payload={"a": True})])
    records, following = client.scroll(name, with_vectors=True)
    assert [(r.id, r.vector, r.payload) for r in records] == [(1, [1.0, 2.0], {"a": True})]
    assert following is None


async def test_async_client_works(async_client, collection_name):
    name = collection_name()
    await async_client.create_collection(name, vectors_config={})
    assert (await async_client.count(name)).count == 0
