"""What loading to the GPU decides before it touches one: shapes, pieces, where the rows go."""

import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu import backend, device_frames
from gpu.backend import Backend, device_errors, gpu_unusable
from gpu.device_frames import _pieces, load_for, load_on_gpu, loading_bytes, shape_of
from gpu.errors import DeviceMemoryError, InvalidVectorsError

ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)


def write(path, kind, rows=ROWS, row_group_size=7):
    table = pa.table({"v": pa.array(rows.tolist(), type=kind)})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.fixture
def usable(monkeypatch):
    """Answer that a GPU is there; loading onto it is not reached."""
    chosen = Backend("gpu", "the test says so")
    monkeypatch.setattr(device_frames, "choose_backend", lambda _device: chosen)
    monkeypatch.setattr(device_frames, "free_bytes", lambda _device: 1 << 40)
    return chosen


def test_the_shape_comes_from_the_footers(tmp_path):
    paths = [write(tmp_path / f"{n}.parquet", pa.list_(pa.float32(), 3)) for n in range(2)]

    assert shape_of(paths, "v") == (40, 3)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.list_(pa.float16(), 3), pa.list_(pa.int32(), 3)],
    ids=str,
)
def test_what_cudf_does_not_read_as_a_matrix_has_no_shape(tmp_path, kind):
    rows = ROWS.astype(int) if "int32" in str(kind) else ROWS

    assert shape_of([write(tmp_path / "a.parquet", kind, rows=rows)], "v") is None


def test_a_row_group_too_large_for_a_column_has_no_shape(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", pa.list_(pa.float32(), 3))

    monkeypatch.setattr(device_frames, "COLUMN_NUMBERS", 7 * 3)
    assert shape_of([path], "v") == (20, 3)
    monkeypatch.setattr(device_frames, "COLUMN_NUMBERS", 7 * 3 - 1)
    assert shape_of([path], "v") is None


def test_missing_columns_and_lengths_that_differ_are_refused(tmp_path):
    three = write(tmp_path / "a.parquet", pa.list_(pa.float32(), 3))
    two = write(tmp_path / "b.parquet", pa.list_(pa.float32(), 2), rows=ROWS[:, :2])

    with pytest.raises(InvalidVectorsError, match="no column 'w'; it has v"):
        shape_of([three], "w")
    with pytest.raises(InvalidVectorsError, match=r"3, and 2 in .*b\.parquet"):
        shape_of([three, two], "v")


@pytest.mark.parametrize(
    ("piece_bytes", "groups"),
    [(1, [[0], [1], [2]]), (14 * 12, [[0, 1], [2]]), (1 << 20, [[0, 1, 2]])],
)
def test_pieces_are_runs_of_row_groups_in_order(tmp_path, monkeypatch, piece_bytes, groups):
    path = write(tmp_path / "a.parquet", pa.list_(pa.float32(), 3))
    monkeypatch.setattr(device_frames, "PIECE_BYTES", piece_bytes)

    pieces = list(_pieces([path, path], 3))

    assert [piece.row_groups for piece in pieces] == groups * 2
    assert sum(piece.n_rows for piece in pieces) == 40


def test_on_the_cpu_the_rows_are_loaded_there(tmp_path):
    path = write(tmp_path / "a.parquet", pa.list_(pa.float32(), 3))

    loaded = load_for([path], "v", "cpu")

    assert loaded.backend.device == "cpu"
    assert np.array_equal(loaded.vectors, ROWS)
    assert not loaded.notes


def test_rows_that_do_not_fit_stay_on_the_host_and_a_note_says_so(tmp_path, usable):
    path = write(tmp_path / "a.parquet", pa.list_(pa.float32(), 3))

    loaded = load_for([path], "v", "auto", needed_bytes=lambda n, d: n * d << 50)

    assert loaded.backend == usable
    assert np.array_equal(loaded.vectors, ROWS)
    assert f"about {60 << 50:,} bytes on the device" in loaded.notes[0]


def test_running_out_while_loading_is_no_failure(tmp_path, monkeypatch, usable):
    path = write(tmp_path / "a.parquet", pa.list_(pa.float32(), 3))

    def exhausted(_paths, _column):
        raise DeviceMemoryError(needed_bytes=2, free_bytes=1)

    monkeypatch.setattr(device_frames, "load_on_gpu", exhausted)

    loaded = load_for([path], "v", "gpu")

    assert np.array_equal(loaded.vectors, ROWS)
    assert "not the GPU's" in loaded.notes[0]


class Queue:
    """A stand-in for CuPy whose copies to the device happen when they are waited for."""

    float32 = np.float32

    def __init__(self):
        self.waiting, self.cuda = [], self
        self.alloc_pinned_memory = bytearray
        pool = types.SimpleNamespace(free_all_blocks=lambda: None)
        self.get_default_pinned_memory_pool = lambda: pool

    def empty(self, shape, dtype):
        matrix = np.full(shape, -1, dtype=dtype).view(OnDevice)
        matrix.queue = self
        return matrix

    def get_current_stream(self):
        return self

    def record(self):
        return types.SimpleNamespace(synchronize=self.synchronize)

    def synchronize(self):
        for target, host in self.waiting:
            target[...] = host
        self.waiting.clear()


class OnDevice(np.ndarray):
    def __array_finalize__(self, parent):
        self.queue = getattr(parent, "queue", None)

    def set(self, host):
        assert self.shape == host.shape
        self.queue.waiting.append((self, host))


@pytest.mark.parametrize("buffer_numbers", [1, 10, 21, 1 << 20])
@pytest.mark.parametrize("read_numbers", [4, 1 << 20])
def test_numbers_that_lie_in_files_as_in_memory_are_copied_from_there(
    tmp_path, monkeypatch, buffer_numbers, read_numbers
):
    monkeypatch.setitem(sys.modules, "cupy", Queue())
    monkeypatch.setattr(device_frames, "BUFFER_NUMBERS", buffer_numbers)
    monkeypatch.setattr(device_frames, "READ_NUMBERS", read_numbers)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.reshape(-1)), 3)
    plain = {"compression": "none", "use_dictionary": False, "row_group_size": 7}
    for name in ("a", "b"):
        pq.write_table(pa.table({"v": lists}), tmp_path / f"{name}.parquet", **plain)

    loaded = load_on_gpu([tmp_path / "a.parquet", tmp_path / "b.parquet"], "v")

    assert np.array_equal(loaded, np.vstack([ROWS, ROWS]))


def test_the_estimate_of_loading_is_the_matrix_and_a_bounded_piece():
    small, large = loading_bytes(1_000_000, 768), loading_bytes(2_000_000, 768)

    assert large - small == 4 * 768 * 1_000_000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc: out_of_memory: CUDA error (failed to allocate 8 bytes)"),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
        RuntimeError("exception occurred! file=a.cpp line=3: std::bad_alloc"),
        RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"),
    ],
    ids=lambda error: str(error)[:24],
)
def test_every_way_of_running_out_is_told_as_one(monkeypatch, error):
    monkeypatch.setattr("gpu.memory.free_bytes", lambda _device: 77)

    with pytest.raises(DeviceMemoryError) as caught, device_errors(99):
        raise error

    assert (caught.value.needed_bytes, caught.value.free_bytes) == (99, 77)


def test_a_warning_of_a_gpu_package_does_not_make_the_gpu_unusable(monkeypatch):
    import warnings

    def warns():
        warnings.warn("numba is old", FutureWarning, stacklevel=1)

    monkeypatch.setattr(backend, "_first_use_fault", warns)
    monkeypatch.setattr(backend, "_driver_fault", lambda: None)
    gpu_unusable.cache_clear()
    try:
        assert gpu_unusable() is None
    finally:
        gpu_unusable.cache_clear()
