"""auto: look at the data, choose preprocessing, method and parameters, and say why.

Three kinds of structure are looked for, the clearest first; each is recognized by a figure of the
data itself, and where none shows, auto says that there are no groups:

1. gaps: HDBSCAN on the strong principal components leaves next to nothing out;
2. compact groups: k-means there has, for some number of groups, a silhouette that counts as
   structure, and above that of as many uniform points;
3. overlapping groups, as of text embeddings: neighbours stay together over many partitions of
   neighbour graphs (`gpu.communities`) far more than in the same data with its principal
   components shuffled, which has the same spread but no groups.

References
----------
Kaufman and Rousseeuw (1990), doi:10.1002/9780470316801 (silhouettes above 0.5).
Tibshirani, Walther and Hastie (2001), doi:10.1111/1467-9868.00293 (comparing with no groups).
Marchenko and Pastur (1967), doi:10.1070/SM1967v001n04ABEH001994 (components that are noise).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend
from gpu.clustering import Clustering, Progress, clustered, no_progress
from gpu.communities import FIRM, Communities, communities, firmness
from gpu.elbow import elbow
from gpu.hdbscan import hdbscan
from gpu.host_memory import matrix_bytes
from gpu.kmeans import kmeans
from gpu.metrics import quality
from gpu.params import NOISE, AutoParams, HdbscanParams, KMeansParams
from gpu.partitions import Projection, project
from gpu.sampling import sample_rows
from gpu.vectors import on_host, require_finite, require_matrix, row_blocks

Array = Any

FEWEST_POINTS = 20
"""With fewer points any grouping is chance."""

MOST_POINTS = 30_000
"""More are grouped by a sample of this size, and the others joined to it."""

PROBE_POINTS = 4_000
"""Sample on which kinds of structure are recognized."""

MOST_COMPONENTS = 50
GROUP_SHARE = 0.02
"""A gap must cut off at least this share of the points."""

GAP_GROUPED = 0.95
"""Share that HDBSCAN must group for gaps to be what separates the data."""

LARGEST_GROUP = 0.8
"""A gap that only cuts off a few points says nothing about the others."""

CLEAR_SILHOUETTE = 0.5
ABOVE_UNIFORM = 0.1
FIRMER_THAN_SHUFFLED = 0.15
"""Share of points: how many more must stay with their neighbours than in the shuffled data."""

COARSE_K = (2, 3, 5, 8, 12, 20, 30)
WORTH_A_SEARCH = 0.3
"""Silhouette at one of `COARSE_K` from which every number of groups up to `MOST_K` is tried."""

MOST_K = 40
_LEAST_COMMUNITY = 0.001


@dataclass
class _Choice:
    """What was chosen, and the figures that led to it."""

    method: str = "none"
    params: dict[str, Any] = field(default_factory=dict)
    labels: Array = None
    strength: Array = None
    nearest: Array = None
    reasons: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def auto(
    vectors: Array,
    params: AutoParams,
    *,
    backend: Backend,
    progress: Progress | None = None,
    metric: str = "euclidean",
) -> Clustering:
    """Choose preprocessing, method and parameters from the data, and cluster by them.

    Parameters
    ----------
    vectors : array of shape (n_points, n_dims), float32
        NumPy or CuPy; finite; unit rows for cosine. Not modified.
    params : AutoParams
    backend : Backend
        HDBSCAN and k-means run there; the rest, like the choice, on the CPU.
    progress : callable or None
        Told the share that is done, 0 to 1.
    metric : {"euclidean", "cosine"}

    Returns
    -------
    Clustering
        `details`: ``chosen_method`` (hdbscan, kmeans, graph_communities or none),
        ``chosen_params`` and ``reasons``, one sentence per figure looked at, and what the chosen
        method shows of itself (``condensed_tree``, ``elbow``); `notes` ends with the choice.
        `nearest` names the group of every point where the method has a better rule than the
        nearest centroid.

    Raises
    ------
    InvalidVectorsError
        If the array is not a float32 matrix, or a row is not finite.
    """
    require_matrix(vectors)
    require_finite(vectors)
    points = on_host(vectors)
    tell = progress or no_progress
    choice = _choose(points, params.random_state, metric == "cosine", backend, tell)
    if choice.labels is None:
        choice.labels = np.full(len(points), NOISE)
    result = clustered(
        choice.labels,
        params,
        backend,
        strength=choice.strength,
        notes=choice.reasons,
        chosen_method=choice.method,
        chosen_params=choice.params,
        reasons=choice.reasons,
        **choice.figures,
    )
    tell(1.0)
    if tree := choice.figures.get("condensed_tree"):
        number = [*_numbers(choice, result.labels, result.n_clusters).tolist(), NOISE]
        renumbered = [number[group] for group in tree["group"]]  # NOISE is the last.
        result.details["condensed_tree"] = {**tree, "group": renumbered}
    return replace(
        result,
        effective_params=asdict(params) | {"chosen_method": choice.method} | choice.params,
        nearest=_renumbered(choice, result.labels),
    )


def _renumbered(choice: _Choice, labels: Array) -> Array | None:
    """Give the nearest groups by the numbers of the result; groups without members have none."""
    if choice.nearest is None:
        return None
    return _numbers(choice, labels, int(choice.nearest.max()) + 1)[choice.nearest]


def _numbers(choice: _Choice, labels: Array, n_groups: int) -> Array:
    """Give the result's number of each group that the choice numbered."""
    number = np.full(n_groups, NOISE, dtype=np.int32)
    grouped = labels != NOISE
    number[choice.labels[grouped]] = labels[grouped]
    return number


def _choose(points: Array, seed: int, angular: bool, backend: Backend, tell: Progress) -> _Choice:
    n_points = len(points)
    choice = _Choice()
    if n_points < FEWEST_POINTS:
        choice.reasons.append(f"{n_points:,} points are too few to tell groups from chance")
        return choice
    if (points == points[0]).all():
        choice.method, choice.labels = "none", np.zeros(n_points, dtype=np.int64)
        choice.reasons.append("all points are the same: one group")
        return choice
    sample = sample_rows(n_points, MOST_POINTS, seed)
    projection = project(points[sample])
    strong = projection.scores[:, : _n_strong(projection)]
    choice.reasons.append(
        f"{n_points:,} points of {points.shape[1]:,} dimensions, of which "
        f"{strong.shape[1]:,} principal components stand out of the noise (at most "
        f"{MOST_COMPONENTS} are looked at)"
    )
    probe = strong[sample_rows(len(strong), PROBE_POINTS, seed)]
    tell(0.05)
    if _has_gaps(probe, seed, choice, backend):
        _by_gaps(points, sample, strong, choice, backend)
    elif k := _n_compact(probe, seed, choice, backend):
        _by_kmeans(points, sample, strong, k, seed, choice, backend)
    elif _has_communities(projection, seed, angular, choice):
        tell(0.2)
        _by_communities(
            points, sample, seed, angular, choice, lambda share: tell(0.2 + 0.75 * share)
        )
    else:
        choice.reasons.append("there are no groups: the points are spread like noise")
    return choice


def _n_strong(projection: Projection) -> int:
    """Count the components whose variance is above what noise of the weaker half would reach."""
    n_points, n_dims = projection.scores.shape
    noise = float(np.median(projection.variances))
    edge = noise * (1 + np.sqrt(n_dims / n_points)) ** 2
    strong = int((projection.variances > edge).sum())
    # In few dimensions there is no noise to tell from, and none to gain.
    least = min(n_dims, 10) if n_dims <= 10 else 2
    return int(np.clip(strong, least, min(MOST_COMPONENTS, n_dims)))


def _has_gaps(probe: Array, seed: int, choice: _Choice, backend: Backend) -> bool:
    found = _gap_groups(probe, backend)
    share = float((found.labels != NOISE).mean())
    largest = float((found.labels == 0).mean())
    # In one dimension or a few points the gaps of chance are wide.
    base = float((_gap_groups(_uniform_like(probe, seed), backend).labels != NOISE).mean())
    has_gaps = share >= GAP_GROUPED > base and largest <= LARGEST_GROUP
    choice.reasons.append(
        f"gaps: HDBSCAN groups {share:.0%} of the points, the largest of {found.n_clusters:,} "
        f"groups holds {largest:.0%}, and of uniform points it groups {base:.0%}: "
        f"{'clear' if has_gaps else 'not clear'} (at least {GAP_GROUPED:.0%}, at most "
        f"{LARGEST_GROUP:.0%} and less than {GAP_GROUPED:.0%} are asked for)"
    )
    return has_gaps


def _gap_groups(points: Array, backend: Backend) -> Clustering:
    params = HdbscanParams(min_cluster_size=max(10, int(GROUP_SHARE * len(points))), min_samples=5)
    return hdbscan(
        np.ascontiguousarray(points),
        params,
        backend=backend,
        matrix_budget_bytes=matrix_bytes(PROBE_POINTS),
    )


def _uniform_like(points: Array, seed: int) -> Array:
    """Draw as many points uniformly from the box that these fill."""
    rng = np.random.default_rng(seed)
    return rng.uniform(points.min(axis=0), points.max(axis=0), points.shape).astype(np.float32)


def _by_gaps(
    points: Array, sample: Array, strong: Array, choice: _Choice, backend: Backend
) -> None:
    found = _gap_groups(strong, backend)
    choice.method = "hdbscan"
    choice.params = {"n_components": strong.shape[1], **found.effective_params}
    choice.reasons.append("chosen: HDBSCAN on the strong components, since gaps separate groups")
    assert found.strength is not None  # HDBSCAN always has it.
    if "condensed_tree" in found.details:
        choice.figures["condensed_tree"] = found.details["condensed_tree"]
    choice.labels, neighbor = _joined(points, sample, found.labels)
    choice.strength = found.strength[neighbor]


def _n_compact(probe: Array, seed: int, choice: _Choice, backend: Backend) -> int:
    """Give the number of groups with the best silhouette, 0 where none is clear."""
    most = min(MOST_K, len(probe) // 5)
    coarse = [k for k in COARSE_K if k <= most]
    scores = {k: _silhouette(probe, k, 1, seed, backend) for k in coarse}
    if max(scores.values()) >= WORTH_A_SEARCH:
        scores = {k: _silhouette(probe, k, 3, seed, backend) for k in range(2, most + 1)}
    best = max(scores, key=lambda k: scores[k])
    base = _silhouette(_uniform_like(probe, seed), best, 3, seed, backend)
    is_clear = scores[best] >= max(CLEAR_SILHOUETTE, base + ABOVE_UNIFORM)
    choice.reasons.append(
        f"compact groups: the best silhouette of k-means is {scores[best]:.2f} with {best:,} "
        f"groups (uniform points: {base:.2f}), {'clear' if is_clear else 'not clear'} "
        f"({CLEAR_SILHOUETTE} and {ABOVE_UNIFORM} above uniform are asked for)"
    )
    return best if is_clear else 0


def _silhouette(points: Array, k: int, n_init: int, seed: int, backend: Backend) -> float:
    labels = _kmeans(points, k, n_init, seed, backend).labels
    score = quality(points, labels, metric="euclidean", sample_size=2_000, seed=seed)["silhouette"]
    return -1.0 if score is None else score


def _kmeans(points: Array, k: int, n_init: int, seed: int, backend: Backend) -> Clustering:
    params = KMeansParams(n_clusters=k, n_init=n_init, random_state=seed)
    return kmeans(np.ascontiguousarray(points), params, backend=backend)


def _by_kmeans(
    points: Array,
    sample: Array,
    strong: Array,
    k: int,
    seed: int,
    choice: _Choice,
    backend: Backend,
) -> None:
    found = _kmeans(strong, k, 10, seed, backend)
    choice.method = "kmeans"
    choice.figures["elbow"] = elbow(strong, k, metric="euclidean", seed=seed)
    choice.params = {"n_components": strong.shape[1], "n_clusters": k, "n_init": 10}
    choice.reasons.append(
        f"chosen: k-means with {k:,} groups on the strong components, since groups are compact"
    )
    choice.labels, _ = _joined(points, sample, found.labels)


def _has_communities(projection: Projection, seed: int, angular: bool, choice: _Choice) -> bool:
    rows = sample_rows(len(projection.scores), PROBE_POINTS, seed)
    scores = projection.scores[rows, : projection.n_components(0.5)]
    rng = np.random.default_rng(seed)
    shuffled = np.stack([rng.permutation(column) for column in scores.T], axis=1)
    found, base = (firmness(of, angular=angular, seed=seed) for of in (scores, shuffled))
    has_groups = found >= base + FIRMER_THAN_SHUFFLED
    choice.reasons.append(
        f"overlapping groups: {found:.0%} of the points stay with their neighbours over several "
        f"partitions, {base:.0%} with the components shuffled, "
        f"{'enough' if has_groups else 'too little'} "
        f"({FIRMER_THAN_SHUFFLED:.0%} more are asked for)"
    )
    return has_groups


def _by_communities(
    points: Array, sample: Array, seed: int, angular: bool, choice: _Choice, tell: Progress
) -> None:
    own = points if len(sample) == len(points) else points[sample]
    least = max(5, int(_LEAST_COMMUNITY * len(own)))
    found = communities(own, angular=angular, seed=seed, tell=tell, least_size=least)
    choice.method = "graph_communities"
    choice.params = {
        "n_components": found.n_components,
        "n_partitions": found.n_partitions,
        "min_cluster_size": least,
    }
    choice.nearest, choice.strength = _extended(points, sample, found)
    choice.labels = np.where(choice.strength > FIRM, choice.nearest, NOISE)
    choice.reasons.append(
        f"chosen: communities of neighbour graphs on {found.n_components} principal components "
        "and in the space of their own discriminant, "
        f"agreed over {found.n_partitions} partitions; points that their neighbours do not "
        f"firmly agree on ({(choice.labels == NOISE).mean():.0%}) are left out"
    )


def _joined(points: Array, sample: Array, labels: Array) -> tuple[Array, NDArray[np.int64]]:
    """Give every point the label of its nearest sampled point, and that point's place."""
    if len(sample) == len(points):
        return labels, np.arange(len(points))
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points[sample])
    neighbor = model.kneighbors(points, return_distance=False)[:, 0]
    return labels[neighbor], neighbor


def _extended(points: Array, sample: Array, found: Communities) -> tuple[Array, Array]:
    """Give every point its nearest group, and how firmly it belongs there.

    Points outside the sample have no neighbours that could vote: the discriminant decides.
    """
    if len(sample) == len(points) or found.rule is None:
        nearest, neighbor = _joined(points, sample, found.labels)
        return nearest, found.strength[neighbor]
    _, neighbor = _joined(points, sample, found.labels)
    nearest, share = np.empty(len(points), dtype=np.int64), np.empty(len(points))
    for rows in row_blocks(len(points), 8 * (points.shape[1] + len(found.rule.classes_))):
        shares = found.rule.predict_proba(points[rows])  # In float64.
        nearest[rows] = found.rule.classes_[shares.argmax(axis=1)]
        share[rows] = shares.max(axis=1)
    agrees = found.labels[neighbor] == nearest
    return nearest, share * np.where(agrees, found.strength[neighbor], 0)
