"""Colours that people with any colour vision can tell apart, and who gets which.

References
----------
Tol (2021), *Colour schemes*, SRON/EPS/TN/09-002: "muted" on white, "light" on black. Here those
with less contrast to the page than 3:1 are darkened or replaced.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIGHT = ("#332288", "#CC6677", "#117733", "#3D9BC4", "#882255", "#8F8A1E", "#AA4499", "#962DFF")
"""On a white page."""

DARK = ("#77AADD", "#EE8866", "#44BB99", "#EEDD88", "#FFAABB", "#AAAA00", "#99DDFF", "#A259FF")
"""On a black page, in the same order."""

NOISE_LIGHT = "#9A9A9A"
NOISE_DARK = "#6E6E6E"


def color_groups(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give each group a number in the palette, such that groups of one colour lie far apart.

    Parameters
    ----------
    places : array of shape (n_groups, 2), float
        The groups in the order of their importance; NaN for one that has no place.

    Returns
    -------
    array of shape (n_groups,), int64
        The first groups have all different ones, as far as there are colours.
    """
    n_colors = len(LIGHT)
    known = np.nan_to_num(places)
    given = np.zeros(len(known), dtype=np.int64)
    for group, place in enumerate(known):
        nearest = np.full(n_colors, np.inf)
        squares = ((known[:group] - place) ** 2).sum(axis=1)
        np.minimum.at(nearest, given[:group], squares)
        given[group] = int(nearest.argmax())
    return given
