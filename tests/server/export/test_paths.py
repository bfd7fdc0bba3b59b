"""Dot paths: what they find, what is kept of a payload, what Qdrant is asked for."""

import pytest

from server.export.paths import found, keep, qdrant_spellings, split_path, top_level_selectors

PAYLOAD = {
    "a": {"b": 1, "c": {"d": 2}},
    "people": [{"name": "Ann", "age": 1}, "stray", {"age": 2}],
    "tags": ["x", "y"],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.b", [1]),
        ("a.c.d", [2]),
        ("people.name", ["Ann"]),
        ("people[].age", [1, 2]),
        ("tags", [["x", "y"]]),
        ("a.x", []),
        ("tags.x", []),
        ("a.b.c", []),
    ],
)
def test_found_goes_through_objects_and_lists(path, expected):
    assert found(PAYLOAD, split_path(path)) == expected


def kept(*paths):
    return keep(PAYLOAD, [split_path(path) for path in paths])


def test_keep_cuts_a_payload_down_to_its_paths():
    assert kept("a.b", "tags") == {"a": {"b": 1}, "tags": ["x", "y"]}
    assert kept("people.name") == {"people": [{"name": "Ann"}, {}]}
    assert kept("a.c.d", "a") == {"a": PAYLOAD["a"]}
    assert kept("nothing", "a.b.c") == {"a": {}}


def test_a_path_has_a_spelling_for_each_way_through_lists():
    assert qdrant_spellings("a.b.c") == ("a.b.c", "a.b[].c", "a[].b.c", "a[].b[].c")
    assert qdrant_spellings("a b") is None
    assert qdrant_spellings("a.b.c.d.e") is None


def test_selectors_are_whole_top_level_keys():
    assert top_level_selectors(["a.b", "a.c", "z", "odd key.x"]) == ["a", '"odd key"', "z"]
    assert top_level_selectors(['quo"te']) is None
