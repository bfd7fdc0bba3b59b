"""A Parquet file whose vectors are written as they lie in memory.

Arrow's writer looks at each number of a list on its own, which costs more than to fetch it from
Qdrant. Where no row and no number is missing, what a page says beside the numbers is the same
for every row: so a page is its header, these marks, and the numbers. All other columns are
encoded by Arrow, row group by row group, and placed into the file beside the vectors.

References
----------
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from server.export.thrift import Value, i32, i64, listed, struct, text, varint

_MAGIC: Final = b"PAR1"
_VERSION: Final = 2
_CREATED_BY: Final = "shoal"
# The numbers that parquet.thrift gives to types, repetitions, logical types and encodings.
_TYPES: Final = {"FLOAT": 4, "BYTE_ARRAY": 6}
_FLOAT: Final = _TYPES["FLOAT"]
_REQUIRED, _OPTIONAL, _REPEATED = 0, 1, 2
_UTF8, _LIST = 0, 3
_STRING_LOGICAL, _LIST_LOGICAL = 1, 3
_ENCODINGS: Final = {"PLAIN": 0, "PLAIN_DICTIONARY": 2, "RLE": 3, "RLE_DICTIONARY": 8}
_UNCOMPRESSED: Final = 0
_DATA_PAGE: Final = 0


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, data: Any) -> int:
        """Append bytes."""
        ...


class VectorParquetWriter:
    """Writes one Parquet file, uncompressed and without statistics.

    Parameters
    ----------
    sink : Sink
        Not closed here.
    schema : pa.Schema
        Of columns that are strings (or dictionaries of them), or fixed-size lists of float32
        that have no nulls, neither rows nor numbers.
    """

    def __init__(self, sink: Sink, schema: pa.Schema) -> None:
        self._sink = sink
        self._schema = schema
        self._n_bytes = 0
        self._n_rows = 0
        self._row_groups: list[Value] = []
        self._others = [field.name for field in schema if not _is_vector(field)]
        self._put(_MAGIC)

    def write_row_group(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Append batches as one row group; each is one page of every vector column."""
        n_rows = sum(batch.num_rows for batch in batches)
        start = self._n_bytes
        others = self._put_others(batches)
        chunks = [
            self._put_vectors(field, [batch.column(field.name) for batch in batches])
            if _is_vector(field)
            else others[field.name]
            for field in self._schema
        ]
        n_bytes = self._n_bytes - start
        self._row_groups.append(
            struct(
                {
                    1: listed(chunks),
                    2: i64(n_bytes),
                    3: i64(n_rows),
                    5: i64(start),
                    6: i64(n_bytes),
                }
            )
        )
        self._n_rows += n_rows

    def close(self) -> None:
        """Append the footer."""
        footer = struct(
            {
                1: i32(_VERSION),
                2: listed([_root(self._schema), *_elements(self._schema)]),
                3: i64(self._n_rows),
                4: listed(self._row_groups),
                5: listed([struct({1: text("ARROW:schema"), 2: text(_arrow(self._schema))})]),
                6: text(_CREATED_BY),
            }
        ).content
        self._put(footer)
        self._put(len(footer).to_bytes(4, "little") + _MAGIC)

    def _put(self, data: Any) -> None:
        self._sink.write(data)
        self._n_bytes += memoryview(data).nbytes

    def _put_vectors(self, field: pa.Field, columns: Sequence[pa.FixedSizeListArray]) -> Value:
        """Append one vector column, and describe it."""
        n_dims = field.type.list_size
        start = self._n_bytes
        for column in columns:
            numbers = column.flatten().to_numpy(zero_copy_only=True)
            marks = _marks(len(column), n_dims)
            self._put(_page_header(numbers.size, len(marks) + numbers.nbytes) + marks)
            self._put(np.ascontiguousarray(numbers, dtype="<f4").data.cast("B"))
        path = (field.name, "list", field.type.value_field.name)
        n_numbers = n_dims * sum(len(column) for column in columns)
        size = self._n_bytes - start
        return _chunk(_FLOAT, ("RLE", "PLAIN"), path, n_numbers, size, start)

    def _put_others(self, batches: Sequence[pa.RecordBatch]) -> dict[str, Value]:
        """Let Arrow encode the other columns; append what it made of them."""
        buffer = pa.BufferOutputStream()
        table = pa.Table.from_batches([batch.select(self._others) for batch in batches])
        encoded = pq.ParquetWriter(
            buffer,
            table.schema,
            compression="none",
            use_dictionary=[f.name for f in table.schema if pa.types.is_dictionary(f.type)],
            write_statistics=False,
        )
        encoded.write_table(table, row_group_size=table.num_rows)
        encoded.close()
        data = buffer.getvalue()
        columns = pq.read_metadata(pa.BufferReader(data)).row_group(0)
        found = {}
        for number, name in enumerate(self._others):
            column = columns.column(number)
            first, size = column.data_page_offset, column.total_compressed_size
            dictionary = column.dictionary_page_offset if column.has_dictionary_page else None
            start = first if dictionary is None else dictionary
            moved = self._n_bytes - start
            self._put(data[start : start + size])
            found[name] = _chunk(
                _TYPES[column.physical_type],
                column.encodings,
                (name,),
                column.num_values,
                size,
                first + moved,
                None if dictionary is None else dictionary + moved,
            )
        return found


def _is_vector(field: pa.Field) -> bool:
    return bool(pa.types.is_fixed_size_list(field.type))


def _marks(n_rows: int, n_dims: int) -> bytes:
    """Say where rows begin (0, and 1 for each further number) and that nothing is missing (1)."""
    further = varint(n_dims - 1 << 1) + b"\1" if n_dims > 1 else b""
    repetition = (varint(1 << 1) + b"\0" + further) * n_rows
    definition = varint(n_rows * n_dims << 1) + b"\1"
    return b"".join(len(part).to_bytes(4, "little") + part for part in (repetition, definition))


def _page_header(n_numbers: int, n_bytes: int) -> bytes:
    plain, rle = i32(_ENCODINGS["PLAIN"]), i32(_ENCODINGS["RLE"])
    page = struct({1: i32(n_numbers), 2: plain, 3: rle, 4: rle})
    return struct({1: i32(_DATA_PAGE), 2: i32(n_bytes), 3: i32(n_bytes), 5: page}).content


def _chunk(
    kind: int,
    encodings: Sequence[str],
    path: Sequence[str],
    n_values: int,
    n_bytes: int,
    first_page: int,
    dictionary_page: int | None = None,
) -> Value:
    """Describe one column of a row group."""
    described = struct(
        {
            1: i32(kind),
            2: listed([i32(_ENCODINGS[name]) for name in encodings]),
            3: listed([text(part) for part in path]),
            4: i32(_UNCOMPRESSED),
            5: i64(n_values),
            6: i64(n_bytes),
            7: i64(n_bytes),
            9: i64(first_page),
            11: None if dictionary_page is None else i64(dictionary_page),
        }
    )
    return struct({2: i64(0), 3: described})  # Readers take the place from the description.


def _root(schema: pa.Schema) -> Value:
    return struct({4: text("schema"), 5: i32(len(schema))})


def _elements(schema: pa.Schema) -> Iterator[Value]:
    """Describe the columns, a list by three elements one inside the other."""
    nothing = struct({})
    for field in schema:
        name = text(field.name)
        if _is_vector(field):
            of_list = struct({_LIST_LOGICAL: nothing})
            yield struct({3: i32(_REQUIRED), 4: name, 5: i32(1), 6: i32(_LIST), 10: of_list})
            yield struct({3: i32(_REPEATED), 4: text("list"), 5: i32(1)})
            inner = text(field.type.value_field.name)
            yield struct({1: i32(_FLOAT), 3: i32(_REQUIRED), 4: inner})
        else:
            repetition = i32(_OPTIONAL if field.nullable else _REQUIRED)
            kind, of_text = i32(_TYPES["BYTE_ARRAY"]), struct({_STRING_LOGICAL: nothing})
            yield struct({1: kind, 3: repetition, 4: name, 6: i32(_UTF8), 10: of_text})


def _arrow(schema: pa.Schema) -> bytes:
    """Keep what Arrow knows beyond Parquet, such as that lists are of one size."""
    return base64.b64encode(schema.serialize())
