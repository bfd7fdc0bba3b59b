"""Reading some documents' payloads out of an export, in flat memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from server.labeling.samples import Payload, parse_payload

PAYLOAD_COLUMN: Final = "payload"
_BATCH_ROWS: Final = 16_384

Rows = NDArray[np.int64]


def payloads_at(files: Sequence[str], rows: Rows) -> Iterator[tuple[int, Payload]]:
    """Read the payloads of some rows.

    Parameters
    ----------
    files : sequence of str
        Parts of the export, in order; rows are numbered through all of them.
    rows : int64 array
        Row numbers, ascending, each once.

    Yields
    ------
    int, mapping
        Row number and payload, ascending; empty where nothing was kept.

    Raises
    ------
    IndexError
        If there is no such row.
    """
    for wanted, values in _chosen(files, rows):
        for row, value in zip(wanted.tolist(), values.to_pylist(), strict=True):
            yield row, parse_payload(value)


def texts_at(
    files: Sequence[str], rows: Rows, read: Callable[[Payload], str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Read texts out of the payloads of some rows; payloads that are alike are read once.

    Parameters
    ----------
    files, rows
        As in `payloads_at`.
    read : callable
        Gives the text of a payload.

    Returns
    -------
    texts : list of str
        All different.
    numbers : array of shape (n_rows,), int64
        Position in `texts` of each row's.
    """
    number_of: dict[str, int] = {}
    numbers = [np.empty(0, dtype=np.int64)]
    for _, values in _chosen(files, rows):
        encoded = pc.fill_null(values, "").dictionary_encode()
        texts = [read(parse_payload(value)) for value in encoded.dictionary.to_pylist()]
        own = [number_of.setdefault(text, len(number_of)) for text in texts]
        numbers.append(np.array(own, dtype=np.int64)[encoded.indices.to_numpy()])
    return list(number_of), np.concatenate(numbers)


def _chosen(files: Sequence[str], rows: Rows) -> Iterator[tuple[Rows, pa.StringArray]]:
    """Give the rows that are in each batch, with their values."""
    start = 0
    for values in _batches(files):
        end = start + len(values)
        first, last = np.searchsorted(rows, (start, end))
        wanted = rows[first:last]
        yield wanted, values.take(pa.array(wanted - start))
        start = end
    if len(rows) and rows[-1] >= start:
        raise IndexError(f"row {rows[-1]} of an export with {start} rows")


def _batches(files: Sequence[str]) -> Iterator[pa.Array]:
    for path in files:
        with pq.ParquetFile(path) as part:
            for batch in part.iter_batches(batch_size=_BATCH_ROWS, columns=[PAYLOAD_COLUMN]):
                yield batch.column(0)
