"""Files with vectors as they lie in memory are read by Arrow as if it had written them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu.vector_pages import plain_runs
from server.export.parquet_file import VectorParquetWriter


def vectors(n_rows, n_dims, seed=0):
    matrix = np.random.default_rng(seed).standard_normal((n_rows, n_dims), dtype=np.float32)
    item = pa.field("element", pa.float32(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(matrix.reshape(-1)), type=pa.list_(item, n_dims)
    )


def batch(n_rows, *dims, seed=0):
    arrays = {
        "source_collection_id": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n_rows, dtype=np.int32)), pa.array([f"docs {seed}"])
        ),
        "source_document_id": pa.array([f"{seed}-{n}" for n in range(n_rows)]),
        **{f"vector_{i}": vectors(n_rows, n_dims, seed) for i, n_dims in enumerate(dims)},
        "payload": pa.array(
            [None if n % 3 else f'{{"ß":{n}}}' for n in range(n_rows)], pa.string()
        ),
    }
    fields = [pa.field(name, a.type, nullable=name == "payload") for name, a in arrays.items()]
    return pa.RecordBatch.from_pydict(arrays, pa.schema(fields))


def written(*row_groups):
    sink = io.BytesIO()
    writer = VectorParquetWriter(sink, row_groups[0][0].schema)
    for batches in row_groups:
        writer.write_row_group(batches)
    writer.close()
    return pq.ParquetFile(pa.BufferReader(sink.getvalue()))


@pytest.mark.parametrize("dims", [(1,), (2,), (3,), (8,), (384,), (5, 1, 64), ()])
def test_arrow_reads_what_was_written(dims):
    first, second, third = batch(40, *dims), batch(1, *dims, seed=1), batch(17, *dims, seed=2)

    file = written([first, second], [third])

    assert file.schema_arrow == first.schema
    assert (
        file.read().combine_chunks()
        == pa.Table.from_batches([first, second, third]).unify_dictionaries().combine_chunks()
    )
    assert file.read_row_group(1)["source_document_id"].to_pylist()[0] == "2-0"


def test_the_footer_has_what_other_readers_go_by():
    rows = batch(40, 16)

    file = written(*[[rows]] * 20)  # Lists of fifteen and more are spelled otherwise.

    footer = file.metadata
    assert footer.num_rows == 800
    assert footer.num_row_groups == 20
    ends = 4
    for number in range(20):
        group = footer.row_group(number)
        assert group.num_rows == 40
        columns = [group.column(n) for n in range(4)]
        assert [c.path_in_schema for c in columns][2] == "vector_0.list.element"
        assert [c.num_values for c in columns] == [40, 40, 640, 40]
        starts = [c.dictionary_page_offset or c.data_page_offset for c in columns]
        assert min(starts) == ends
        ends = max(s + c.total_compressed_size for s, c in zip(starts, columns, strict=True))
    vector = file.schema_arrow.field("vector_0")
    assert not vector.nullable
    assert vector.type.list_size == 16


def test_rows_cut_from_larger_batches_are_written_alone():
    rows = batch(40, 7)

    file = written([rows.slice(11, 13)])

    assert file.read()["vector_0"].to_pylist() == rows["vector_0"].slice(11, 13).to_pylist()


def test_vectors_are_found_again_without_decoding_them(tmp_path):
    path = tmp_path / "part.parquet"
    rows = batch(40, 6)
    with path.open("wb") as sink:
        writer = VectorParquetWriter(sink, rows.schema)
        writer.write_row_group([rows, rows])
        writer.close()

    with pq.ParquetFile(path) as file:
        runs = plain_runs(path, file, "vector_0")

    content = rows["vector_0"].flatten().to_numpy().tobytes()
    data = path.read_bytes()
    assert [data[r.start : r.start + 4 * r.n_numbers] for r in runs] == [content, content]


def test_a_file_without_rows_keeps_its_columns():
    sink = io.BytesIO()
    VectorParquetWriter(sink, batch(1, 4).schema).close()

    empty = pq.read_table(pa.BufferReader(sink.getvalue()))

    assert len(empty) == 0
    assert empty.schema == batch(1, 4).schema
