"""What other numbers of groups would have given: k-means on a sample, for a ladder of them.

The curve falls steeply while groups that belong apart are still together, and bends where more
groups only cut up what belongs together. It is a picture for people, not a choice.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from gpu.backend import Backend
from gpu.kmeans import kmeans
from gpu.parallel import worker_threads
from gpu.params import KMeansParams
from gpu.sampling import sample_rows
from gpu.vectors import is_angular, on_host, unit_rows

Array = Any

SAMPLE_POINTS = 1_500
N_RUNGS = 6
"""Numbers of groups up to the one asked for; two more lie above it."""
MAX_ITERATIONS = 30


class Elbow(TypedDict):
    """The inertia at each number of groups.

    n_clusters : ascending
    inertia : mean squared distance of the sample's points to their centroids
    n_points : points of the sample
    """

    n_clusters: list[int]
    inertia: list[float]
    n_points: int


def elbow(vectors: Array, n_clusters: int, *, metric: str, seed: int = 42) -> Elbow:
    """Measure k-means at numbers of groups up to twice what was asked for.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        Usable rows; NumPy or CuPy. Not modified.
    n_clusters : int
        What was asked for; it is among those that are measured where the sample has three
        points for each group.
    metric : {"cosine", "dot", "euclidean"}
    seed : int

    Returns
    -------
    Elbow
        Empty lists with fewer than six points.

    Notes
    -----
    The CPU does it everywhere: at most `SAMPLE_POINTS` points, some tenths of a second.
    """
    sample = on_host(vectors[sample_rows(len(vectors), SAMPLE_POINTS, seed)])
    points = unit_rows(sample) if is_angular(metric) else sample
    most = len(points) // 3
    up_to = np.geomspace(1, max(1, min(n_clusters, most)), N_RUNGS).round().astype(int)
    ladder = sorted(
        {int(k) for k in (*up_to, round(1.4 * n_clusters), 2 * n_clusters) if k <= most}
    )
    backend = Backend("cpu", "a sample for the elbow")
    if most < 2:
        ladder = []

    def inertia(k: int) -> float:
        found = kmeans(points, _params(k, seed), backend=backend, n_threads=1)
        return float(found.details["inertia"] / len(points))

    # Fits on so few points do not fill several threads; one beside the other they do.
    with worker_threads() as each:
        longest_first = each(inertia, reversed(ladder))
    return Elbow(n_clusters=ladder, inertia=longest_first[::-1], n_points=len(points))


def _params(n_clusters: int, seed: int) -> KMeansParams:
    return KMeansParams(n_clusters=n_clusters, max_iter=MAX_ITERATIONS, random_state=seed)
