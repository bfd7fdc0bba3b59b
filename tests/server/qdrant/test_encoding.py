"""Messages written by column: the same bytes as the official stubs write."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import grpc as pb

from server.qdrant.encoding import doubles, field, gathered, joined, point_ids, varints

EDGES = [0, 1, 127, 128, 16_383, 16_384, 2**32, 2**63, 2**64 - 1]
UUIDS = [str(uuid.UUID(int=number, version=4)) for number in (1, 2**100)]


def test_numbers_and_uuids_become_point_ids():
    texts = [*map(str, EDGES), *UUIDS, "7"]
    expected = [
        (pb.PointId(uuid=text) if "-" in text else pb.PointId(num=int(text))).SerializeToString()
        for text in texts
    ]
    assert point_ids(pa.array(texts)).to_pylist() == expected
    assert point_ids(pa.array(UUIDS)).to_pylist() == expected[-3:-1]
    assert point_ids(pa.array([], pa.string())).to_pylist() == []


def test_an_id_beyond_64_bits_is_refused():
    with pytest.raises(pa.ArrowInvalid):
        point_ids(pa.array([str(2**64)]))


def test_fields_of_any_length_are_read_back():
    texts = ["", "a", "x" * 127, "y" * 128, "z" * 20_000]
    values = field(pb.Value.STRING_VALUE_FIELD_NUMBER, pa.array(texts).cast(pa.binary()))
    assert [pb.Value.FromString(value).string_value for value in values.to_pylist()] == texts


def test_doubles_are_read_back():
    numbers = np.array([0.0, -1.5, 1e300, np.float32(0.1)])
    values = joined(b"\x11", doubles(numbers)).to_pylist()
    assert [pb.Value.FromString(value).double_value for value in values] == numbers.tolist()


def test_rows_are_joined_by_their_counts():
    rows = pa.array([b"a", b"bc", b"d"])
    assert gathered(rows, np.array([2, 0, 1])).to_pylist() == [b"abc", b"", b"d"]
    assert gathered(rows.slice(1), np.array([1, 1])).to_pylist() == [b"bc", b"d"]
    assert varints(np.array([], dtype=np.int64)).to_pylist() == []
