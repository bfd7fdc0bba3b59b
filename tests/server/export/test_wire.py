"""Pages read from bytes agree with the official stubs, and broken bytes are refused."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import grpc as pb

from server.export import protobytes
from server.export.errors import MalformedResponseError, UnsupportedVectorError
from server.export.payload_json import value_to_python
from server.export.wire import outline, parse_page

floats = st.floats(width=32, allow_nan=False)
numbers = st.integers(0, 2**64 - 1).map(lambda n: pb.PointId(num=n))
uuids = st.uuids().map(lambda u: pb.PointId(uuid=str(u)))
point_id = st.one_of(numbers, uuids)
N_DIMS = 3


def old_dense(values):
    return pb.VectorOutput(data=values)


def new_dense(values):
    return pb.VectorOutput(dense=pb.DenseVector(data=values))


def multi_dense(values):
    parts = [pb.DenseVector(data=part) for part in (values, values[::-1], values)]
    return pb.VectorOutput(multi_dense=pb.MultiDenseVector(vectors=parts))


vector_output = st.builds(
    lambda make, values: make(values),
    st.sampled_from([old_dense, new_dense, multi_dense]),
    st.lists(floats, min_size=N_DIMS, max_size=N_DIMS),
)
vectors_output = st.one_of(
    st.none(),
    vector_output.map(lambda v: pb.VectorsOutput(vector=v)),
    st.dictionaries(st.sampled_from(["", "text", "image", "other"]), vector_output).map(
        lambda named: pb.VectorsOutput(vectors=pb.NamedVectorsOutput(vectors=named))
    ),
)
value = st.recursive(
    st.one_of(
        st.just(pb.Value(null_value=0)),
        st.booleans().map(lambda v: pb.Value(bool_value=v)),
        st.integers(-(2**63), 2**63 - 1).map(lambda v: pb.Value(integer_value=v)),
        st.floats(allow_nan=False).map(lambda v: pb.Value(double_value=v)),
        st.text(max_size=20).map(lambda v: pb.Value(string_value=v)),
    ),
    lambda below: st.one_of(
        st.lists(below, max_size=3).map(lambda v: pb.Value(list_value=pb.ListValue(values=v))),
        st.dictionaries(st.text(max_size=5), below, max_size=3).map(
            lambda v: pb.Value(struct_value=pb.Struct(fields=v))
        ),
    ),
    max_leaves=5,
)
point = st.builds(
    lambda i, v, p: pb.RetrievedPoint(id=i, vectors=v, payload=p),
    point_id,
    vectors_output,
    st.dictionaries(st.text(max_size=8), value, max_size=3),
)
response = st.builds(
    lambda points, offset: pb.ScrollResponse(result=points, next_page_offset=offset, time=0.1),
    st.lists(point, max_size=6),
    st.one_of(st.none(), point_id),
)
NAMES = ("", "text", "image")


def parse(message, names=NAMES):
    data = message.SerializeToString()
    return parse_page(data, outline(data).records, names)


def by_the_stubs(one):
    if one.vectors.WhichOneof("vectors_options") == "vector":
        return {"": one.vectors.vector}
    return dict(one.vectors.vectors.vectors)


def vector_by_the_stubs(output):
    parts = [part.data for part in output.multi_dense.vectors]
    with np.errstate(invalid="ignore"):
        rows = np.array(parts or [output.dense.data or output.data], dtype=np.float64)
        return rows.mean(axis=0).astype(np.float32)


@pytest.fixture(params=["abreast", "one by one"])
def walking(request, monkeypatch):
    """Pages of a test are small; walk their messages in either way."""
    few = {"abreast": 1, "one by one": 1_000}[request.param]
    monkeypatch.setattr(protobytes, "_FEW", few)


SETTINGS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SETTINGS
@given(message=response)
def test_a_page_reads_as_the_official_stubs_read_it(walking, message):
    data = message.SerializeToString()
    page = parse(message)

    offset = outline(data).next_offset
    assert (offset is not None) == message.HasField("next_page_offset")
    if offset is not None:
        assert pb.PointId.FromString(offset) == message.next_page_offset
    assert page.ids.to_pylist() == [p.id.uuid or str(p.id.num) for p in message.result]
    assert page.payloads.dicts() == [
        {key: value_to_python(item) for key, item in p.payload.items()} for p in message.result
    ]
    for name in NAMES:
        for row, one in enumerate(message.result):
            output = by_the_stubs(one).get(name)
            assert page.has_vector[name][row] == (output is not None)
            if output is not None:
                expected = vector_by_the_stubs(output)
                assert np.array_equal(page.vectors[name][row], expected, equal_nan=True)


@SETTINGS
@given(message=response, data=st.data())
def test_damaged_bytes_are_refused_or_read_but_never_crash(walking, message, data):
    whole = message.SerializeToString()
    cut = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=8))
    broken = whole[:cut] + noise + whole[cut + len(noise) :]
    try:
        page = parse_page(broken, outline(broken).records, NAMES)
        page.payloads.json(None)
    except (MalformedResponseError, UnsupportedVectorError):
        return
    assert all(len(page.vectors[name]) == len(page.ids) for name in NAMES)


def test_a_length_beyond_the_end_is_refused():
    with pytest.raises(MalformedResponseError, match="beyond"):
        outline(b"\x12\x7f\x0a")
    with pytest.raises(MalformedResponseError, match="breaks off"):
        outline(b"\x12\xff")


@pytest.mark.parametrize(
    "output",
    [
        pb.VectorOutput(
            multi_dense=pb.MultiDenseVector(
                vectors=[pb.DenseVector(data=[1, 3]), pb.DenseVector(data=[3, 5])]
            )
        ),
        pb.VectorOutput(data=[1, 3, 3, 5], vectors_count=2),
    ],
)
def test_a_multi_vector_is_read_as_its_mean(output):
    message = pb.ScrollResponse(
        result=[pb.RetrievedPoint(id=pb.PointId(num=1), vectors=pb.VectorsOutput(vector=output))]
    )
    assert parse(message, ("",)).vectors[""].tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize(
    "output",
    [
        pb.VectorOutput(sparse=pb.SparseVector(values=[1], indices=[7])),
        pb.VectorOutput(data=[1], indices=pb.SparseIndices(data=[7])),
    ],
)
def test_a_sparse_vector_is_refused_by_name(output):
    named = pb.NamedVectorsOutput(vectors={"words": output})
    message = pb.ScrollResponse(
        result=[pb.RetrievedPoint(id=pb.PointId(num=1), vectors=pb.VectorsOutput(vectors=named))]
    )
    with pytest.raises(UnsupportedVectorError, match="'words' is sparse"):
        parse(message, ("words",))
    assert parse(message, ("other",)).has_vector["other"].tolist() == [False]


def test_two_sizes_within_a_page_are_refused():
    points = [
        pb.RetrievedPoint(id=pb.PointId(num=n), vectors=pb.VectorsOutput(vector=new_dense([1] * n)))
        for n in (1, 2)
    ]
    with pytest.raises(MalformedResponseError, match=r"\[1, 2\] dimensions"):
        parse(pb.ScrollResponse(result=points), ("",))


def test_unpacked_floats_are_read_too():
    # Field 1 of VectorOutput, twice, each as a 32-bit value of its own.
    unpacked = b"".join(b"\x0d" + np.float32(v).tobytes() for v in (1.5, -2.0))
    vectors = b"\x0a" + bytes([len(unpacked)]) + unpacked
    record = b"\x0a\x02\x08\x07" + b"\x22" + bytes([len(vectors)]) + vectors
    data = b"\x12" + bytes([len(record)]) + record

    page = parse_page(data, outline(data).records, ("",))

    assert page.ids.to_pylist() == ["7"]
    assert page.vectors[""].tolist() == [[1.5, -2.0]]


def test_many_records_of_few_lengths_are_all_found():
    rng = np.random.default_rng(1)
    ids = np.sort(rng.choice(2**20, 3_000, replace=False)).tolist()
    matrix = rng.standard_normal((len(ids), N_DIMS)).astype(np.float32)
    message = pb.ScrollResponse(
        result=[
            pb.RetrievedPoint(
                id=pb.PointId(num=i), vectors=pb.VectorsOutput(vector=new_dense(row.tolist()))
            )
            for i, row in zip(ids, matrix, strict=True)
        ],
        next_page_offset=pb.PointId(num=2**20),
    )

    page = parse(message, ("",))

    assert page.ids.to_pylist() == [str(i) for i in ids]
    np.testing.assert_array_equal(page.vectors[""], matrix)


def test_records_can_be_read_in_part():
    points = [
        pb.RetrievedPoint(
            id=pb.PointId(num=n),
            vectors=pb.VectorsOutput(vector=old_dense([n])),
            payload={"n": pb.Value(integer_value=n)},
        )
        for n in range(5)
    ]
    data = pb.ScrollResponse(result=points).SerializeToString()
    records = outline(data).records

    page = parse_page(data, records.at(np.arange(1, 3)), ("",))

    assert page.ids.to_pylist() == ["1", "2"]
    assert page.vectors[""].tolist() == [[1.0], [2.0]]
    assert page.payloads.dicts() == [{"n": 1}, {"n": 2}]
