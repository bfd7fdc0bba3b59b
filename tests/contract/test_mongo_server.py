"""MongoDB's own ways to fail: no server, a bad address, a newer layout, a foreign document."""

from __future__ import annotations

import pickle
import socket

import pytest
from store_records import NAMESPACE, cluster

from server.errors import PreconditionError, UnavailableError
from server.stores.documents import StoreVersionError, UnreadableRecordError
from server.stores.mongo import MongoStore


async def test_a_server_that_is_away_is_unavailable_soon() -> None:
    with socket.socket() as taken:  # Bound but not listening: nobody answers here.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        store = MongoStore(f"mongodb://user:s3cret@127.0.0.1:{port}", "shoal", timeout_s=0.2)
        with pytest.raises(UnavailableError, match="see whether it runs") as caught:
            await store.open()
    assert "s3cret" not in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), UnavailableError)
    with pytest.raises(UnavailableError, match="closed"):
        await store.ping()


@pytest.mark.parametrize(
    "uri", ["", "mongodb://user:s3:cret@host", "mongodb://u:s3cret/@host:port"]
)
async def test_a_bad_address_is_told_without_its_password(uri: str) -> None:
    with pytest.raises(PreconditionError, match="address is not valid") as caught:
        await MongoStore(uri, "shoal").open()
    assert "cret" not in str(caught.value)


async def test_a_newer_layout_is_refused(mongodb_uri: str) -> None:
    store = MongoStore(mongodb_uri, "shoal_test_newer")
    await store.open()
    await store._database.meta.update_one({"_id": "store"}, {"$set": {"version": 99}})
    try:
        with pytest.raises(StoreVersionError, match=r"layout 99.*upgrade"):
            await MongoStore(mongodb_uri, "shoal_test_newer").open()
    finally:
        await store._client.drop_database("shoal_test_newer")
        await store.close()


async def test_the_server_makes_the_indexes_it_needs(mongodb_uri: str) -> None:
    store = MongoStore(mongodb_uri, "shoal_test_indexes")
    await store.open()
    try:
        made = await store._database.clusters.index_information()
        events = await store._database.events.index_information()
    finally:
        await store._client.drop_database("shoal_test_indexes")
        await store.close()
    unique = {
        tuple(name for name, _ in index["key"]) for index in made.values() if "unique" in index
    }
    assert ("namespace_id", "cluster_name") in unique
    assert ("request_key",) in unique
    keys = [tuple(name for name, _ in index["key"]) for index in made.values()]
    assert ("claimable_us",) in keys
    assert any([*index["key"]] == [("run_id", 1), ("sequence", -1)] for index in events.values())


async def test_a_foreign_document_is_told(mongodb_uri: str) -> None:
    store = MongoStore(mongodb_uri, "shoal_test_foreign")
    await store.open()
    try:
        await store._database.clusters.insert_one({"_id": "x", "namespace_id": NAMESPACE})
        await store.insert_cluster(cluster(1))
        with pytest.raises(UnreadableRecordError, match="'x'"):
            await store.get_cluster(NAMESPACE, "x")
        assert (await store.get_cluster(NAMESPACE, "clust_1")) == cluster(1)
    finally:
        await store._client.drop_database("shoal_test_foreign")
        await store.close()
