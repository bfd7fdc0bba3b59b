"""Ranges of ids: together they are the collection, in its order, wherever the cuts fall."""

import dataclasses
import uuid

import numpy as np
import pyarrow.parquet as pq
import pytest
from qdrant_client import grpc as pb
from qdrant_client import models

from server.export import ranges
from server.export.filters import parse_filter
from server.export.parquet import ExportRequest, ExportSource, export
from server.export.scroll import EVERYTHING, IdRange, ScrollQuery, scroll_pages
from server.qdrant.client import channel

N_POINTS = 400
rng = np.random.default_rng(3)
NUMBERS = sorted({int(n) for n in rng.integers(0, 2**63, N_POINTS // 2)})
UUIDS = sorted(str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(N_POINTS // 2))
IDS = [*NUMBERS, *UUIDS]


@pytest.fixture
def collection(client, collection_name):
    """Numbers and UUIDs beside each other, stored in another order than Qdrant's."""
    name = collection_name()
    params = models.VectorParams(size=2, distance=models.Distance.EUCLID)
    client.create_collection(name, vectors_config=params)
    points = [
        models.PointStruct(id=point, vector=[n, -n], payload={"odd": bool(n % 2)})
        for n, point in enumerate(IDS)
    ]
    client.upsert(name, [points[n] for n in rng.permutation(len(points))], wait=True)
    return name


def number(n):
    return pb.PointId(num=n).SerializeToString()


def text(value):
    return pb.PointId(uuid=value).SerializeToString()


@pytest.mark.parametrize(
    ("within", "expected"),
    [
        (EVERYTHING, IDS),
        (IdRange(number(NUMBERS[7]), number(NUMBERS[90])), NUMBERS[7:90]),
        (IdRange(number(NUMBERS[7] + 1), text(UUIDS[3])), [*NUMBERS[8:], *UUIDS[:3]]),
        (IdRange(text(UUIDS[3]), None), UUIDS[3:]),
        (IdRange(None, text("0" * 8 + UUIDS[0][8:])), NUMBERS),
        (IdRange(number(NUMBERS[5]), number(NUMBERS[5])), []),
    ],
)
def test_a_range_reads_from_its_start_up_to_its_stop(qdrant_address, collection, within, expected):
    query = ScrollQuery(collection, ("",), page_size=30)
    with channel(qdrant_address) as wire:
        pages = list(scroll_pages(wire, qdrant_address, query, within))
    assert [i for page in pages for i in page.ids.to_pylist()] == [str(i) for i in expected]
    first = [row[0] for page in pages for row in page.vectors[""].tolist()]
    assert first == [IDS.index(i) for i in expected]


@pytest.mark.parametrize("filter", [None, {"odd": True}])
def test_an_export_is_the_same_however_many_ranges_read_it(
    qdrant_address, collection, tmp_path, monkeypatch, filter
):
    monkeypatch.setattr(ranges, "POINTS_PER_RANGE", 20)
    request = ExportRequest(
        qdrant_address,
        (ExportSource("docs", collection, ("",)),),
        parse_filter(filter),
        payload_fields=("odd",),
        directory=str(tmp_path / "one"),
        distance="Cosine",  # So that the all-zero vector of the first point is left out.
        page_size=17,
        max_ranges=1,
    )
    one = export(request)
    many = export(dataclasses.replace(request, directory=str(tmp_path / "many"), max_ranges=5))

    assert len(one.files) == 1
    assert len(many.files) == 5
    expected = pq.read_table(one.files[0]).to_pylist()
    assert [row for path in many.files for row in pq.read_table(path).to_pylist()] == expected
    assert len(expected) == (N_POINTS - 1 if filter is None else N_POINTS // 2)
    assert many.left_out == one.left_out
    assert many.n_matched == one.n_matched


def test_cuts_fall_where_a_sample_does():
    sample = [*range(0, 1000, 10), *UUIDS[:100]]
    found = ranges.cut(sample, 4)
    assert [within.start for within in found] == [
        None,
        number(500),
        text(UUIDS[0]),
        text(UUIDS[50]),
    ]
    assert [within.stop for within in found] == [*(w.start for w in found[1:]), None]


def test_a_sample_of_one_id_or_none_cuts_what_it_can():
    assert ranges.cut([], 4) == (EVERYTHING,)
    assert ranges.cut([5, 5, 5], 4) == (IdRange(None, number(5)), IdRange(number(5), None))


def test_few_points_are_read_as_one(client, collection):
    assert ranges.id_ranges(client, ScrollQuery(collection), 4) == (EVERYTHING,)


def test_ranges_of_a_shared_collection_hold_its_own_documents(
    client, qdrant_address, collection_name, monkeypatch
):
    monkeypatch.setattr(ranges, "POINTS_PER_RANGE", 20)
    name = collection_name()
    params = models.VectorParams(size=2, distance=models.Distance.EUCLID)
    client.create_collection(name, vectors_config=params)
    points = [
        models.PointStruct(id=n, vector=[n, 1], payload={"collection_id": "ab"[n % 4 == 0]})
        for n in range(400)
    ]
    client.upsert(name, points, wait=True)
    query = ScrollQuery(f"{name}/b", ("",), page_size=7)

    found = ranges.id_ranges(client, query, 4)

    assert len(found) == 4
    with channel(qdrant_address) as wire:
        read = [
            i
            for within in found
            for page in scroll_pages(wire, qdrant_address, query, within)
            for i in page.ids.to_pylist()
        ]
    assert read == [str(n) for n in range(0, 400, 4)]
