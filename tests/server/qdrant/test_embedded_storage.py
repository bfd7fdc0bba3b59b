"""The storage below the services: idle shards, dropping, unsupported requests."""

import threading

import grpc
import pytest
import qdrant_edge as edge
from qdrant_client import grpc as pb
from qdrant_client import models

from server.qdrant.embedded.errors import BadRequestError, MissingError, TakenError
from server.qdrant.embedded.storage import Storage
from server.qdrant.errors import StorageLockedError


def settings(name, size=2):
    return pb.CreateCollection(
        collection_name=name,
        vectors_config=pb.VectorsConfig(
            params=pb.VectorParams(size=size, distance=pb.Distance.Euclid)
        ),
    )


@pytest.fixture
def storage(tmp_path):
    opened = Storage(tmp_path, interval_s=0.02, idle_s=0.05, max_open=32)
    yield opened
    opened.close()


def wait_until(condition, timeout_s=10):
    done = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError(f"not true within {timeout_s} s")


def write_one(collection, point_id):
    with collection.shard(is_write=True) as shard:
        point = edge.Point(point_id, [1.0, 2.0], {})
        shard.update(edge.UpdateOperation.upsert_points([point]))


def test_an_idle_shard_is_closed_and_opens_again(storage):
    collection = storage.create(settings("c"))
    assert not collection.is_open
    write_one(collection, 1)
    wait_until(lambda: not collection.is_open)
    with collection.shard() as shard:
        assert shard.count(edge.CountRequest()) == 1


def test_a_shard_in_use_is_not_closed(storage):
    collection = storage.create(settings("c"))
    with collection.shard():
        assert not collection.close_if_idle(0.0)
        assert collection.is_open


def test_open_shards_above_the_limit_are_closed(tmp_path):
    storage = Storage(tmp_path, interval_s=0.02, idle_s=3600, max_open=2)
    collections = [storage.create(settings(f"c{i}")) for i in range(5)]
    for collection in collections:
        write_one(collection, 1)
    wait_until(lambda: [c.is_open for c in collections] == [False, False, False, True, True])
    storage.close()


def test_dropping_waits_for_the_call_in_progress(storage):
    collection = storage.create(settings("c"))
    with collection.shard() as shard:
        dropper = threading.Thread(target=storage.delete, args=("c",))
        dropper.start()
        wait_until(lambda: collection._is_dropped)
        with pytest.raises(MissingError), collection.shard():
            pass
        assert shard.count(edge.CountRequest()) == 0  # The files are still there.
    dropper.join()
    assert storage.names() == []
    storage.create(settings("c"))  # The name is free at once.


def test_one_owner_per_process_too(storage, tmp_path):
    with pytest.raises(StorageLockedError):
        Storage(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "..\\x", "x" * 256, "nul\0"])
def test_names_that_qdrant_refuses(storage, name):
    with pytest.raises(BadRequestError):
        storage.create(settings(name))


def test_a_failed_create_leaves_no_folder(storage, tmp_path):
    with pytest.raises(BadRequestError, match="size 0"):
        storage.create(settings("c", size=0))
    assert list((tmp_path / "collections").iterdir()) == []
    storage.create(settings("c"))


def test_an_alias_and_a_collection_cannot_share_a_name(storage):
    storage.create(settings("c"))
    make = pb.CreateAlias(collection_name="c", alias_name="a")
    storage.change_aliases([pb.AliasOperations(create_alias=make)])
    with pytest.raises(TakenError):
        storage.create(settings("a"))
    make = pb.CreateAlias(collection_name="c", alias_name="c")
    with pytest.raises(TakenError):
        storage.change_aliases([pb.AliasOperations(create_alias=make)])


class TestUnsupported:
    """What real Qdrant can and Edge cannot is refused by its name, never ignored."""

    @pytest.fixture(autouse=True)
    def _embedded_only(self, is_embedded):
        if not is_embedded:
            pytest.skip("a real Qdrant supports these")

    @pytest.fixture
    def name(self, client, collection_name):
        name = collection_name()
        client.create_collection(name, vectors_config=models.VectorParams(size=2, distance="Dot"))
        client.upsert(name, [models.PointStruct(id=1, vector=[1.0, 2.0])])
        return name

    def refused(self, call, words):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert words in caught.value.details()

    def test_filters(self, client, name):
        condition = pb.Condition(slice=pb.SliceCondition(total=2, index=0))
        request = pb.CountPoints(collection_name=name, filter=pb.Filter(must=[condition]))
        self.refused(lambda: client.grpc_points.Count(request, timeout=5), "slice")

    def test_calls(self, client, name):
        self.refused(lambda: client.search_matrix_pairs(name), "SearchMatrixPairs")
        self.refused(lambda: client.create_snapshot(name), "Snapshots/Create")

    def test_queries(self, client, name):
        query = models.FusionQuery(fusion=models.Fusion.RRF)
        prefetch = [models.Prefetch(query=[1.0, 2.0])]
        self.refused(lambda: client.query_points(name, query=query, prefetch=prefetch), "prefetch")
        recommend = models.RecommendQuery(recommend=models.RecommendInput(positive=[1]))
        self.refused(lambda: client.query_points(name, query=recommend), "recommend")

    def test_settings(self, client, collection_name):
        vectors = models.VectorParams(size=2, distance="Dot")
        scalar = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type="int8"))
        self.refused(
            lambda: client.create_collection(
                collection_name(), vectors_config=vectors, quantization_config=scalar
            ),
            "quantization_config",
        )
        self.refused(
            lambda: client.create_collection(
                collection_name(),
                vectors_config=vectors,
                sharding_method=models.ShardingMethod.CUSTOM,
            ),
            "custom sharding",
        )

    def test_shard_keys(self, client, name):
        self.refused(lambda: client.count(name, shard_key_selector="a"), "shard_key_selector")
