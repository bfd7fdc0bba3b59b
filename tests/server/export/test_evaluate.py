"""Which payloads pass: every operator, with missing fields, arrays, case and dates."""

import pytest

from server.export.evaluate import matches
from server.export.filters import parse_filter


def passes(operator, value, payload, **extra):
    raw = {"field": "a", "operator": operator, "value": value, **extra}
    return matches(parse_filter(raw), payload)


@pytest.mark.parametrize("payload", [{}, {"a": []}, {"b": 1}])
@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("eq", "x", False),
        ("ne", "x", True),
        ("nin", ["x"], True),
        ("in", ["x"], False),
        ("gt", 0, False),
        ("lte", "2024-01-01", False),
        ("contains", "x", False),
        ("regex", ".*", False),
        ("text", "x", False),
        ("geo_radius", {"center": {"lat": 0, "lon": 0}, "radius": 1e6}, False),
    ],
)
def test_a_missing_field_or_an_empty_array_holds_only_what_differs(
    payload, operator, value, expected
):
    assert passes(operator, value, payload) is expected


@pytest.mark.parametrize(
    ("payload", "exists", "null", "not_null"),
    [
        ({}, False, True, False),
        ({"a": None}, True, True, False),
        ({"a": []}, True, False, True),
        ({"a": [None, 1]}, True, True, True),
        ({"a": [None]}, True, True, False),
        ({"a": 0}, True, False, True),
        ({"a": {}}, True, False, True),
    ],
)
def test_exists_asks_for_the_key_and_is_null_for_the_value(payload, exists, null, not_null):
    assert passes("exists", True, payload) is exists
    assert passes("exists", False, payload) is not exists
    assert passes("is_null", True, payload) is null
    assert passes("is_null", False, payload) is not_null


@pytest.mark.parametrize(
    ("value", "stored", "expected"),
    [
        ("Active", "aCTIVE", True),
        ("straße", "STRASSE", True),
        (3.0, 3, True),
        (3, 3.0, True),
        (3, "3", False),
        ("3", 3, False),
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (0, False, False),
        ("x", None, False),
        ("x", {"x": "x"}, False),
        ("x", ["y", "X"], True),
        ("x", [["x"]], False),
        ("2024-05-01T00:00:00Z", "2024-05-01T02:00:00+02:00", True),
        ("2024-05-01", "2024-05-01 00:00:00", True),
        ("2024-05-01", "2024-05-01T00:00:00.000000001Z", False),
    ],
)
def test_equality_is_by_type_case_and_instant(value, stored, expected):
    assert passes("eq", value, {"a": stored}) is expected
    assert passes("in", ["other", value], {"a": stored}) is expected
    if not isinstance(stored, list):
        assert passes("ne", value, {"a": stored}) is not expected
        assert passes("nin", ["other", value], {"a": stored}) is not expected


def test_differing_holds_when_any_element_differs():
    assert passes("ne", "x", {"a": ["x", "y"]})
    assert not passes("ne", "x", {"a": ["x", "X"]})
    assert passes("ne", "x", {"a": ["x", "X"]}, case_sensitive=True)
    assert not passes("nin", ["x", "y"], {"a": ["x", "y"]})


@pytest.mark.parametrize(
    ("operator", "value", "stored", "insensitive", "sensitive"),
    [
        ("eq", "Ab", "aB", True, False),
        ("contains", "BC", "abcd", True, False),
        ("starts_with", "AB", "abcd", True, False),
        ("ends_with", "CD", "abcd", True, False),
        ("regex", "^AB.D$", "abcd", True, False),
        ("regex", "bc", "abcd", True, True),
        ("in", ["AB"], "ab", True, False),
        ("text", "AB", "ab", True, True),
    ],
)
def test_case_counts_only_where_asked(operator, value, stored, insensitive, sensitive):
    assert passes(operator, value, {"a": stored}) is insensitive
    assert passes(operator, value, {"a": stored}, case_sensitive=True) is sensitive


@pytest.mark.parametrize(
    ("operator", "value", "stored", "expected"),
    [
        ("gt", 3, 3.5, True),
        ("gt", 3, 3, False),
        ("gte", 3, 3, True),
        ("lt", 3, True, False),
        ("lt", 3, "2", False),
        ("gt", 2**53 - 1, 2**53, True),
        ("lt", "2024-05-01T00:00:00Z", "2024-05-01T00:30:00+01:00", True),
        ("gte", "2024-05-01", "2024-05-01T00:00:00Z", True),
        ("gt", "2024-05-01", "soon", False),
        ("gt", "2024-05-01", 1e12, False),
        ("gt", 3, [1, 5], True),
        ("contains", "x", 3, False),
        ("regex", "3", 3, False),
        ("contains", "x", ["abc", "axc"], True),
    ],
)
def test_comparisons_stay_within_their_kind(operator, value, stored, expected):
    assert passes(operator, value, {"a": stored}) is expected


@pytest.mark.parametrize(
    ("query", "text", "phrase", "words"),
    [
        ("quick fox", True, False, True),
        ("BROWN, fox", True, True, True),
        ("quick cat", False, False, True),
        ("qui", False, False, False),
        ("fox jumps_over", True, True, True),
    ],
)
def test_text_wants_all_words_phrase_a_row_and_words_any(query, text, phrase, words):
    payload = {"a": "The quick brown-fox jumps over."}
    assert passes("text", query, payload) is text
    assert passes("phrase", query, payload) is phrase
    assert passes("words", query, payload) is words


def test_paths_go_through_lists_of_objects():
    payload = {"people": [{"name": "Ann", "tags": ["x"]}, {"name": "Bob"}, "stray"]}
    for field in ("people.name", "people[].name"):
        assert matches(parse_filter({field: "bob"}), payload)
        assert not matches(parse_filter({field: "eve"}), payload)
    assert matches(parse_filter({"people.tags": "x"}), payload)
    assert not matches(parse_filter({"people.name.first": "Ann"}), payload)


def test_groups_must_all_hold():
    tree = parse_filter({"AND": [{"a": 1}], "OR": [{"b": 1}, {"b": 2}], "NOT": [{"c": 1}]})
    assert matches(tree, {"a": 1, "b": 2})
    assert not matches(tree, {"a": 2, "b": 2})
    assert not matches(tree, {"a": 1, "b": 3})
    assert not matches(tree, {"a": 1, "b": 2, "c": 1})
    assert matches(parse_filter({}), {})


BERLIN = {"lat": 52.52, "lon": 13.405}


@pytest.mark.parametrize(
    ("operator", "value", "stored", "expected"),
    [
        # Berlin to Potsdam is about 27 km.
        ("geo_radius", {"center": BERLIN, "radius": 30_000}, {"lat": 52.39, "lon": 13.06}, True),
        ("geo_radius", {"center": BERLIN, "radius": 20_000}, {"lat": 52.39, "lon": 13.06}, False),
        ("geo_radius", {"center": BERLIN, "radius": 20_000}, [{"lat": 0, "lon": 0}, BERLIN], True),
        ("geo_radius", {"center": BERLIN, "radius": 20_000}, {"lat": "52.5", "lon": 13}, False),
        ("geo_radius", {"center": BERLIN, "radius": 20_000}, {"lat": 52.5}, False),
    ],
)
def test_distance_on_the_globe(operator, value, stored, expected):
    assert passes(operator, value, {"a": stored}) is expected


@pytest.mark.parametrize(("lon", "expected"), [(179, True), (-179, True), (180, True), (0, False)])
def test_a_box_may_cross_the_antimeridian(lon, expected):
    box = {"top_left": {"lat": 10, "lon": 170}, "bottom_right": {"lat": -10, "lon": -170}}
    assert passes("geo_bounding_box", box, {"a": {"lat": 0, "lon": lon}}) is expected


@pytest.mark.parametrize(
    ("lat", "lon", "expected"),
    [(1, 1, True), (0, 5, True), (5, 5, False), (4, 5, True), (11, 5, False), (10, 10, True)],
)
def test_a_polygon_has_holes_and_owns_its_rims(lat, lon, expected):
    def square(low, high):
        corners = [(low, low), (low, high), (high, high), (high, low)]
        return [{"lat": a, "lon": b} for a, b in corners]

    value = {"exterior": square(0, 10), "interiors": [square(4, 6)]}
    assert passes("geo_polygon", value, {"a": {"lat": lat, "lon": lon}}) is expected
