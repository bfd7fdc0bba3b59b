"""Soft-ZCA whitening: evens out how far vectors spread in each direction.

Sentence embeddings crowd into a narrow cone: a common offset and a few loud directions decide
every distance. Whitening removes the offset and divides each direction by its spread, without
turning the axes. Softened, it does not blow up the directions that hold only noise.

References
----------
Diera, Galke and Scherp (2024), Isotropy Matters: Soft-ZCA Whitening of Embeddings for Semantic
Code Search, arXiv:2411.17538. There epsilon is absolute; here it is a share of the mean
eigenvalue.
Kessy, Lewin and Strimmer (2018), doi:10.1080/00031305.2016.1277159 (ZCA).
"""

from __future__ import annotations

from typing import Any

from gpu.spectrum import Tell, project, spectrum
from gpu.steps import Whitening

Array = Any


def whiten(vectors: Array, step: Whitening, tell: Tell) -> tuple[Array, list[str]]:
    """Apply ``U (values + epsilon * mean(values))**-1/2 U.T`` to the centred rows.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Finite; NumPy or CuPy. Not modified.
    step : Whitening
    tell : callable
        Told the share done.

    Returns
    -------
    vectors : array of shape (n_points, n_dims), float32
        On the same device; unchanged where all rows are the same.
    notes : list of str
    """
    found = spectrum(vectors, tell)
    mean_value = float(found.values.mean())
    if mean_value == 0:
        return vectors, ["whitening changed nothing: all vectors are the same"]
    scales = (found.values + step.epsilon * mean_value) ** -0.5
    matrix = (found.directions * scales) @ found.directions.T
    whitened = project(vectors, found.mean, matrix)
    tell(1.0)
    return whitened, []
