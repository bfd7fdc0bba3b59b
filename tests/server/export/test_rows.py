"""Rows of a page: values that no Qdrant stores readily, and the text of the payload column."""

import numpy as np
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import RestToGrpc

from server.export.rows import LeftOut, RowBuilder
from server.export.wire import outline, parse_page


def page(matrix, payloads=None):
    points = [
        pb.RetrievedPoint(
            id=pb.PointId(num=i),
            vectors=pb.VectorsOutput(vector=pb.VectorOutput(dense=pb.DenseVector(data=row))),
            payload=RestToGrpc.convert_payload(payloads[i] if payloads else {}),
        )
        for i, row in enumerate(matrix)
    ]
    data = pb.ScrollResponse(result=points).SerializeToString()
    return parse_page(data, outline(data).records, ("",))


def test_vectors_that_are_not_finite_are_left_out_under_every_distance():
    for distance in ("Cosine", "Euclid"):
        rows = RowBuilder(1, (), distance)
        batch = rows.batch("c", ("",), page([[1, np.nan], [np.inf, 0], [1, 2]]), None)
        assert batch.column("source_document_id").to_pylist() == ["2"]
        assert batch.column("vector").to_pylist() == [[1, 2]]
        assert rows.left_out.by_reason == {"not finite": 2}
        assert [d.document_id for d in rows.left_out.first] == ["0", "1"]


def test_documents_that_fail_the_filter_are_not_counted_as_left_out():
    rows = RowBuilder(1, (), "Cosine")
    payloads = [{"ok": False}, {"ok": True}]
    batch = rows.batch("c", ("",), page([[0, 0], [1, 0]], payloads), lambda p: p["ok"])
    assert batch.num_rows == 1
    assert (rows.n_matched, rows.left_out) == (1, LeftOut())


def test_a_page_without_a_usable_row_gives_no_batch():
    rows = RowBuilder(1, (), "Cosine")
    assert rows.batch("c", ("",), page([[0, 0]]), None) is None
    assert rows.n_exported == 0
    assert rows.n_matched == 1


def test_the_payload_column_is_compact_json_and_keeps_letters():
    rows = RowBuilder(1, ("a", "b.c"), "Euclid")
    payloads = [{"a": "é", "b": {"c": [1, 2.5, None, True]}, "x": 1}, {"x": 1}]
    batch = rows.batch("c", ("",), page([[1, 2], [3, 4]], payloads), None)
    assert batch.column("payload").to_pylist() == ['{"a":"é","b":{"c":[1,2.5,null,true]}}', None]


def test_nobody_left_out_is_no_sentence():
    assert LeftOut().describe() == ""
