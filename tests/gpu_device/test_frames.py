"""Parquet onto the GPU: the same numbers in the same order as on the CPU."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu import device_frames
from gpu.device_frames import load_for, load_on_gpu
from gpu.errors import InvalidVectorsError
from gpu.frames import load_vectors
from server.export.parquet_file import VectorParquetWriter

ROWS = np.random.default_rng(0).normal(size=(200, 24)).astype(np.float32)


def write(path, kind=None, missing=(), rows=ROWS, row_group_size=37, name="vector"):
    kind = kind or pa.list_(pa.float32(), rows.shape[1])
    column = [None if n in missing else row for n, row in enumerate(rows.tolist())]
    table = pa.table({"other": list(range(len(rows))), name: pa.array(column, type=kind)})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("piece_bytes", [1, 8_000, 1 << 28])
@pytest.mark.parametrize("missing", [(), (0, 5, 36, 37, 199), tuple(range(37, 74))], ids=len)
def test_files_and_row_groups_follow_each_other(tmp_path, monkeypatch, piece_bytes, missing):
    import cupy

    monkeypatch.setattr(device_frames, "PIECE_BYTES", piece_bytes)
    paths = [
        write(tmp_path / "a.parquet", missing=missing),
        write(tmp_path / "b.parquet", rows=ROWS[:50] + 100),
    ]

    loaded = load_on_gpu(paths, "vector")

    assert isinstance(loaded, cupy.ndarray)
    assert loaded.dtype == np.float32
    assert loaded.flags.c_contiguous
    assert np.array_equal(loaded.get(), load_vectors(paths, "vector"), equal_nan=True)


def test_an_export_s_own_pages_come_out_the_same(tmp_path, monkeypatch):
    path = tmp_path / "part-00000.parquet"
    item = pa.field("element", pa.float32(), nullable=False)
    flat = pa.array(ROWS.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, ROWS.shape[1]))
    ids = pa.array([str(n) for n in range(len(ROWS))])
    schema = pa.schema(
        [pa.field("id", ids.type, nullable=False), pa.field("vector", column.type, nullable=False)]
    )
    batch = pa.RecordBatch.from_arrays([ids, column], schema=schema)
    with path.open("wb") as sink:
        writer = VectorParquetWriter(sink, schema)
        writer.write_row_group([batch, batch.slice(0, 7)])
        writer.write_row_group([batch.slice(7)])
        writer.close()

    assert np.array_equal(load_on_gpu([path], "vector").get(), np.vstack([ROWS, ROWS]))
    # cuDF reads them as well, should they ever come without their numbers as they lie in memory.
    monkeypatch.setattr(device_frames, "plain_runs", lambda *file: None)
    assert np.array_equal(load_on_gpu([path], "vector").get(), np.vstack([ROWS, ROWS]))


def test_many_buffers_of_plain_numbers_come_out_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(device_frames, "BUFFER_NUMBERS", 100_000)
    monkeypatch.setattr(device_frames, "READ_NUMBERS", 7_000)
    rows = np.arange(3_000_000, dtype=np.float32).reshape(-1, 300)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 300)
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"v": lists}), path, row_group_size=999, compression="none", use_dictionary=False
    )

    assert np.array_equal(load_on_gpu([path], "v").get(), rows)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64(), 24),
        pa.list_(pa.float16(), 24),
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
    ],
    ids=str,
)
def test_other_types_come_out_the_same(tmp_path, kind):
    path = write(tmp_path / "a.parquet", kind=kind, missing=(3,))

    on_gpu = load_on_gpu([path], "vector")

    assert np.array_equal(on_gpu.get(), load_vectors([path], "vector"), equal_nan=True)


@pytest.mark.parametrize("name", ["a.b", "ns__text v1", "Größe"])
def test_any_column_name_is_taken(tmp_path, name):
    path = write(tmp_path / "a.parquet", name=name)

    assert np.array_equal(load_on_gpu([path], name).get(), ROWS)


def test_a_folder_that_looks_like_a_partition_adds_nothing(tmp_path):
    folder = tmp_path / "vector=7"
    folder.mkdir()
    path = write(folder / "a.parquet")

    assert np.array_equal(load_on_gpu([path], "vector").get(), ROWS)


def test_missing_numbers_and_only_nulls_are_refused(tmp_path):
    holes = ROWS[:2].tolist()
    holes[1][3] = None
    table = pa.table({"vector": pa.array(holes, type=pa.list_(pa.float32(), 24))})
    pq.write_table(table, tmp_path / "holes.parquet")
    nulls = write(tmp_path / "nulls.parquet", missing=range(len(ROWS)))

    with pytest.raises(InvalidVectorsError, match="missing numbers"):
        load_on_gpu([tmp_path / "holes.parquet"], "vector")
    with pytest.raises(InvalidVectorsError, match="holds no vectors"):
        load_on_gpu([nulls], "vector")


def test_vectors_are_loaded_to_where_the_fit_will_run(tmp_path):
    import cupy

    path = write(tmp_path / "a.parquet")

    loaded = load_for([path], "vector", "auto")
    too_many = load_for([path], "vector", "gpu", needed_bytes=lambda n, d: 1 << 60)

    assert isinstance(loaded.vectors, cupy.ndarray)
    assert not loaded.notes
    assert isinstance(too_many.vectors, np.ndarray)
    assert "not the GPU's" in too_many.notes[0]
