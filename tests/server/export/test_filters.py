"""The filter language: what is accepted, what it becomes, and what every fault says."""

import pickle

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from server.errors import InvalidRequestError
from server.export.conditions import MAX_SAFE_INTEGER, OPERATORS, Condition
from server.export.filters import MAX_CONDITIONS, Filter, parse_filter

PLACE = {"lat": 52.5, "lon": 13.4}


def faults(raw):
    with pytest.raises(InvalidRequestError) as caught:
        parse_filter(raw)
    return {violation.field: violation.description for violation in caught.value.violations}


def nested(depth):
    raw = {"status": "active"}
    for _ in range(depth):
        raw = {"AND": [raw]}
    return raw


def test_the_seeds_example_becomes_a_tree_of_conditions():
    tree = parse_filter(
        {
            "AND": [
                {"field": "name", "operator": "eq", "value": "John"},
                {"field": "age", "operator": "gte", "value": 30},
            ],
            "OR": [{"field": "status", "operator": "eq", "value": "active"}],
            "NOT": [{"field": "department", "operator": "eq", "value": "HR"}],
            "case_sensitive": True,
        }
    )

    assert tree == Filter(
        all_of=(Condition("name", "eq", "John", True), Condition("age", "gte", 30, True)),
        any_of=(Condition("status", "eq", "active", True),),
        none_of=(Condition("department", "eq", "HR", True),),
    )
    assert tree.fields() == {"name", "age", "status", "department"}


def test_numbers_from_a_struct_are_integers_again():
    struct = Struct()
    struct.update(
        {"size": 3, "ratio": 0.5, "AND": [{"field": "n", "operator": "in", "value": [7]}]}
    )

    tree = parse_filter(MessageToDict(struct))

    values = {condition.field: condition.value for condition in tree.conditions()}
    assert values == {"size": 3, "ratio": 0.5, "n": (7,)}
    assert type(values["size"]) is int


@pytest.mark.parametrize("raw", [None, {}, {"case_sensitive": True}, {"AND": [], "NOT": []}])
def test_nothing_claimed_is_the_empty_filter(raw):
    assert parse_filter(raw).is_empty


def test_shorthand_alone_beside_and_and_with_several_keys():
    assert parse_filter({"metadata.title": "x"}) == Filter(
        (Condition("metadata.title", "eq", "x"),)
    )
    assert parse_filter({"AND": [{"a": 1.0}], "b": True}) == Filter(
        (Condition("a", "eq", 1), Condition("b", "eq", True))
    )
    several = parse_filter({"OR": [{"a": 1, "b": 2}, {"c": 3}]})
    assert several.any_of[0] == Filter((Condition("a", "eq", 1), Condition("b", "eq", 2)))


def test_the_operator_is_eq_unless_named_and_exists_needs_no_value():
    assert parse_filter({"field": "a", "value": 1}) == Filter((Condition("a", "eq", 1),))
    assert parse_filter({"field": "a", "operator": "exists"}).conditions()[0].value is True


def test_case_is_inherited_by_nested_groups_and_overridden_in_a_condition():
    tree = parse_filter(
        {
            "case_sensitive": True,
            "AND": [
                {"OR": [{"a": "x"}, {"field": "b", "value": "y", "case_sensitive": False}]},
                {"AND": [{"c": "z"}], "case_sensitive": False},
            ],
        }
    )

    assert {c.field: c.case_sensitive for c in tree.conditions()} == {
        "a": True,
        "b": False,
        "c": False,
    }


def test_eight_groups_deep_is_allowed_and_nine_is_not():
    assert parse_filter(nested(8)).fields() == {"status"}
    assert "deeper than 8" in faults(nested(9))["filters" + ".AND[0]" * 8]
    assert len(faults(nested(2000))) == 1


def test_an_unknown_operator_gets_a_suggestion_and_the_list():
    told = faults({"field": "a", "operator": "startswith", "value": "x"})["filters.operator"]
    assert "'starts_with'" in told
    assert all(name in told for name in OPERATORS)


def test_all_faults_are_told_at_once_with_their_places():
    told = faults(
        {
            "AND": [
                {"field": "", "operator": "eq", "value": "x"},
                {"field": "a", "operator": "in", "value": [1, None]},
                {"field": "b", "operater": "eq", "value": 1},
                "status",
            ],
            "OR": {"a": 1},
            "NOT": [{"field": "c", "operator": "regex", "value": "(a"}],
            "case_sensitive": "yes",
        }
    )

    assert set(told) == {
        "filters.AND[0].field",
        "filters.AND[1].value[1]",
        "filters.AND[2].operater",
        "filters.AND[3]",
        "filters.OR",
        "filters.NOT[0].value",
        "filters.case_sensitive",
    }
    assert "'operator'" in told["filters.AND[2].operater"]
    assert "missing )" in told["filters.NOT[0].value"]


@pytest.mark.parametrize(
    ("operator", "value", "words"),
    [
        ("eq", None, "is_null"),
        ("eq", [1], "operator in"),
        ("eq", {"a": 1}, "an object"),
        ("eq", float("inf"), "finite"),
        ("eq", float(2**53), "strings"),
        ("in", [-(2**60)], "strings"),
        ("in", "x", "list"),
        ("in", [], "1 to"),
        ("nin", [["x"]], "a list"),
        ("gt", "tomorrow", "date"),
        ("gt", "2024-13-01", "date"),
        ("gt", True, "number"),
        ("lte", None, "number"),
        ("contains", 3, "string"),
        ("starts_with", "", "not empty"),
        ("regex", r"(?=a)", "RE2"),
        ("regex", "a" * 1001, "1000"),
        ("exists", "yes", "true or false"),
        ("is_null", 1, "true or false"),
        ("text", "!!", "word"),
        ("phrase", 3, "string"),
        ("geo_radius", {"center": PLACE}, "metres"),
        ("geo_radius", {"center": PLACE, "radius": -1}, "above 0"),
        ("geo_radius", {"center": {"lat": 91, "lon": 0}, "radius": 5}, "latitude"),
        ("geo_bounding_box", {"top_left": PLACE}, "bottom_right"),
        (
            "geo_bounding_box",
            {"top_left": PLACE, "bottom_right": {"lat": 60, "lon": 14}},
            "south of",
        ),
        ("geo_polygon", {"exterior": [PLACE, PLACE]}, "3 to"),
        ("geo_polygon", {"exterior": [PLACE, PLACE, {"lat": 0, "lon": 181}]}, "longitude"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_words(operator, value, words):
    told = faults({"field": "a", "operator": operator, "value": value})
    assert len(told) == 1
    assert words in " ".join(told.values())


def test_the_largest_exact_integer_passes():
    assert parse_filter({"a": float(MAX_SAFE_INTEGER)}).conditions()[0].value == 2**53 - 1


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        ({"a": ["x"]}, "filters.a", '"in"'),
        ({"price": {"gt": 3}}, "filters.price", "equality"),
        ({"a": None}, "filters.a", "is_null"),
        ({"and": [{"a": 1}]}, "filters.and", "did you mean AND"),
        ({"OR": []}, "filters.OR", "empty"),
        ({"AND": [{}]}, "filters.AND[0]", "empty"),
        ({"NOT": [{"case_sensitive": True}]}, "filters.NOT[0]", "empty"),
        ({"AND": [], "field": "a", "value": 1}, "filters", "AND list"),
        ({"operator": "eq", "value": 1}, "filters.field", "field"),
        ({"field": "a..b", "value": 1}, "filters.field", "dots"),
        ({"field": "a[0].b", "value": 1}, "filters.field", "every element"),
        ({"field": 3.0, "value": 1}, "filters.field", "string"),
        ({"field": "x" * 300, "value": 1}, "filters.field", "256"),
        ([], "filters", "object"),
    ],
)
def test_a_wrong_form_is_refused_in_words(raw, path, words):
    assert words in faults(raw)[path]


def test_a_filter_has_a_limit_of_conditions():
    item = {"a": 1}
    assert len(parse_filter({"OR": [item] * MAX_CONDITIONS}).any_of) == MAX_CONDITIONS
    assert "1000" in " ".join(faults({"OR": [item] * (MAX_CONDITIONS + 5)}).values())


def test_marks_for_lists_name_the_same_field():
    assert parse_filter({"a[].b": 1}).fields() == {"a.b"}


def test_a_filter_pickles():
    tree = parse_filter(
        {"AND": [{"field": "g", "operator": "geo_polygon", "value": {"exterior": [PLACE] * 3}}]}
    )
    assert pickle.loads(pickle.dumps(tree)) == tree
