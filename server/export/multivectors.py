"""Multi-vectors of a page as their means, without a Python object for each number."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.export.protobytes import Fields, Places, Spans, cut_out, walk

_MULTI_DENSE: Final = 103
_NOTHING: Final = (np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32))


def plain_means(data: bytes, outputs: Spans) -> tuple[Places, NDArray[np.float32]]:
    """Find the multi-vectors among some ``VectorOutput`` messages, and average their parts.

    Parameters
    ----------
    data : bytes
        The page.
    outputs : Spans
        Where the messages lie in it.

    Returns
    -------
    positions : array of shape (n_found,), int64
        Which of `outputs` they are. None are found where one is not written as Qdrant writes
        them, or has parts of another size: the protobuf library then reads them, or refuses them.
    means : array of shape (n_found, n_dims), float32
    """
    found = walk(data, outputs)
    multis = found.of(_MULTI_DENSE)
    multis = multis.at(_is_alone(found, len(outputs.start))[multis.owner])
    inner = walk(data, multis)
    parts = inner.of(1)
    n_parts = np.bincount(parts.owner, minlength=len(multis.start))
    of_parts = walk(data, parts)
    numbers = of_parts.of(1)
    sizes = numbers.stop - numbers.start
    is_plain = (
        len(multis.start) > 0
        and len(inner.start) == len(parts.start)
        and len(of_parts.start) == len(numbers.start) == len(parts.start)
        and bool(_is_alone(of_parts, len(parts.start)).all())
        and int(n_parts.min()) > 0
        and int(sizes[0]) > 0
        and int(sizes[0]) % 4 == 0
        and bool((sizes == sizes[0]).all())
    )
    if not is_plain:
        return _NOTHING
    content: pa.Buffer = cut_out(data, numbers).buffers()[2]
    rows = np.frombuffer(content, dtype="<f4").reshape(len(parts.start), -1)
    first = np.cumsum(n_parts) - n_parts
    with np.errstate(invalid="ignore"):  # What is not finite is left out by who reads the rows.
        sums = np.add.reduceat(rows, first, axis=0, dtype=np.float64)
    return multis.owner, (sums / n_parts[:, None]).astype(np.float32)


def _is_alone(found: Fields, n_messages: int) -> NDArray[np.bool_]:
    """Say of each message whether it has one field."""
    is_alone: NDArray[np.bool_] = np.bincount(found.message, minlength=n_messages) == 1
    return is_alone
