"""The members table: its order, its noise, and what it refuses."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from server.results.groups import MEMBERS_SCHEMA, NOISE_ID, Group, member_order, members_table

GROUPS = [Group("cl_0", "Tools", 3), Group("cl_1", "Spiele → Größe", 1)]


def table(labels: list[int], distances: list[float] | None = None, **columns: object) -> pa.Table:
    n_points = len(labels)
    return members_table(
        pa.array(["docs"] * n_points, pa.string()),
        pa.array([str(i) for i in range(n_points)], pa.string()),
        np.array(labels, dtype=np.int32),
        GROUPS,
        distances=None if distances is None else np.array(distances, dtype=np.float32),
        **columns,  # type: ignore[arg-type]
    )


def test_members_are_sorted_by_group_then_distance_with_noise_last():
    members = table([1, 0, -1, 0, 0], [0.5, 0.3, 9.0, 0.1, 0.2])

    assert members["source_document_id"].to_pylist() == ["3", "4", "1", "0", "2"]
    assert members["cluster_id"].to_pylist() == ["cl_0"] * 3 + ["cl_1", NOISE_ID]
    assert members["cluster_label"].to_pylist()[3:] == ["Spiele → Größe", "Noise"]


def test_noise_has_no_distance_whatever_was_computed_for_it():
    assert table([-1, 0], [0.7, 0.1])["distance_to_centroid"].to_pylist() == [
        pytest.approx(0.1),
        None,
    ]


def test_member_order_gives_the_row_of_each_member():
    labels, distances = np.array([1, 0, -1, 0]), np.array([0.5, 0.3, np.nan, 0.1])
    assert member_order(labels, distances).tolist() == [3, 1, 0, 2]


def test_rows_without_distance_keep_their_order():
    assert table([0, 0, 0])["source_document_id"].to_pylist() == ["0", "1", "2"]


@pytest.mark.parametrize("labels", [[], [-1, -1], [0]])
def test_every_shape_of_run_has_the_same_schema(labels):
    members = table(labels)
    assert members.schema == MEMBERS_SCHEMA
    assert len(members) == len(labels)


def test_two_coordinates_leave_the_third_empty():
    members = table([0, 0], coordinates=np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert members["y"].to_pylist() == [2.0, 4.0]
    assert members["z"].to_pylist() == [None, None]


def test_chunked_ids_of_an_export_are_taken():
    ids = pa.chunked_array([["7"], ["8", "9"]])
    names = pa.chunked_array([["a", "b"], ["c"]])
    members = members_table(names, ids, np.array([1, 0, 1]), GROUPS)
    assert members["source_document_id"].to_pylist() == ["8", "7", "9"]
    assert members["source_collection_id"].to_pylist() == ["b", "a", "c"]


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_without_a_group_is_refused(label):
    with pytest.raises(ValueError, match="there are 2 groups"):
        table([0, label])


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="3 labels beside columns of"):
        table([0, 0, 0], [0.1, 0.2])
