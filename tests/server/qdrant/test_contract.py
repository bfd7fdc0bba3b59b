"""What shoal relies on from a Qdrant, asked through the official clients.

Run against the embedded server, and against a real one with SHOAL_TEST_QDRANT_URL.
"""

import asyncio
import uuid

import grpc
import numpy as np
import pytest
from qdrant_client import grpc as pb
from qdrant_client import models
from qdrant_client.models import Distance, FieldCondition, Filter, PointStruct, VectorParams
from qdrant_helpers import found, put, status_of

SOME_UUID = "0b7e9c6e-8b0a-4d5f-9f5e-2f7c1f6d9a11"


class TestCollections:
    def test_are_listed_found_and_deleted(self, client, plain):
        assert plain in [c.name for c in client.get_collections().collections]
        assert client.collection_exists(plain)
        assert client.delete_collection(plain)
        assert not client.collection_exists(plain)
        assert status_of(lambda: client.count(plain))[0] is grpc.StatusCode.NOT_FOUND

    def test_unknown_one_is_not_found_and_named(self, client):
        for call in (
            lambda: client.get_collection("nowhere"),
            lambda: client.scroll("nowhere"),
            lambda: client.upsert("nowhere", [PointStruct(id=1, vector=[1.0, 2.0])]),
        ):
            code, words = status_of(call)
            assert code is grpc.StatusCode.NOT_FOUND
            assert "`nowhere`" in words

    def test_deleting_a_missing_one_says_false(self, client):
        assert client.delete_collection("nowhere") is False

    def test_a_taken_name_is_refused(self, client, plain):
        config = VectorParams(size=2, distance=Distance.EUCLID)
        code, _ = status_of(lambda: client.create_collection(plain, vectors_config=config))
        assert code in (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.INVALID_ARGUMENT)

    def test_info_tells_vectors_indexes_and_count(self, client, named):
        client.upsert(named, [PointStruct(id=1, vector={"text": [1, 2, 3]}, payload={"s": "a"})])
        client.create_payload_index(named, "s", models.PayloadSchemaType.KEYWORD)
        client.create_payload_index(
            named,
            "t",
            models.TextIndexParams(type="text", tokenizer="word", lowercase=True),
        )
        info = client.get_collection(named)
        assert info.config.params.vectors["text"].size == 3
        assert info.config.params.vectors["image"].distance == Distance.MANHATTAN
        assert info.points_count == 1
        assert info.payload_schema["s"].data_type == models.PayloadSchemaType.KEYWORD
        assert info.payload_schema["t"].params.tokenizer == models.TokenizerType.WORD

    def test_a_collection_may_have_no_vectors(self, client, collection_name):
        name = collection_name()
        client.create_collection(name, vectors_config={})
        client.upsert(name, [PointStruct(id=7, vector={}, payload={"a": 1})])
        (record,) = client.retrieve(name, [7], with_vectors=True)
        assert record.payload == {"a": 1}
        assert not record.vector

    def test_settings_can_be_updated(self, client, plain):
        client.update_collection(
            plain, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=77)
        )
        assert client.get_collection(plain).config.optimizer_config.indexing_threshold == 77


class TestVectors:
    def test_cosine_vectors_are_normalized(self, client, collection_name):
        name = collection_name()
        client.create_collection(name, vectors_config=VectorParams(size=2, distance="Cosine"))
        client.upsert(name, [PointStruct(id=1, vector=[3.0, 4.0])])
        (record,) = client.retrieve(name, [1], with_vectors=True)
        assert record.vector == pytest.approx([0.6, 0.8], abs=1e-6)

    @pytest.mark.parametrize("distance", ["Euclid", "Dot", "Manhattan"])
    def test_other_vectors_come_back_bit_by_bit(self, client, collection_name, distance):
        name = collection_name()
        client.create_collection(name, vectors_config=VectorParams(size=8, distance=distance))
        sent = np.random.default_rng(5).normal(size=8).astype(np.float32)
        client.upsert(name, [PointStruct(id=1, vector=sent.tolist())])
        (record,) = client.retrieve(name, [1], with_vectors=True)
        assert np.array_equal(np.array(record.vector, dtype=np.float32), sent)

    def test_points_may_have_some_of_the_named_vectors(self, client, named):
        client.upsert(
            named,
            [
                PointStruct(id=1, vector={"text": [1, 2, 3], "image": [4, 5]}),
                PointStruct(id=2, vector={"image": [6, 7]}),
                PointStruct(id=3, vector={}),
            ],
        )
        records, _ = client.scroll(named, with_vectors=True)
        assert [r.vector for r in records] == [
            {"text": [1, 2, 3], "image": [4, 5]},
            {"image": [6, 7]},
            {},
        ]
        records, _ = client.scroll(named, with_vectors=["image"])
        assert [r.vector for r in records] == [{"image": [4, 5]}, {"image": [6, 7]}, {}]
        assert found(client, named, models.HasVectorCondition(has_vector="text")) == [1]

    def test_multivectors_and_sparse_vectors_come_back(self, client, collection_name):
        name = collection_name()
        client.create_collection(
            name,
            vectors_config={
                "rows": VectorParams(
                    size=2,
                    distance="Dot",
                    multivector_config=models.MultiVectorConfig(comparator="max_sim"),
                )
            },
            sparse_vectors_config={"words": models.SparseVectorParams()},
        )
        words = models.SparseVector(indices=[3, 9], values=[0.5, 2.0])
        client.upsert(name, [PointStruct(id=1, vector={"rows": [[1, 2], [3, 4]], "words": words})])
        (record,) = client.retrieve(name, [1], with_vectors=True)
        assert record.vector == {"rows": [[1, 2], [3, 4]], "words": words}

    def test_vectors_are_updated_and_deleted(self, client, named):
        client.upsert(named, [PointStruct(id=1, vector={"text": [1, 2, 3], "image": [4, 5]})])
        client.update_vectors(named, [models.PointVectors(id=1, vector={"image": [8, 9]})])
        client.delete_vectors(named, ["text"], points=[1])
        (record,) = client.retrieve(named, [1], with_vectors=True)
        assert record.vector == {"image": [8, 9]}

    @pytest.mark.parametrize(
        "vector",
        [{"text": [1.0, 2.0]}, {"txt": [1.0, 2.0, 3.0]}, [1.0, 2.0, 3.0]],
        ids=["size", "name", "unnamed"],
    )
    def test_one_wrong_vector_refuses_the_whole_batch(self, client, named, vector):
        good = PointStruct(id=1, vector={"text": [1.0, 2.0, 3.0]})
        bad = PointStruct(id=2, vector=vector)
        code, _ = status_of(lambda: client.upsert(named, [good, bad]))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert client.count(named).count == 0

    def test_nearest_points_come_first(self, client, plain):
        client.upsert(plain, [PointStruct(id=i, vector=[float(i), 0.0]) for i in range(5)])
        hits = client.query_points(plain, query=[3.2, 0.0], limit=2).points
        assert [hit.id for hit in hits] == [3, 4]
        assert hits[0].score == pytest.approx(0.2, abs=1e-5)
        hits = client.query_points(plain, query=3, limit=2, with_vectors=True).points
        assert sorted(hit.id for hit in hits) == [2, 4]


class TestScroll:
    def test_pages_cover_everything_once_in_id_order(self, client, plain):
        ids = [5, 1, 99, 2**40, SOME_UUID, 3, str(uuid.UUID(int=4))]
        client.upsert(plain, [PointStruct(id=i, vector=[0.0, 1.0]) for i in ids])
        seen, offset = [], None
        while True:
            records, offset = client.scroll(plain, limit=2, offset=offset)
            seen += [record.id for record in records]
            if offset is None:
                break
        assert seen == [1, 3, 5, 99, 2**40, str(uuid.UUID(int=4)), SOME_UUID]

    def test_payload_can_be_chosen(self, client, plain):
        put(client, plain, [{"a": 1, "b": {"c": 2, "d": 3}}])

        def payload(selector):
            return client.scroll(plain, with_payload=selector)[0][0].payload

        assert payload(True) == {"a": 1, "b": {"c": 2, "d": 3}}
        assert not payload(False)
        assert payload(["b.c"]) == {"b": {"c": 2}}
        assert payload(models.PayloadSelectorExclude(exclude=["b"])) == {"a": 1}

    def test_order_by_needs_an_index(self, client, plain):
        put(client, plain, [{"n": n} for n in (3, 1, 2)])
        order = models.OrderBy(key="n", direction=models.Direction.DESC)
        assert status_of(lambda: client.scroll(plain, order_by=order))[0] in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        client.create_payload_index(plain, "n", models.PayloadSchemaType.INTEGER)
        records, following = client.scroll(plain, order_by=order, limit=2)
        assert [(r.id, r.order_value) for r in records] == [(0, 3), (2, 2)]
        assert following is None

    def test_a_limit_of_zero_is_refused(self, client, plain):
        code, _ = status_of(lambda: client.scroll(plain, limit=0))
        assert code is grpc.StatusCode.INVALID_ARGUMENT

    def test_an_id_that_is_no_uuid_is_refused(self, client, plain):
        request = pb.GetPoints(collection_name=plain, ids=[pb.PointId(uuid="not-a-uuid")])
        code, _ = status_of(lambda: client.grpc_points.Get(request, timeout=5))
        assert code is grpc.StatusCode.INVALID_ARGUMENT

    def test_retrieve_leaves_missing_points_out(self, client, plain):
        put(client, plain, [{"a": 1}, {"a": 2}])
        assert {r.id for r in client.retrieve(plain, [1, 77, 0])} == {0, 1}

    async def test_the_async_client_reads_the_same(self, async_client, client, plain):
        put(client, plain, [{"a": i} for i in range(20)])
        results = await asyncio.gather(
            *(async_client.scroll(plain, limit=5, offset=i) for i in range(15))
        )
        assert [[r.id for r in records] for records, _ in results] == [
            list(range(i, i + 5)) for i in range(15)
        ]


class TestPayload:
    def test_values_of_every_kind_come_back(self, client, plain):
        payload = {
            "null": None,
            "bool": True,
            "int": -(2**53),
            "float": 0.1,
            "text": "žluťoučký \N{HORSE}",
            "list": [1, "a", None, [2.5]],
            "object": {"deep": {"deeper": []}},
        }
        put(client, plain, [payload])
        (record,) = client.retrieve(plain, [0])
        assert record.payload == payload
        assert isinstance(record.payload["bool"], bool)
        assert isinstance(record.payload["int"], int)

    def test_long_decimals_come_back_within_one_unit_in_the_last_place(self, client, plain):
        sent = np.random.default_rng(3).normal(size=200)
        put(client, plain, [{"x": float(x)} for x in sent])
        records, _ = client.scroll(plain, limit=200)
        kept = np.array([record.payload["x"] for record in records])
        np.testing.assert_array_max_ulp(kept, sent, maxulp=1)

    def test_is_set_merged_overwritten_deleted_and_cleared(self, client, plain):
        put(client, plain, [{"a": 1, "b": 2}, {"a": 1}])

        def payloads():
            return [r.payload for r in client.scroll(plain)[0]]

        client.set_payload(plain, {"c": 3}, points=[0])
        assert payloads() == [{"a": 1, "b": 2, "c": 3}, {"a": 1}]
        by_filter = Filter(must=[FieldCondition(key="a", match=models.MatchValue(value=1))])
        client.set_payload(plain, {"d": 4}, points=by_filter)
        assert payloads() == [{"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 1, "d": 4}]
        client.delete_payload(plain, ["a", "d", "unknown"], points=[0])
        assert payloads()[0] == {"b": 2, "c": 3}
        client.overwrite_payload(plain, {"z": 0}, points=[0])
        assert payloads()[0] == {"z": 0}
        client.clear_payload(plain, points_selector=[0])
        assert payloads()[0] == {}

    def test_a_key_sets_inside_an_object(self, client, plain):
        put(client, plain, [{"o": {"a": 1}}])
        client.set_payload(plain, {"b": 2}, points=[0], key="o")
        assert client.retrieve(plain, [0])[0].payload == {"o": {"a": 1, "b": 2}}

    def test_a_batch_applies_in_order(self, client, plain):
        put(client, plain, [{"a": 1}])
        client.batch_update_points(
            plain,
            [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload={"b": 2}, points=[0])
                ),
                models.DeletePayloadOperation(
                    delete_payload=models.DeletePayload(keys=["a"], points=[0])
                ),
                models.UpsertOperation(
                    upsert=models.PointsList(points=[PointStruct(id=1, vector=[0.0, 0.0])])
                ),
                models.DeleteOperation(delete=models.PointIdsList(points=[1])),
            ],
        )
        assert [(r.id, r.payload) for r in client.scroll(plain)[0]] == [(0, {"b": 2})]

    def test_setting_on_a_missing_point_is_not_found(self, client, plain):
        put(client, plain, [{}])
        code, words = status_of(lambda: client.set_payload(plain, {"a": 1}, points=[0, 404]))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "404" in words

    def test_facets_count_values(self, client, plain):
        put(client, plain, [{"s": "a"}, {"s": ["a", "b"]}, {"s": "b"}, {"s": "b"}, {}])
        code, _ = status_of(lambda: client.facet(plain, "s"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        client.create_payload_index(plain, "s", models.PayloadSchemaType.KEYWORD)
        hits = client.facet(plain, "s", exact=True).hits
        assert [(hit.value, hit.count) for hit in hits] == [("b", 3), ("a", 2)]
        only = Filter(must=[models.HasIdCondition(has_id=[0, 1])])
        hits = client.facet(plain, "s", exact=True, facet_filter=only, limit=1).hits
        assert [(hit.value, hit.count) for hit in hits] == [("a", 2)]


class TestWrites:
    def test_an_upsert_replaces_the_whole_point(self, client, plain):
        client.upsert(plain, [PointStruct(id=1, vector=[1.0, 1.0], payload={"a": 1})])
        client.upsert(plain, [PointStruct(id=1, vector=[2.0, 2.0], payload={"b": 2})])
        (record,) = client.retrieve(plain, [1], with_vectors=True)
        assert (record.vector, record.payload) == ([2.0, 2.0], {"b": 2})

    def test_points_are_deleted_by_id_and_by_filter(self, client, plain):
        put(client, plain, [{"n": n % 2} for n in range(6)])
        client.delete(plain, points_selector=[0, 1, 777])
        assert found(client, plain) == [2, 3, 4, 5]
        odd = Filter(must=[FieldCondition(key="n", match=models.MatchValue(value=1))])
        client.delete(plain, points_selector=odd)
        assert found(client, plain) == [2, 4]

    def test_large_batches_arrive_whole(self, client, plain):
        points = [PointStruct(id=i, vector=[float(i), 0.0], payload={"i": i}) for i in range(1700)]
        client.upsert(plain, points)
        assert client.count(plain).count == 1700

    def test_a_payload_number_that_json_lacks_is_refused(self, client, plain):
        point = pb.PointStruct(
            id=pb.PointId(num=1),
            payload={"x": pb.Value(double_value=float("nan"))},
            vectors=pb.Vectors(vector=pb.Vector(dense=pb.DenseVector(data=[0.0, 0.0]))),
        )
        request = pb.UpsertPoints(collection_name=plain, wait=True, points=[point])
        code, _ = status_of(lambda: client.grpc_points.Upsert(request, timeout=5))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


class TestAliases:
    def test_an_alias_reads_and_switches_in_one_step(self, client, plain, named, collection_name):
        alias = collection_name()
        put(client, plain, [{}])
        client.update_collection_aliases([create(alias, plain)])
        assert client.count(alias).count == 1
        client.update_collection_aliases([delete(alias), create(alias, named)])
        assert client.count(alias).count == 0
        listed = {a.alias_name: a.collection_name for a in client.get_aliases().aliases}
        assert listed[alias] == named
        assert client.get_collection_aliases(plain).aliases == []
        client.update_collection_aliases([delete(alias)])

    def test_a_wrong_action_changes_nothing(self, client, plain, collection_name):
        alias = collection_name()
        client.update_collection_aliases([create(alias, plain)])
        code, _ = status_of(
            lambda: client.update_collection_aliases([delete(alias), create(alias, "nowhere")])
        )
        assert code is grpc.StatusCode.NOT_FOUND
        assert client.collection_exists(alias)

    def test_it_goes_with_its_collection(self, client, plain, collection_name):
        alias = collection_name()
        client.update_collection_aliases([create(alias, plain)])
        client.delete_collection(plain)
        assert not client.collection_exists(alias)

    def test_it_is_renamed(self, client, plain, collection_name):
        old, new = collection_name(), collection_name()
        client.update_collection_aliases([create(old, plain)])
        rename = models.RenameAlias(old_alias_name=old, new_alias_name=new)
        client.update_collection_aliases([models.RenameAliasOperation(rename_alias=rename)])
        assert client.collection_exists(new)
        assert not client.collection_exists(old)


def create(alias, collection):
    target = models.CreateAlias(collection_name=collection, alias_name=alias)
    return models.CreateAliasOperation(create_alias=target)


def delete(alias):
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
