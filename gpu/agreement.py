"""How far two groupings of the same points agree, whatever their groups are called.

References
----------
Hubert and Arabie (1985), doi:10.1007/BF01908075 (adjusted Rand index).
Vinh, Epps and Bailey (2010), *Information theoretic measures for clusterings comparison*, JMLR 11.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Agreement(TypedDict):
    """Two indices: 1 for the same grouping, about 0 for what chance would give.

    adjusted_rand : over pairs of points, so large groups weigh more
    adjusted_mutual_info : over groups, so small ones count too
    """

    adjusted_rand: float
    adjusted_mutual_info: float


def agreement(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> Agreement:
    """Compare two groupings.

    Parameters
    ----------
    ours, theirs : array of shape (n_points,), int
        The group of each point, by any number; at least one point.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    return Agreement(
        adjusted_rand=float(adjusted_rand_score(ours, theirs)),
        adjusted_mutual_info=float(adjusted_mutual_info_score(ours, theirs)),
    )
