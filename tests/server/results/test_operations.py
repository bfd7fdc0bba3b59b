"""What enrichment writes, by column: the payloads that `Fields` gives document by document."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import grpc as pb

from server.export.payload_json import value_to_python
from server.jobs.definition import FieldMapping
from server.results.fields import Fields, one_row_each
from server.results.groups import Group, members_table
from server.results.operations import Encoder

GROUPS = [Group(f"cl_{n}", f"Größe {n}", n, keywords=("a", "b")[:n]) for n in range(3)]
SOURCES = (
    "cluster_id",
    "cluster_label",
    "distance_to_centroid",
    "member_count",
    "keywords",
    "confidence",
    "x",
    "y",
)


def mappings(*sources):
    return [FieldMapping(source_field=name, target_field=f"my.{name}") for name in sources]


def members(n_points, n_documents=None, seed=1):
    rng = np.random.default_rng(seed)
    return members_table(
        pa.array(["docs"] * n_points),
        pa.array([str(n % (n_documents or n_points)) for n in range(n_points)]),
        rng.integers(-1, 3, n_points),
        GROUPS,
        distances=rng.integers(0, 5, n_points) / 3,
        confidence=np.where(rng.random(n_points) < 0.1, np.nan, 0.5),
        coordinates=rng.random((n_points, 2)),
    )


def written(operations):
    """Read operations back: what each point gets, and how many points each operation has."""
    found, sizes = {}, []
    for operation in pb.UpdateBatchPoints.FromString(b"".join(operations.to_pylist())).operations:
        payload = operation.set_payload.payload
        ids = operation.set_payload.points_selector.points.ids
        sizes.append(len(ids))
        for point in ids:
            assert point.num not in found
            found[point.num] = {key: value_to_python(value) for key, value in payload.items()}
    return found, sizes


def one_by_one(fields, rows):
    ids = [int(text) for text in rows["source_document_id"].to_pylist()]
    grouped = fields.grouped(rows, ids)
    return {point: {**payload, "run": "r"} for points, payload in grouped for point in points}


@pytest.mark.parametrize("sources", [SOURCES, SOURCES[:2], SOURCES[:3], ("x",), ()])
@pytest.mark.parametrize("n_documents", [None, 150], ids=["one group each", "several"])
def test_columns_say_what_documents_say(sources, n_documents):
    rows = one_row_each(members(300, n_documents))
    fields = Fields(GROUPS, mappings(*sources))
    found, sizes = written(Encoder(fields, {"run": "r"}).encode(rows).operations())
    assert found == one_by_one(fields, rows)
    assert len(found) == len(rows)
    if sources == SOURCES[:3] and n_documents is None:  # Sorted so that equal ones are neighbours.
        assert len(sizes) == len(fields.grouped(rows, range(len(rows))))


def test_points_that_are_gone_are_left_out_with_their_payloads():
    rows = members(60)
    writes = Encoder(Fields(GROUPS, mappings("cluster_id")), {"run": "r"}).encode(rows)
    chosen = np.ones(60, dtype=bool)
    chosen[: int(writes.counts[0])] = False  # All of the first payload.
    chosen[-1] = False
    found, sizes = written(writes.only(chosen).operations())
    ids = [int(text) for text in rows["source_document_id"].to_pylist()]
    assert found.keys() == {point for point, is_kept in zip(ids, chosen, strict=True) if is_kept}
    assert len(sizes) == len(writes.counts) - 1
    assert writes.only(np.zeros(60, dtype=bool)).operations().to_pylist() == []
