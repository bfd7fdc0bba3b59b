"""Numbers that lie plain in a file are found; where they do not, or have gaps, none are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu.frames import load_vectors
from gpu.vector_pages import Run, plain_runs, read_run

ROWS = np.random.default_rng(42).standard_normal((5_000, 24)).astype(np.float32)
PLAIN = {"compression": "none", "use_dictionary": False}


def fixed(rows, kind=None):
    return pa.FixedSizeListArray.from_arrays(
        pa.array(rows.reshape(-1), type=kind or pa.float32()), rows.shape[1]
    )


def write(path, column=None, **options):
    column = fixed(ROWS) if column is None else column
    table = pa.table({"other": np.arange(len(column)), "v": column, "a.b": column})
    pq.write_table(table, path, **({"row_group_size": 1_700} | PLAIN | options))
    return path


def runs_of(path, column="v"):
    with pq.ParquetFile(path) as file:
        return plain_runs(path, file, column)


@pytest.mark.parametrize("options", [{}, {"write_statistics": False}, {"data_page_size": 5_000}])
def test_plain_numbers_are_found_in_the_order_of_the_rows(tmp_path, options):
    path = write(tmp_path / "a.parquet", **options)

    runs = runs_of(path)

    data = path.read_bytes()
    found = b"".join(data[run.start : run.start + 4 * run.n_numbers] for run in runs)
    assert found == ROWS.tobytes()
    assert np.array_equal(load_vectors([path], "v"), ROWS)
    assert np.array_equal(load_vectors([path], "a.b"), ROWS)


GAPS = [None if n in (7, 4_000) else row for n, row in enumerate(ROWS.tolist())]


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (None, {"compression": "snappy"}),
        (None, {"use_dictionary": True}),
        (None, {"use_byte_stream_split": ["v.list.element"]}),
        (None, {"data_page_version": "2.0"}),
        (fixed(ROWS, pa.float64()), {}),
        (pa.array(ROWS.tolist(), type=pa.list_(pa.float32())), {}),
        (pa.array(GAPS, type=pa.list_(pa.float32(), 24)), {}),
    ],
    ids=["compressed", "dictionary", "split", "pages of version 2", "float64", "list", "gaps"],
)
def test_what_has_to_be_decoded_is_left_to_arrow(tmp_path, column, options):
    path = write(tmp_path / "a.parquet", column, **options)

    assert not runs_of(path)

    loaded = load_vectors([path], "v")
    expected = ROWS.copy()
    if column is not None and column.null_count:
        expected[[7, 4_000]] = np.nan
    assert np.array_equal(loaded, expected, equal_nan=True)


def test_plain_and_encoded_files_make_one_matrix(tmp_path):
    paths = [
        write(tmp_path / "a.parquet", pa.array([None] * 3, type=pa.list_(pa.float32(), 24))),
        write(tmp_path / "b.parquet"),
        write(tmp_path / "c.parquet", fixed(ROWS[:9] + 1), compression="zstd"),
        write(tmp_path / "d.parquet", fixed(ROWS[:9] + 2)),
    ]

    nothing = np.full((3, 24), np.nan)
    expected = np.vstack([nothing, ROWS, ROWS[:9] + 1, ROWS[:9] + 2])
    assert np.array_equal(load_vectors(paths, "v"), expected, equal_nan=True)


def test_a_file_that_ends_too_early_is_told(tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(b"12345678")

    with path.open("rb") as file, pytest.raises(EOFError, match="within the numbers at byte 4"):
        read_run(file.fileno(), Run(4, 2), np.empty(2, dtype=np.float32))
