"""Several vectors per document as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpu.backend import array_module
from gpu.errors import InvalidVectorsError
from gpu.vectors import require_matrix, row_blocks, unit_rows

Array = Any


def concatenate(blocks: Sequence[Array], weights: Sequence[float], *, normalize: bool) -> Array:
    """Put features side by side, each times its weight.

    Parameters
    ----------
    blocks : sequence of arrays of shape (n_points, n_dims of the feature), float32
        Row i of each belongs to the same document; all NumPy or all CuPy. Not modified.
    weights : sequence of float
        One factor per block, 0 or more, not all 0. A squared distance of the result is the sum
        of the features' squared distances times their squared weights.
    normalize : bool
        Scale each feature's rows to length 1 first, so that weights alone decide and every row
        of the result has the same length.

    Returns
    -------
    array of shape (n_points, sum of n_dims), float32
        C-contiguous, on the device of the blocks. A block of weight 0 is left out.

    Raises
    ------
    InvalidVectorsError
        If blocks are not float32 matrices of the same number of rows, or, with `normalize`, a
        row is zero or not finite.
    """
    if not blocks or len(blocks) != len(weights):
        raise ValueError(f"{len(blocks)} blocks and {len(weights)} weights")
    if min(weights) < 0 or max(weights) == 0:
        raise ValueError(f"weights must be 0 or more and not all 0, got {list(weights)}")
    for block in blocks:
        require_matrix(block)
    lengths = {len(block) for block in blocks}
    if len(lengths) > 1:
        raise InvalidVectorsError(f"features have different numbers of rows: {sorted(lengths)}")

    used = [(block, weight) for block, weight in zip(blocks, weights, strict=True) if weight > 0]
    xp = array_module(blocks[0])
    width = sum(block.shape[1] for block, _ in used)
    joined = xp.empty((len(blocks[0]), width), dtype=xp.float32)
    start = 0
    for block, weight in used:
        scaled = unit_rows(block) if normalize else block
        columns = slice(start, start + block.shape[1])
        for rows in row_blocks(len(block), 4 * block.shape[1]):
            joined[rows, columns] = scaled[rows] * xp.float32(weight)
        start = columns.stop
    return joined
