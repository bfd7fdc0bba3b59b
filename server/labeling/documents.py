"""Reading some documents' payloads out of an export, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
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
    start = 0
    for values in _batches(files):
        end = start + len(values)
        first, last = np.searchsorted(rows, (start, end))
        wanted = rows[first:last]
        chosen = values.take(pa.array(wanted - start)).to_pylist()
        for row, value in zip(wanted.tolist(), chosen, strict=True):
            yield row, parse_payload(value)
        start = end
    if len(rows) and rows[-1] >= start:
        raise IndexError(f"row {rows[-1]} of an export with {start} rows")


def _batches(files: Sequence[str]) -> Iterator[pa.Array]:
    for path in files:
        with pq.ParquetFile(path) as part:
            for batch in part.iter_batches(batch_size=_BATCH_ROWS, columns=[PAYLOAD_COLUMN]):
                yield batch.column(0)
