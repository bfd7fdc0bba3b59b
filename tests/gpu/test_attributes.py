"""Grouping by payload fields: against plain Python, every kind of value, and bad attributes."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.attribute_values import json_column
from gpu.attributes import group_by_attributes
from gpu.backend import Backend
from gpu.errors import HostMemoryError, InvalidParametersError, TooFewPointsError

CPU = Backend("cpu", "a test")

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, 1.5, -0.0, 2.0]),
    st.sampled_from(["1", "true", "null", "a", "ä", "", "日本", "a, b: c"]),
)
CELLS = st.one_of(SCALARS, st.lists(SCALARS, max_size=3))


def group(table, *attributes, **options):
    return group_by_attributes(table, attributes, backend=CPU, **options)


def json_table(**columns):
    return pa.table({name: json_column(values) for name, values in columns.items()})


def members(result):
    """Give each leaf's values and rows."""
    rows = {}
    for row, position in zip(
        result.member_rows.tolist(), result.member_groups.tolist(), strict=True
    ):
        rows.setdefault(position, []).append(row)
    return {result.groups["values"][position].as_py(): found for position, found in rows.items()}


def key(value):
    """Tell values apart as JSON does, 1 and 1.0 being one number."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value).__name__, value)
    return ("number", float(value))


def cell_values(cell):
    values = cell if isinstance(cell, list) else [cell]
    present = {key(value): value for value in values if value is not None}
    return present or {key(None): None}


def plain_groups(rows):
    """Group rows of cells: a dict from the tuple of value keys to the row numbers."""
    groups = {}
    for row, cells in enumerate(rows):
        combinations = [()]
        for cell in cells:
            combinations = [(*c, k) for c in combinations for k in cell_values(cell)]
        for combination in combinations:
            groups.setdefault(combination, []).append(row)
    return groups


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=25),
    st.booleans(),
    st.sampled_from(["most_frequent", "first", "last"]),
    st.data(),
)
def test_groups_agree_with_plain_python(rows, hierarchical, aggregation, data):
    others = data.draw(st.lists(SCALARS, min_size=len(rows), max_size=len(rows)))
    table = json_table(a=[r[0] for r in rows], b=[r[1] for r in rows], other=others)
    if not all(any(key(None) not in cell_values(r[i]) for r in rows) for i in (0, 1)):
        with pytest.raises(InvalidParametersError):
            group(table, "a", "b")
        return

    result = group(
        table, "a", "b", hierarchical=hierarchical, aggregation=aggregation, other_fields=["other"]
    )

    expected = plain_groups(rows)
    found = {
        tuple(key(value) for value in json.loads(values).values()): rows
        for values, rows in members(result).items()
    }
    assert found == expected
    groups = result.groups.to_pylist()
    positions = {
        tuple(key(value) for value in json.loads(row["values"]).values()): position
        for position, row in enumerate(groups)
    }
    if hierarchical:
        expected = expected | plain_groups([(r[0],) for r in rows])
    assert positions.keys() == expected.keys()
    for combination, position in positions.items():
        assert groups[position]["member_count"] == len(expected[combination])
        present = [others[row] for row in expected[combination] if others[row] is not None]
        seen = [json.dumps(value, ensure_ascii=False) for value in present]
        picked = result.fields["other"][position].as_py()
        if not seen:
            assert picked is None
        elif aggregation == "most_frequent":
            assert Counter(seen)[picked] == max(Counter(seen).values())
            tied = [text for text in seen if Counter(seen)[text] == Counter(seen)[picked]]
            assert picked == tied[0]
        else:
            assert picked == (seen[0] if aggregation == "first" else seen[-1])


def test_flat_groups_are_named_and_ordered_by_size():
    table = pa.table({"category": ["hats", "shoes", "shoes", None], "size": [1, 2, 2, 2]})

    groups = group(table, "category", "size").groups.to_pylist()

    assert [row["label"] for row in groups] == [
        "category: shoes, size: 2",
        "category: hats, size: 1",
        "category: (missing), size: 2",
    ]
    assert [row["group_id"] for row in groups] == ["cl_0", "cl_1", "cl_2"]
    assert json.loads(groups[2]["values"]) == {"category": None, "size": 2}
    assert all(row["is_leaf"] and row["parent_id"] is None for row in groups)


def test_parents_are_the_values_of_the_first_attribute():
    table = pa.table({"a": ["x", "x", "x", "y"], "b": [["p", "q"], ["p"], ["q"], ["p"]]})

    result = group(table, "a", "b", hierarchical=True)

    rows = result.groups.to_pylist()
    assert [(r["group_id"], r["parent_id"], r["label"], r["member_count"]) for r in rows] == [
        ("cl_0", None, "a: x", 3),
        ("cl_1", None, "a: y", 1),
        ("cl_0_sub_0", "cl_0", "a: x, b: p", 2),
        ("cl_0_sub_1", "cl_0", "a: x, b: q", 2),
        ("cl_1_sub_0", "cl_1", "a: y, b: p", 1),
    ]
    # Row 0 is in both children of cl_0 and counts once in cl_0.
    assert list(zip(result.member_rows.tolist(), result.member_groups.tolist(), strict=True)) == [
        (0, 2),
        (0, 3),
        (1, 2),
        (2, 3),
        (3, 4),
    ]


def test_one_attribute_makes_no_parents():
    result = group(pa.table({"a": ["x", "y"]}), "a", hierarchical=True)

    assert result.groups["parent_id"].null_count == 2


def test_values_of_different_types_never_meet_and_labels_tell_them_apart():
    table = json_table(a=[1, "1", True, 1.0, "true", None, "(missing)", {"b": 1}, {"b": 1.0}])

    result = group(table, "a")

    assert sorted(result.groups["label"].to_pylist()) == sorted(
        ["a: 1", 'a: "1"', "a: true", 'a: "true"', "a: (missing)", 'a: "(missing)"', 'a: {"b": 1}']
    )
    assert members(result)['{"a": 1}'] == [0, 3]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, None, float("nan"), 2.0, 2.0]),
        pa.array([1.5, None, float("nan"), 2.0, 2.0]).dictionary_encode(),
        pa.array([[1.5], None, [], [2.0, 2.0], [None, 2.0]]),
        pa.array([[1.5], None, [], [2.0, 2.0], [None, 2.0]], pa.large_list(pa.float32())),
        pa.array(
            [[1.5, 1.5], None, [None, None], [2.0, 2.0], [None, 2.0]], pa.list_(pa.float64(), 2)
        ),
        pa.chunked_array([[1.5, None], [None, 2.0, 2.0]]),
    ],
    ids=["plain", "dictionary", "list", "large list", "fixed list", "chunks"],
)
def test_every_kind_of_column_is_read(column):
    result = group(pa.table({"a": column}), "a")

    assert members(result) == {'{"a": 1.5}': [0], '{"a": null}': [1, 2], '{"a": 2}': [3, 4]}


def test_other_fields_keep_their_type_and_lists_count_as_a_whole():
    table = pa.table(
        {
            "a": ["x", "x", "x", "y"],
            "tags": [["p"], ["q", "r"], ["q", "r"], None],
            "price": pa.array([3, 1, 3, None], pa.int16()),
        }
    )

    fields = group(table, "a", other_fields=["tags", "price"]).fields

    assert fields["tags"].to_pylist() == [["q", "r"], None]
    assert fields["price"].to_pylist() == [3, None]
    assert fields.schema.field("price").type == pa.int16()


def test_every_bad_attribute_is_named():
    table = pa.table(
        {"a": ["x"], "none": pa.nulls(1), "empty": pa.array([[]], pa.list_(pa.int64()))}
    )

    with pytest.raises(InvalidParametersError) as caught:
        group(table, "a", "none", "colour", "a", "empty")

    faults = [(fault.path, fault.sent) for fault in caught.value.violations]
    assert faults == [
        ("attributes[1]", '"none"'),
        ("attributes[2]", '"colour"'),
        ("attributes[3]", '"a"'),
        ("attributes[4]", '"empty"'),
    ]


def test_no_attributes_and_no_rows_are_refused():
    with pytest.raises(InvalidParametersError, match="at least one"):
        group(pa.table({"a": ["x"]}))
    with pytest.raises(TooFewPointsError):
        group(pa.table({"a": pa.array([], pa.string())}), "a")


def test_lists_that_multiply_beyond_memory_are_refused_before_they_do():
    lists = pa.array([list(range(3_000))] * 2)

    with pytest.raises(HostMemoryError):
        group(pa.table(dict.fromkeys("abcd", lists)), *"abcd")


def test_many_rows_and_groups_lose_nothing():
    rng = np.random.default_rng(0)
    numbers = rng.integers(5_000, size=50_000)

    result = group(pa.table({"a": numbers, "b": numbers % 7}), "a", "b", other_fields=["b"])

    counts = result.groups["member_count"].to_numpy()
    assert len(counts) == len(np.unique(numbers))
    assert counts.sum() == 50_000
    assert (np.diff(counts) <= 0).all()
    expected = numbers[result.member_rows]
    named = [json.loads(text)["a"] for text in result.groups["values"].to_pylist()]
    assert np.array_equal(np.array(named)[result.member_groups], expected)
    assert result.fields["b"].to_pylist() == [name % 7 for name in named]


def test_written_out_null_is_missing_too():
    null = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["null", "1"], pa.string()))
    table = pa.table({"a": null, "b": ["x", "x"]})

    assert members(group(table, "a")) == {'{"a": null}': [0], '{"a": 1}': [1]}
    assert group(table, "b", other_fields=["a"]).fields["a"].to_pylist() == ["1"]
