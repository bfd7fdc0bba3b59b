"""Payload columns and their JSON say what the decoded payloads say."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import RestToGrpc

from server.export import protobytes
from server.export.errors import MalformedResponseError
from server.export.paths import keep
from server.export.payload_json import DEEPEST
from server.export.wire import outline, parse_page

scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=12),
)
value = st.recursive(
    scalar,
    lambda below: st.one_of(
        st.lists(below, max_size=3), st.dictionaries(st.sampled_from("abc"), below, max_size=3)
    ),
    max_leaves=6,
)
payload = st.dictionaries(
    st.one_of(st.sampled_from(["a", "b", "é", ""]), st.text(max_size=3)), value
)
PATHS = [("a",), ("b", "a"), ("b", "c"), ("é", "a")]


def payloads_of(values):
    points = [
        pb.RetrievedPoint(id=pb.PointId(num=n), payload=RestToGrpc.convert_payload(one))
        for n, one in enumerate(values)
    ]
    data = pb.ScrollResponse(result=points).SerializeToString()
    return parse_page(data, outline(data).records, ()).payloads


@pytest.mark.parametrize("few", [1, 1_000])
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.lists(payload, max_size=5), data=st.data())
def test_json_and_columns_are_the_payloads(monkeypatch, few, values, data):
    monkeypatch.setattr(protobytes, "_FEW", few)
    page = payloads_of(values)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    rows = np.array(chosen, dtype=bool)

    assert page.dicts() == values
    texts = page.json(None, rows).to_pylist()
    wanted = [one for one, is_wanted in zip(values, chosen, strict=True) if is_wanted]
    assert [json.loads(text) if text else {} for text in texts] == wanted
    kept = [json.loads(text) if text else {} for text in page.json(PATHS).to_pylist()]
    assert kept == [keep(one, PATHS) for one in values]
    for key in ("a", ""):
        column = page.column(key)
        read = json.loads if column.is_json else lambda item: item
        found = [None if item is None else read(item) for item in column.values.to_pylist()]
        assert found == [one.get(key) for one in values]


def test_a_column_of_one_kind_has_its_type_and_nulls():
    page = payloads_of([{"n": 1, "s": "x"}, {}, {"n": None, "s": "y", "f": 1.5, "b": True}])
    assert page.column("n").values == pa.array([1, None, None], pa.int64())
    assert page.column("s").values == pa.array(["x", None, "y"])
    assert page.column("f").values == pa.array([None, None, 1.5])
    assert page.column("b").values == pa.array([None, None, True])
    assert page.column("none").values.null_count == 3


def test_a_column_of_several_kinds_is_json():
    column = payloads_of([{"n": 1}, {"n": ["1", 2.5]}, {"n": "1"}, {"n": None}]).column("n")
    assert column.is_json
    assert column.values.to_pylist() == ["1", '["1",2.5]', '"1"', None]


def test_json_has_sorted_keys_and_escapes_what_it_must():
    many = [{"b": f"plain {n}", "a": n} for n in range(20)]
    page = payloads_of([*many, {"b": 'quo"te', "a": 1}, {"b": "line\nend\\", "a": 2}])
    texts = page.json(None).to_pylist()
    assert texts[0] == '{"a":0,"b":"plain 0"}'
    assert texts[-2:] == ['{"a":1,"b":"quo\\"te"}', '{"a":2,"b":"line\\nend\\\\"}']


def test_bytes_that_are_no_text_are_refused():
    broken = b"\x0a\x01a\x12\x03\x22\x01\xff"  # Key a, the string ff.
    record = b"\x0a\x02\x08\x01\x12" + bytes([len(broken)]) + broken
    data = b"\x12" + bytes([len(record)]) + record
    page = parse_page(data, outline(data).records, ()).payloads
    with pytest.raises(MalformedResponseError, match="UTF-8"):
        page.column("a")


def test_what_nests_is_written_like_the_rest():
    inside = {"z": [1, {"b": None, "a": 'quo"te'}, [], {}], "a": {"é": 0.5}}
    page = payloads_of([{"m": inside, "n": n} for n in range(20)])
    assert page.json(None).to_pylist()[7] == (
        '{"m":{"a":{"é":0.5},"z":[1,{"a":"quo\\"te","b":null},[],{}]},"n":7}'
    )
    texts = page.json([("m", "z", "a"), ("m", "a", "x")]).to_pylist()
    assert texts[0] == '{"m":{"a":{},"z":[{"a":"quo\\"te"},{}]}}'


@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST, DEEPEST + 1, 30])
def test_values_may_nest_deeply(depth):
    value = "x"
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    page = payloads_of([{"v": value, "w": [value]}, {}, {"v": value}])
    assert page.dicts() == [{"v": value, "w": [value]}, {}, {"v": value}]


def wrapped(number, content):
    """Put bytes into a field, as protobuf does."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def page_of(value):
    """A page of one point whose field `a` is a message `Value` of these bytes."""
    entry = wrapped(1, b"a") + wrapped(2, value)
    data = wrapped(2, b"\x0a\x02\x08\x01" + wrapped(2, entry))
    return parse_page(data, outline(data).records, ()).payloads


def test_a_value_that_nests_beyond_what_protobuf_bears_is_refused():
    value = b""
    for _ in range(2_000):
        value = wrapped(7, wrapped(1, value))
    with pytest.raises(MalformedResponseError, match="cannot be read"):
        page_of(value).json(None)


@pytest.mark.parametrize(
    ("number", "inside"),
    [
        (6, b"\x0a\x09\x0a\x01b"),  # An entry that goes on behind the object.
        (6, b"\x0a\x07\x0a\x01b\x12\x02\x22\x05"),  # A text that goes on behind its entry.
        (7, b"\x0a\x02\x22\x05"),  # The same in a list.
        (7, b"\x0a\x03\x22\x01\xff"),  # A text that is none.
        (7, b"\x0b"),  # A field of a kind that nobody writes any more.
    ],
)
def test_a_nested_value_that_breaks_off_is_refused(number, inside):
    with pytest.raises(MalformedResponseError):
        page_of(wrapped(number, inside)).json(None)
