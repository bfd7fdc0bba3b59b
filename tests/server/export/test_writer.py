"""Parts of an export: in order whoever is first, and never further ahead than the disk."""

import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.export import writer
from server.export.writer import PartFolder


def batch(number):
    return pa.RecordBatch.from_pydict({"source_collection_id": ["c"], "n": [str(number)]})


def folder(path, **options):
    sizes = {"row_group_rows": 1, "rows_per_file": 1_000} | options
    return PartFolder(str(path), **sizes)


def test_parts_are_in_view_in_the_order_of_the_pieces(tmp_path):
    with folder(tmp_path, rows_per_file=2) as parts:
        second, first, empty = parts.piece(1), parts.piece(0), parts.piece(2)
        for n in range(3):
            second.write(batch(10 + n))
            first.write(batch(n))
        for piece in (second, first, empty):
            piece.finish()
        assert not list(tmp_path.glob("part-*"))
        files = parts.publish()
    assert [row for f in files for row in pq.read_table(f.path)["n"].to_pylist()] == [
        "0", "1", "2", "10", "11", "12",
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == [f"part-0000{n}.parquet" for n in range(4)]


def test_rows_wait_for_a_slow_disk(tmp_path, monkeypatch):
    disk = threading.Event()
    write = writer._HashingFile.write

    def slow(self, data):
        disk.wait(60)
        return write(self, data)

    monkeypatch.setattr(writer._HashingFile, "write", slow)
    handed_over = []
    full = threading.Event()

    def hand_over(piece):
        for n in range(20):
            piece.write(batch(n))
            handed_over.append(n)
            if len(handed_over) == writer._QUEUED_BATCHES:
                full.set()
        piece.finish()

    with folder(tmp_path) as parts:
        piece = parts.piece(0)
        reader = threading.Thread(target=hand_over, args=(piece,))
        reader.start()
        assert full.wait(30)
        reader.join(0.3)
        assert reader.is_alive()
        assert len(handed_over) <= writer._QUEUED_BATCHES + 1  # And one in the writer's hands.
        disk.set()
        reader.join(30)
        [file] = parts.publish()
    assert pq.read_table(file.path)["n"].to_pylist() == [str(n) for n in range(20)]


def test_an_error_of_one_piece_leaves_nothing_of_any(tmp_path):
    def export_and_fail():
        with folder(tmp_path) as parts:
            for number in range(3):
                piece = parts.piece(number)
                piece.write(batch(number))
                piece.finish()
            raise KeyError("stop")

    with pytest.raises(KeyError):
        export_and_fail()
    assert os.listdir(tmp_path) == []
