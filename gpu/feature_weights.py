"""Learns how much each of several features should count.

Weights are searched on a sample so that k-means of the weighted features has the highest
simplified silhouette, **less the one that data without groups would reach**. The bare silhouette
has a trivial optimum: k-means cuts even uniform noise on a line into pieces with a silhouette of
0.6, which no real feature of many dimensions reaches, so the feature of fewest dimensions would
always win. Each feature therefore has a shadow: Gaussian points with its mean and covariance,
independent of the other features, which has its spread and number of dimensions and no groups.
Noise and its shadow score alike, in any number of dimensions and at any scale (the idea of the
gap statistic).

References
----------
Hruschka, de Castro and Campello (2004), doi:10.1109/ICDM.2004.10073 (simplified silhouette).
Tibshirani, Walther and Hastie (2001), doi:10.1111/1467-9868.00293 (gap statistic).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu.backend import Backend
from gpu.errors import TooFewPointsError
from gpu.features import concatenate
from gpu.kmeans import kmeans
from gpu.params import KMeansParams
from gpu.sampling import sample_rows
from gpu.vectors import on_host, unit_rows

Array = Any

GROUP_COUNTS = (3, 6, 12, 24)
"""Numbers of groups looked at where the method takes none."""

POINTS_PER_GROUP = 10
"""Fewest sample points per group that a silhouette is measured with."""

CHANCE = 0.01
"""Smaller differences of the excess mean nothing: weights that gain less over equal ones give way
to them, and a feature whose absence costs less adds nothing, so that its weight becomes 0."""

STEPS = (0.5, 0.25, 0.1, 0.04)
"""How far a share is moved, coarse to fine."""


@dataclass(frozen=True)
class Trial:
    """One weighting that was tried.

    Attributes
    ----------
    weights : tuple of float
        In the order of the features, sum 1.
    silhouette : float
        Simplified silhouette, -1 to 1, at the number of groups where it stands out most.
    excess : float
        That less the shadow's at the same number: what the search maximizes.
    n_groups : int
        That number.
    """

    weights: tuple[float, ...]
    silhouette: float
    excess: float
    n_groups: int


@dataclass(frozen=True)
class LearnedWeights:
    """Weights found for features.

    Attributes
    ----------
    weights : tuple of float
        Factors for `gpu.features.concatenate`, sum 1; 0 for a feature that only disturbs.
    quality : float
        Simplified silhouette on the sample with these weights, -1 to 1.
    equal : Trial
        What equal weights reach, to compare.
    trials : list of Trial
        Every weighting tried, in order.
    notes : list of str
        In plain words.
    """

    weights: tuple[float, ...]
    quality: float
    equal: Trial
    trials: list[Trial]
    notes: list[str]


def learn_weights(
    blocks: Sequence[Array],
    *,
    n_clusters: int | None,
    normalize: bool = True,
    seed: int = 42,
    sample_size: int = 2_000,
    progress: Callable[[float], None] | None = None,
) -> LearnedWeights:
    """Search the weights under which the features together have the clearest groups.

    Parameters
    ----------
    blocks : sequence of arrays of shape (n_points, n_dims of the feature), float32
        Row i of each belongs to the same document; NumPy or CuPy. Not modified.
    n_clusters : int or None
        Number of groups, where the method takes one; None looks at `GROUP_COUNTS`. k-means
        stands in for every method, since the search needs many clusterings.
    normalize : bool
        As for `gpu.features.concatenate`, whose factors the weights are.
    seed : int
        Of the sample, the shadows and k-means: the result repeats.
    sample_size : int
        Documents looked at. Time grows with it, and not with the number of documents.
    progress : callable or None
        Told the share that is done, 0 to 1.

    Raises
    ------
    TooFewPointsError
        With fewer than 20 points.
    InvalidVectorsError
        If, with `normalize`, a row is zero or not finite.
    """
    n_points = len(blocks[0])
    needed = 2 * POINTS_PER_GROUP
    if n_points < needed:
        raise TooFewPointsError(n_points=n_points, needed=needed)
    rows = sample_rows(n_points, sample_size, seed)
    sample = [on_host(block[rows]) for block in blocks]
    search = _Search(_Objective(sample, _counts(n_clusters, len(rows)), normalize, seed), progress)
    best = search.run()
    equal = search.equal
    notes = []
    if best.excess < equal.excess + CHANCE:
        best = equal
        notes.append("no weights were clearly better than equal ones, so the features count alike")
    else:
        best = search.without_idle(best)
    if progress is not None:
        progress(1.0)
    return LearnedWeights(best.weights, best.silhouette, equal, search.trials, notes)


def _counts(n_clusters: int | None, n_sample: int) -> tuple[int, ...]:
    most = n_sample // POINTS_PER_GROUP
    wanted = GROUP_COUNTS if n_clusters is None else (max(2, n_clusters),)
    return tuple(sorted({min(count, most) for count in wanted}))


class _Objective:
    """Scores weights on the sample and on its shadow."""

    def __init__(
        self, sample: list[Array], counts: tuple[int, ...], normalize: bool, seed: int
    ) -> None:
        self._counts, self._seed = counts, seed
        self._real = [unit_rows(block) if normalize else block for block in sample]
        self._shadow = [
            _shadow(block, normalize, np.random.default_rng([seed, position]))
            for position, block in enumerate(self._real)
        ]
        # Spread of each feature: shares of the summed variance are searched, whatever its scale.
        self.spreads: NDArray[np.float64] = np.array([_spread(block) for block in self._real])

    def __call__(self, weights: tuple[float, ...]) -> Trial:
        real = concatenate(self._real, weights, normalize=False)
        shadow = concatenate(self._shadow, weights, normalize=False)
        trials = []
        for n_groups in self._counts:
            silhouette = _silhouette_of(real, n_groups, self._seed)
            excess = silhouette - _silhouette_of(shadow, n_groups, self._seed)
            trials.append(Trial(weights, silhouette, excess, n_groups))
        return max(trials, key=lambda trial: trial.excess)


def _shadow(block: Array, normalize: bool, rng: np.random.Generator) -> Array:
    n_points = len(block)
    mean = block.mean(axis=0, dtype=np.float64)
    # Gaussian sums of the centred rows have their covariance, without decomposing it.
    mixed = rng.normal(size=(n_points, n_points)).astype(np.float32) @ (block - mean)
    points = (mean + mixed / np.sqrt(n_points)).astype(np.float32)
    return unit_rows(points) if normalize and points.any(axis=1).all() else points


def _spread(block: Array) -> float:
    spread = float(np.sqrt(block.var(axis=0, dtype=np.float64).sum()))
    return spread if spread > 0 else 1.0


def _silhouette_of(points: Array, n_groups: int, seed: int) -> float:
    params = KMeansParams(n_clusters=n_groups, n_init=2, max_iter=50, tol=1e-3, random_state=seed)
    labels = kmeans(points, params, backend=Backend("cpu", "a sample")).labels
    return simplified_silhouette(points, labels)


def simplified_silhouette(points: Array, labels: NDArray[np.int32]) -> float:
    """Measure how much nearer points are to their own group's mean than to the next one's.

    Parameters
    ----------
    points : array of shape (n_points, n_dims), float32
    labels : array of shape (n_points,), int32
        0 to n_groups - 1, each of them used.

    Returns
    -------
    float
        -1 to 1, the mean of ``(b - a) / max(a, b)`` with a the distance to the own mean and b
        that to the nearest other; 0 for fewer than two groups.
    """
    n_groups = int(labels.max()) + 1
    if n_groups < 2:
        return 0.0
    centred = (points - points.mean(axis=0, dtype=np.float64)).astype(np.float32)
    sums = np.zeros((n_groups, points.shape[1]))
    np.add.at(sums, labels, centred)
    means = (sums / np.bincount(labels)[:, None]).astype(np.float32)
    squares = np.einsum("ij,ij->i", centred, centred)[:, None] - 2 * centred @ means.T
    distances = np.sqrt(np.maximum(squares + np.einsum("ij,ij->i", means, means), 0))
    lines = np.arange(len(points))
    own = distances[lines, labels].astype(np.float64)
    distances[lines, labels] = np.inf
    other = distances.min(axis=1).astype(np.float64)
    widest = np.maximum(own, other)
    return float(np.divide(other - own, widest, out=np.zeros_like(own), where=widest > 0).mean())


class _Search:
    """Coordinate search over shares of the spread, from the best of some plain starts."""

    def __init__(self, objective: _Objective, progress: Callable[[float], None] | None) -> None:
        self._objective, self._progress = objective, progress
        self._n = len(objective.spreads)
        self._known: dict[tuple[float, ...], Trial] = {}
        self.trials: list[Trial] = []
        self.equal = self._try(objective.spreads / objective.spreads.sum())

    def run(self) -> Trial:
        """Give the best weighting found."""
        corners = list(np.eye(self._n)) if self._n > 1 else []
        without_one = [(1 - corner) / (self._n - 1) for corner in corners if self._n > 2]
        starts = [np.full(self._n, 1 / self._n), *corners, *without_one]
        best = max([self.equal, *map(self._try, starts)], key=lambda trial: trial.excess)
        for done, step in enumerate(STEPS):
            best = self._improve(best, step)
            if self._progress is not None:
                self._progress((done + 1) / (len(STEPS) + 1))
        return best

    def without_idle(self, best: Trial) -> Trial:
        """Leave out, one by one, the features that add nothing."""
        for feature in np.argsort(best.weights, kind="stable"):
            shares = self._shares(best)
            if 0 < shares[feature] < 1:
                trial = self._try(_moved(shares, int(feature), -1.0))
                if trial.excess >= best.excess - CHANCE:
                    best = trial
        return best

    def _improve(self, best: Trial, step: float) -> Trial:
        for _ in range(2 * self._n):
            shares = self._shares(best)
            moves = [
                self._try(_moved(shares, feature, way * step))
                for feature in range(self._n)
                for way in (1, -1)
                if self._n > 1
            ]
            better = max([best, *moves], key=lambda trial: trial.excess)
            if better is best:
                return best
            best = better
        return best

    def _shares(self, trial: Trial) -> NDArray[np.float64]:
        shares = np.array(trial.weights) * self._objective.spreads
        return np.asarray(shares / shares.sum())

    def _try(self, shares: NDArray[np.float64]) -> Trial:
        weights = shares / self._objective.spreads
        key = tuple(float(weight) for weight in np.round(weights / weights.sum(), 4))
        if key not in self._known:
            self._known[key] = self._objective(key)
            self.trials.append(self._known[key])
        return self._known[key]


def _moved(shares: NDArray[np.float64], feature: int, by: float) -> NDArray[np.float64]:
    """Move one share up or down, and scale the others so that the sum stays 1."""
    moved = shares.copy()
    others = 1 - shares[feature]
    moved[feature] = min(1.0, max(0.0, shares[feature] + by))
    rest = 1 - moved[feature]
    elsewhere = np.arange(len(shares)) != feature
    moved[elsewhere] = shares[elsewhere] / others * rest if others > 0 else rest / (len(shares) - 1)
    return moved
