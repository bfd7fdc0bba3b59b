"""Means of multi-vectors: the same to the bit, whether read in one go or one by one."""

import numpy as np
import pytest
from qdrant_client import grpc as pb

from server.export import wire
from server.export.errors import MalformedResponseError
from server.export.wire import outline, parse_page

RNG = np.random.default_rng(42)


def multi(*sizes):
    parts = [RNG.standard_normal(size).astype(np.float32) for size in sizes]
    vectors = [pb.DenseVector(data=part.tolist()) for part in parts]
    return pb.VectorOutput(multi_dense=pb.MultiDenseVector(vectors=vectors))


def dense(size):
    return pb.VectorOutput(dense=pb.DenseVector(data=RNG.standard_normal(size).tolist()))


def page_of(*outputs):
    """A page of points with these vectors; None for a point without one."""
    records = [
        pb.RetrievedPoint(
            id=pb.PointId(num=n),
            vectors=None if output is None else pb.VectorsOutput(vector=output),
        )
        for n, output in enumerate(outputs)
    ]
    return pb.ScrollResponse(result=records).SerializeToString()


def read(data):
    page = parse_page(data, outline(data).records, ("",))
    return page.vectors[""], page.has_vector[""].tolist()


def read_one_by_one(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(wire, "plain_means", lambda data, outputs: ([], np.zeros((0, 0))))
        return read(data)


@pytest.mark.parametrize(
    "outputs",
    [
        [multi(*[24] * (1 + n % 9)) for n in range(60)],
        [multi(24)],
        [multi(24, 24), None, dense(24), multi(24), pb.VectorOutput(), dense(24)] * 8,
        [multi(24, 24), pb.VectorOutput(data=[1.0] * 48, vectors_count=2)] * 20,
    ],
    ids=["many", "one", "beside others", "beside the older spelling"],
)
def test_means_are_those_that_the_stubs_give(outputs, monkeypatch):
    data = page_of(*outputs)

    rows, has_vector = read(data)
    expected, expected_has = read_one_by_one(data, monkeypatch)

    assert has_vector == expected_has
    assert np.array_equal(rows, expected)
    assert np.any(rows)


@pytest.mark.parametrize("n_regular", [0, 40])
def test_parts_of_several_sizes_are_refused(n_regular):
    regular = [multi(8, 8) for _ in range(n_regular)]

    with pytest.raises(MalformedResponseError, match="parts of multi-vector '' differ in size"):
        read(page_of(*regular, multi(8, 7)))
    with pytest.raises(MalformedResponseError, match="parts of multi-vector '' differ in size"):
        read(page_of(*regular, multi()))


def test_multi_vectors_of_several_sizes_in_one_page_are_refused():
    with pytest.raises(MalformedResponseError, match=r"has \[4, 8\] dimensions within one page"):
        read(page_of(*[multi(8, 8), multi(4, 4)] * 20))


def test_bytes_that_break_off_are_refused():
    whole = page_of(*[multi(6, 6) for _ in range(30)])
    damaged = bytearray(whole)
    at = whole.index(pb.DenseVector(data=[0.0] * 6).SerializeToString()[:2])
    damaged[at + 1] = 0x7F  # A part that claims to be longer than its vector.

    with pytest.raises(MalformedResponseError):
        read(bytes(damaged))
