"""Vectors come from Parquet as they were written, in file order."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu import frames
from gpu.errors import InvalidVectorsError
from gpu.frames import load_row_groups, load_vectors

ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)


def write(path, *columns, row_group_size=7, **named):
    table = pa.table(dict(columns) | named)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def fixed(rows, kind=None):
    flat = pa.array(rows.reshape(-1), type=kind or pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def test_fixed_size_lists_come_back_exactly(tmp_path):
    path = write(tmp_path / "a.parquet", v=fixed(ROWS), other=list(range(20)))

    loaded = load_vectors([path], "v")

    assert np.array_equal(loaded, ROWS)
    assert loaded.dtype == np.float32
    assert loaded.flags.c_contiguous
    assert loaded.flags.writeable


@pytest.mark.parametrize(
    "column",
    [
        fixed(ROWS, pa.float64()),
        fixed(ROWS.astype(np.float16), pa.float16()),
        pa.array(ROWS.tolist(), type=pa.list_(pa.float32())),
        pa.array(ROWS.tolist(), type=pa.large_list(pa.float64())),
    ],
    ids=lambda column: str(column.type),
)
def test_other_floats_and_lists_of_one_length_are_taken(tmp_path, column):
    assert np.array_equal(load_vectors([write(tmp_path / "a.parquet", v=column)], "v"), ROWS)


def test_files_follow_each_other_and_batches_do_not_show(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "BATCH_ROWS", 3)
    paths = [
        write(tmp_path / "a.parquet", v=fixed(ROWS)),
        write(tmp_path / "b.parquet", v=fixed(ROWS + 100)),
    ]

    assert np.array_equal(load_vectors(paths, "v"), np.vstack([ROWS, ROWS + 100]))


@pytest.mark.parametrize("missing", [[0, 1, 2, 3], [4], [5, 19], [16, 17, 18, 19]])
def test_a_null_row_becomes_nan_wherever_it_stands(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(frames, "BATCH_ROWS", 4)
    rows = [None if n in missing else row for n, row in enumerate(ROWS.tolist())]
    path = write(tmp_path / "a.parquet", v=pa.array(rows, type=pa.list_(pa.float32(), 3)))

    loaded = load_vectors([path], "v")

    expected = ROWS.copy()
    expected[missing] = np.nan
    assert np.array_equal(loaded, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["a.b", "ns__text v1", "Größe"])
def test_any_column_name_is_taken(tmp_path, name):
    path = write(tmp_path / "a.parquet", (name, fixed(ROWS)), b=list(range(20)))

    assert np.array_equal(load_vectors([path], name), ROWS)


def test_a_missing_column_is_refused_with_those_there_are(tmp_path):
    path = write(tmp_path / "a.parquet", v=fixed(ROWS), w=fixed(ROWS))

    with pytest.raises(InvalidVectorsError, match=r"no column 'x'; it has v, w"):
        load_vectors([path], "x")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(range(20)),
        pa.array(["text"] * 20),
        pa.array([[1, 2]] * 20, type=pa.list_(pa.int64())),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_without_vectors_is_refused_with_its_type(tmp_path, column):
    path = write(tmp_path / "a.parquet", v=column)

    with pytest.raises(InvalidVectorsError, match="expected lists of floats"):
        load_vectors([path], "v")


def test_lengths_that_differ_are_refused(tmp_path):
    ragged = write(tmp_path / "a.parquet", v=pa.array([[1.0, 2.0], [3.0]]))
    short = write(tmp_path / "b.parquet", v=fixed(ROWS[:, :2].copy()))
    long = write(tmp_path / "c.parquet", v=fixed(ROWS))

    with pytest.raises(InvalidVectorsError, match="1 to 2"):
        load_vectors([ragged], "v")
    with pytest.raises(InvalidVectorsError, match=r"2, and 3 in .*c\.parquet"):
        load_vectors([short, long], "v")


def test_a_vector_with_a_missing_number_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", v=pa.array([[1.0, None]], type=pa.list_(pa.float32(), 2)))

    with pytest.raises(InvalidVectorsError, match="missing numbers"):
        load_vectors([path], "v")


def test_no_files_and_no_rows_are_refused(tmp_path):
    empty = write(tmp_path / "a.parquet", v=fixed(ROWS)[:0])

    with pytest.raises(InvalidVectorsError, match="no files"):
        load_vectors([], "v")
    with pytest.raises(InvalidVectorsError, match="holds no vectors"):
        load_vectors([empty], "v")


def test_a_matrix_on_the_disk_is_an_array_like_any_other_and_leaves_no_file(tmp_path):
    rows = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    path = write(tmp_path / "a.parquet", v=fixed(rows))
    (tmp_path / "disk").mkdir()
    loaded = load_vectors([path, path], "v", tmp_path / "disk")
    assert type(loaded) is np.ndarray
    np.testing.assert_array_equal(loaded, np.concatenate([rows, rows]))
    assert list((tmp_path / "disk").iterdir()) == []
    loaded[3] = 1
    assert loaded[3].sum() == 8


def test_row_groups_are_loaded_from_an_open_file(tmp_path):
    rows = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    path = write(tmp_path / "a.parquet", v=fixed(rows))
    with open(path, "rb") as file:
        np.testing.assert_array_equal(load_row_groups(file, [1, 2], "v"), rows[7:])
    with open(path, "rb") as file, pytest.raises(InvalidVectorsError, match="no column 'w'"):
        load_row_groups(file, [0], "w")
