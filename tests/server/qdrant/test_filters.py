"""Filters, asked through the official client of the embedded or a real Qdrant."""

import grpc
import pytest
from qdrant_client import grpc as pb
from qdrant_client import models
from qdrant_client.models import FieldCondition, Filter
from qdrant_helpers import found, put, status_of


class TestFilters:
    def test_booleans_are_not_numbers(self, client, plain):
        put(client, plain, [{"x": True}, {"x": 1}, {"x": False}, {"x": 0}, {"x": [True, False]}])

        def equals(value):
            return FieldCondition(key="x", match=models.MatchValue(value=value))

        assert found(client, plain, equals(True)) == [0, 4]
        assert found(client, plain, equals(False)) == [2, 4]
        assert found(client, plain, equals(1)) == [1]
        # A client sends a list of booleans as several conditions.
        assert found(client, plain, should=[equals(True), equals(False)]) == [0, 2, 4]

    @pytest.mark.parametrize("indexed", [False, True])
    def test_matches_on_text_and_numbers(self, client, plain, indexed):
        put(client, plain, [{"s": "a", "n": 1}, {"s": ["b", "c"], "n": 2}, {"n": 3}, {"s": "c"}])
        if indexed:
            client.create_payload_index(plain, "s", models.PayloadSchemaType.KEYWORD)
            client.create_payload_index(plain, "n", models.PayloadSchemaType.INTEGER)

        def match(key, **kind):
            (name,) = kind
            classes = {
                "value": models.MatchValue,
                "any": models.MatchAny,
                "except": models.MatchExcept,
            }
            return FieldCondition(key=key, match=classes[name](**kind))

        assert found(client, plain, match("s", value="c")) == [1, 3]
        assert found(client, plain, match("s", any=["a", "b"])) == [0, 1]
        assert found(client, plain, match("n", any=[1, 3])) == [0, 2]
        assert found(client, plain, match("s", any=[])) == []
        assert found(client, plain, match("s", **{"except": ["a"]})) == [1, 3]
        assert found(client, plain, must_not=[match("s", value="c")]) == [0, 2]

    def test_ranges_of_numbers_and_times(self, client, plain):
        stamps = ["2024-01-01T00:00:00Z", "2024-06-01T12:00:00+02:00", "2025-01-01"]
        put(client, plain, [{"n": i * 1.5, "at": at} for i, at in enumerate(stamps)])

        def number(**bounds):
            return FieldCondition(key="n", range=models.Range(**bounds))

        def moment(**bounds):
            return FieldCondition(key="at", range=models.DatetimeRange(**bounds))

        assert found(client, plain, number(gt=0)) == [1, 2]
        assert found(client, plain, number(gte=0, lt=3)) == [0, 1]
        assert found(client, plain, moment(lte="2024-06-01T10:00:00Z")) == [0, 1]
        assert found(client, plain, moment(gt="2024-06-01T10:00:00Z")) == [2]

    def test_empty_null_and_counted_values(self, client, plain):
        put(client, plain, [{"x": None}, {"x": []}, {}, {"x": "a"}, {"x": ["a", "b"]}])
        field = models.PayloadField(key="x")
        assert found(client, plain, models.IsEmptyCondition(is_empty=field)) == [0, 1, 2]
        assert found(client, plain, models.IsNullCondition(is_null=field)) == [0]
        many = FieldCondition(key="x", values_count=models.ValuesCount(gte=2))
        assert found(client, plain, many) == [4]

    def test_nested_objects_ids_and_groups(self, client, plain):
        put(
            client,
            plain,
            [
                {"o": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]},
                {"o": [{"a": 1, "b": 2}]},
                {"o": {"a": 1}},
            ],
        )
        both = Filter(
            must=[
                FieldCondition(key="a", match=models.MatchValue(value=1)),
                FieldCondition(key="b", match=models.MatchValue(value=2)),
            ]
        )
        nested = models.NestedCondition(nested=models.Nested(key="o", filter=both))
        assert found(client, plain, nested) == [1]
        deep = FieldCondition(key="o[].a", match=models.MatchValue(value=2))
        assert found(client, plain, deep) == [0]
        assert found(client, plain, models.HasIdCondition(has_id=[2, 0, 55])) == [0, 2]
        either = models.MinShould(
            min_count=2, conditions=[deep, models.HasIdCondition(has_id=[0, 1])]
        )
        assert found(client, plain, min_should=either) == [0]
        assert found(client, plain, Filter(must_not=[deep])) == [1, 2]

    def test_geography(self, client, plain):
        cities = {"berlin": (13.40, 52.52), "potsdam": (13.06, 52.40), "paris": (2.35, 48.86)}
        put(client, plain, [{"at": {"lon": x, "lat": y}} for x, y in cities.values()])
        near = models.GeoRadius(center=models.GeoPoint(lon=13.40, lat=52.52), radius=40_000)
        assert found(client, plain, FieldCondition(key="at", geo_radius=near)) == [0, 1]
        box = models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=0, lat=50), bottom_right=models.GeoPoint(lon=5, lat=45)
        )
        assert found(client, plain, FieldCondition(key="at", geo_bounding_box=box)) == [2]
        corners = [(13.2, 52), (14, 52), (14, 53), (13.2, 53), (13.2, 52)]
        area = models.GeoPolygon(
            exterior=models.GeoLineString(
                points=[models.GeoPoint(lon=x, lat=y) for x, y in corners]
            )
        )
        assert found(client, plain, FieldCondition(key="at", geo_polygon=area)) == [0]

    def test_words_and_phrases_use_the_text_index(self, client, plain):
        put(client, plain, [{"t": "Green apple pie"}, {"t": "apple green"}, {"t": "pear"}])
        client.create_payload_index(
            plain,
            "t",
            models.TextIndexParams(
                type="text", tokenizer="word", lowercase=True, phrase_matching=True
            ),
        )
        text = FieldCondition(key="t", match=models.MatchText(text="apple GREEN"))
        phrase = FieldCondition(key="t", match=models.MatchPhrase(phrase="green apple"))
        words = FieldCondition(key="t", match=models.MatchTextAny(text_any="pear pie"))
        assert found(client, plain, text) == [0, 1]
        assert found(client, plain, phrase) == [0]
        assert found(client, plain, words) == [0, 2]

    def test_an_empty_condition_is_refused(self, client, plain):
        put(client, plain, [{}])
        request = pb.CountPoints(collection_name=plain, filter=pb.Filter(must=[pb.Condition()]))
        code, _ = status_of(lambda: client.grpc_points.Count(request, timeout=5))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
