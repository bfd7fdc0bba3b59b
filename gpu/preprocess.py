"""Runs the steps before a clustering, in the order given.

What a step does to distances decides the metric after it:

========= =================================== ==============================================
step      works on                            metric after it
========= =================================== ==============================================
normalize the rows                            the same
whitening unit rows for cosine and dot        the same
pca       unit rows for cosine and dot        euclidean: it keeps the distances of the rows,
                                              not their angles about the new origin
umap      the rows                            euclidean
========= =================================== ==============================================

dot counts as cosine from the first step on that scales rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpu.backend import Backend, array_module
from gpu.clustering import Progress
from gpu.errors import DeviceError
from gpu.reduction import pca, umap
from gpu.spectrum import Tell
from gpu.steps import Normalize, Pca, Step, Umap
from gpu.vectors import on_host, require_finite, require_matrix, unit_rows, usable_rows
from gpu.whitening import whiten

Array = Any


@dataclass(frozen=True)
class Prepared:
    """Vectors as a clustering takes them.

    Attributes
    ----------
    vectors : array of shape (n_points, n_dims_after), float32
        The same rows in the same order, on the same device; C-contiguous.
    metric : str
        The metric they are to be compared by.
    notes : list of str
        What was done, and what was done otherwise than asked, in plain words.
    """

    vectors: Array
    metric: str
    notes: list[str]


def apply_steps(
    vectors: Array,
    steps: tuple[Step, ...],
    *,
    metric: str,
    backend: Backend,
    progress: Progress | None = None,
    spare: Backend | None = None,
) -> Prepared:
    """Run the steps.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows (see `gpu.vectors.usable_rows`); NumPy or CuPy. Not modified.
    steps : tuple of Step
        From `gpu.steps.parse_steps`.
    metric : {"cosine", "dot", "euclidean", "manhattan"}
    backend : Backend
    progress : callable or None
        Told the share that is done, 0 to 1.
    spare : Backend or None
        Where a step runs that the GPU cannot do, and a note says so; None: it fails.

    Returns
    -------
    Prepared
        The vectors themselves where there are no steps.

    Raises
    ------
    InvalidVectorsError
        If the array is not a finite float32 matrix, or a row has no direction where one is
        needed.
    TooFewPointsError
        If umap has fewer points than it needs.
    DeviceError
        If the GPU runs out of memory or fails, and there is no `spare`.
    """
    if not steps:
        return Prepared(vectors, metric, [])
    require_matrix(vectors)
    require_finite(vectors)
    prepared = Prepared(vectors, metric, [])
    for position, step in enumerate(steps):
        tell = _share_of(progress, position, len(steps))
        done = _apply_where_it_fits(prepared, step, backend, spare, tell)
        prepared = Prepared(done.vectors, done.metric, [*prepared.notes, *done.notes])
        tell(1.0)
    return prepared


def _share_of(progress: Progress | None, position: int, n_steps: int) -> Tell:
    def tell(share: float) -> None:
        if progress is not None:
            progress((position + share) / n_steps)

    return tell


def _apply_where_it_fits(
    before: Prepared, step: Step, backend: Backend, spare: Backend | None, tell: Tell
) -> Prepared:
    try:
        return _apply(before, step, backend, tell)
    except DeviceError as error:
        if spare is None:
            raise
        note = f"{type(step).__name__.lower()} ran on the CPU, the GPU could not: {error}"
    # Only now is what the failed step held let go.
    on_cpu = Prepared(on_host(before.vectors), before.metric, before.notes)
    done = _apply(on_cpu, step, spare, tell)
    return Prepared(done.vectors, done.metric, [note, *done.notes])


def _apply(before: Prepared, step: Step, backend: Backend, tell: Tell) -> Prepared:
    metric = "cosine" if before.metric == "dot" else before.metric
    if isinstance(step, Normalize):
        return _normalized(before.vectors, metric)
    if isinstance(step, Umap):
        laid_out, notes = umap(before.vectors, step, metric=metric, backend=backend, tell=tell)
        return Prepared(laid_out, "euclidean", notes)
    rows = unit_rows(before.vectors) if metric == "cosine" else before.vectors
    if isinstance(step, Pca):
        reduced, notes = pca(rows, step, tell)
        return Prepared(reduced, "euclidean", notes)
    # A unit row never equals the mean of different ones, so none loses its direction here.
    whitened, notes = whiten(rows, step, tell)
    return Prepared(whitened, metric, notes)


def _normalized(vectors: Array, metric: str) -> Prepared:
    has_direction = usable_rows(vectors, "cosine")
    n_zero = int((~has_direction).sum())
    if not n_zero:
        return Prepared(unit_rows(vectors), metric, [])
    # Under Euclidean distance the origin is a point like any other.
    xp = array_module(vectors)
    scaled = xp.zeros_like(vectors)
    if n_zero < len(vectors):
        scaled[has_direction] = unit_rows(vectors[has_direction])
    return Prepared(scaled, metric, [f"normalize left {n_zero:,} zero vectors as they are"])
