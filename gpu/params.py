"""The parameters of each clustering method: names, defaults and ranges, as data.

Names and defaults are scikit-learn's, but for n_clusters and random_state, which always have a
value. What JSON carries is what is read: null means absent, 10.0 is the integer 10, true is no
number. Loads no array library, so a server can check a request without one.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from gpu.errors import InvalidParametersError, Violation

NOISE = -1
"""Label of a point that belongs to no group."""

Metric = Literal["cosine", "euclidean", "dot", "manhattan"]
METRICS: tuple[str, ...] = get_args(Metric)

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class HdbscanParams:
    """Parameters of HDBSCAN.

    Attributes
    ----------
    min_cluster_size : int or float
        Fewest points of a group; below 1 it is a share of all points.
    min_samples : int or None
        Points (itself included) that make a neighbourhood dense; None: min_cluster_size.
    cluster_selection_epsilon : float
        Groups closer than this are not split, in the metric's unit.
    cluster_selection_method : {"eom", "leaf"}
        Most stable groups, or the smallest ones.
    allow_single_cluster : bool
        Whether one group holding everything is an answer.
    max_cluster_size : int or None
        Most points of a group; None: no limit.
    alpha : float
        Distance scaling in the tree.
    """

    min_cluster_size: float = 5
    min_samples: int | None = None
    cluster_selection_epsilon: float = 0.0
    cluster_selection_method: Literal["eom", "leaf"] = "eom"
    allow_single_cluster: bool = False
    max_cluster_size: int | None = None
    alpha: float = 1.0

    def resolved(self, n_points: int) -> HdbscanParams:
        """Give a copy in which min_cluster_size and min_samples are counts of points."""
        size = self.min_cluster_size
        count = max(2, math.ceil(size * n_points)) if size < 1 else int(size)
        samples = count if self.min_samples is None else self.min_samples
        return replace(self, min_cluster_size=count, min_samples=samples)


@dataclass(frozen=True)
class KMeansParams:
    """Parameters of k-means.

    Attributes
    ----------
    n_clusters : int
        Number of groups.
    init : {"k-means++", "random"}
        How the first centroids are chosen.
    n_init : int or "auto"
        Starts, of which the best is kept; auto: 1 with k-means++, 10 with random.
    max_iter : int
        Most iterations of one start.
    tol : float
        A start ends when the centroids' summed squared shift falls to this share of the mean
        variance of the dimensions.
    random_state : int
        Seed.
    """

    n_clusters: int = 8
    init: Literal["k-means++", "random"] = "k-means++"
    n_init: int | Literal["auto"] = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    random_state: int = 42


Params = HdbscanParams | KMeansParams


@dataclass(frozen=True)
class ParsedParams:
    """Checked parameters, and what the caller should be told about those left out."""

    params: Params
    warnings: list[str] = field(default_factory=list)


class _Refused(Exception):
    """A value is outside what a parameter takes; the message of the violation is elsewhere."""


@dataclass(frozen=True)
class _Spec:
    allowed: str
    read: Callable[[Any], object]


def _number(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused
    if not low <= value <= high or math.isinf(value):
        raise _Refused  # NaN compares false, so it ends here too.
    return value


def _whole(low: int, high: int = 2**31 - 1) -> _Spec:
    def read(value: object) -> int:
        number = _number(value, low, high)
        if number != int(number):
            raise _Refused
        return int(number)

    return _Spec(f"an integer from {low:,} to {high:,}", read)


def _real(low: float, *, above: bool = False) -> _Spec:
    def read(value: object) -> float:
        number = float(_number(value, low, math.inf))
        if above and number == low:
            raise _Refused
        return number

    return _Spec(f"a finite number {'above' if above else 'of at least'} {low:g}", read)


def _one_of(*words: str) -> _Spec:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise _Refused
        return value

    return _Spec("one of " + ", ".join(json.dumps(word) for word in words), read)


def _either(first: _Spec, second: _Spec) -> _Spec:
    def read(value: object) -> object:
        try:
            return first.read(value)
        except _Refused:
            return second.read(value)

    return _Spec(f"{first.allowed}, or {second.allowed}", read)


def _boolean() -> _Spec:
    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise _Refused
        return value

    return _Spec("true or false", read)


def _fraction() -> _Spec:
    def read(value: object) -> float:
        number = float(_number(value, 0, 1))
        if number in (0, 1):
            raise _Refused
        return number

    return _Spec("a share of the points between 0 and 1", read)


@dataclass(frozen=True)
class _Method:
    make: Callable[..., Params]
    specs: Mapping[str, _Spec]
    # scikit-learn's names that change nothing here, with the reason told to the caller.
    no_effect: Mapping[str, str]


_FROM_COLLECTION = "the metric is the collection's own distance"
_CHOSEN_HERE = "shoal chooses the fastest exact way itself"

_BUILT: dict[str, _Method] = {
    "hdbscan": _Method(
        make=HdbscanParams,
        specs={
            "min_cluster_size": _either(_whole(2), _fraction()),
            "min_samples": _whole(1),
            "cluster_selection_epsilon": _real(0),
            "cluster_selection_method": _one_of("eom", "leaf"),
            "allow_single_cluster": _boolean(),
            "max_cluster_size": _whole(2),
            "alpha": _real(0, above=True),
        },
        no_effect={
            "metric": _FROM_COLLECTION,
            "metric_params": _FROM_COLLECTION,
            "algorithm": _CHOSEN_HERE,
            "leaf_size": _CHOSEN_HERE,
            "n_jobs": "threads are the server's setting",
            "store_centers": "effective_feature_method chooses the centroid",
            "copy": "the input is never changed",
        },
    ),
    "kmeans": _Method(
        make=KMeansParams,
        specs={
            "n_clusters": _whole(1),
            "init": _one_of("k-means++", "random"),
            "n_init": _either(_whole(1), _one_of("auto")),
            "max_iter": _whole(1),
            "tol": _real(0),
            "random_state": _whole(0, MAX_SEED),
        },
        no_effect={
            "metric": _FROM_COLLECTION,
            "algorithm": _CHOSEN_HERE,
            "verbose": "progress is in the run's events",
            "copy_x": "the input is never changed",
        },
    ),
}

# Names of the methods to come, so that a name of theirs is told from a misspelt one.
_NAMES_ELSEWHERE: dict[str, frozenset[str]] = {
    method: frozenset(names.split())
    for method, names in {
        "dbscan": "eps min_samples metric metric_params algorithm leaf_size p n_jobs",
        "agglomerative": "n_clusters metric memory connectivity compute_full_tree linkage "
        "distance_threshold compute_distances",
        "spectral": "n_clusters eigen_solver n_components random_state n_init gamma affinity "
        "n_neighbors eigen_tol assign_labels degree coef0 kernel_params n_jobs verbose",
        "gaussian_mixture": "n_components covariance_type tol reg_covar max_iter n_init "
        "init_params weights_init means_init precisions_init random_state warm_start verbose",
        "mean_shift": "bandwidth seeds bin_seeding min_bin_freq cluster_all n_jobs max_iter",
        "optics": "min_samples max_eps metric p metric_params cluster_method eps xi "
        "predecessor_correction min_cluster_size algorithm leaf_size memory n_jobs",
        "evoc": "noise_level base_min_cluster_size base_n_clusters approx_n_clusters "
        "n_neighbors min_samples n_epochs node_embedding_init symmetrize_graph "
        "node_embedding_dim neighbor_scale random_state min_similarity_threshold max_layers",
        "auto": "",
    }.items()
}

BUILT_METHODS: tuple[str, ...] = tuple(_BUILT)
METHODS: tuple[str, ...] = (*_BUILT, *_NAMES_ELSEWHERE)


def parse_params(method: str, sent: Mapping[str, object]) -> ParsedParams:
    """Check the parameters of a method as a caller sent them.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    sent : mapping of str to object
        JSON values; null and absent names take their default.

    Returns
    -------
    ParsedParams
        The method's dataclass, and a warning for each name that changes nothing: one of another
        method, or one that shoal decides itself.

    Raises
    ------
    InvalidParametersError
        With every fault at once: an unknown or not yet built method, a value of the wrong type
        or out of range, a misspelt name (with a suggestion).
    """
    built = _BUILT.get(method)
    if built is None:
        raise InvalidParametersError([_method_violation(method)])

    values: dict[str, object] = {}
    warnings: list[str] = []
    violations: list[Violation] = []
    for name, value in sent.items():
        spec = built.specs.get(name)
        if spec is None and name in built.no_effect:
            warnings.append(f"{name} is ignored: {built.no_effect[name]}")
        elif spec is None and (owners := _owners(name)):
            warnings.append(f"{name} is ignored: it belongs to {', '.join(owners)}, not {method}")
        elif spec is None:
            violations.append(_unknown_name(method, built, name, value))
        elif value is not None:
            try:
                values[name] = spec.read(value)
            except _Refused:
                violations.append(Violation(name, _shown(value), f"must be {spec.allowed}"))
    violations.extend(_contradictions(values))
    if violations:
        raise InvalidParametersError(violations)
    return ParsedParams(built.make(**values), warnings)


def _contradictions(values: Mapping[str, object]) -> list[Violation]:
    most, least = values.get("max_cluster_size"), values.get("min_cluster_size")
    if isinstance(most, int) and isinstance(least, int) and most < least:
        allowed = f"must be at least min_cluster_size, {least:,}"
        return [Violation("max_cluster_size", _shown(most), allowed)]
    return []


def _method_violation(method: str) -> Violation:
    if method in _NAMES_ELSEWHERE:
        allowed = f"not supported yet; use one of {', '.join(BUILT_METHODS)}"
    else:
        allowed = f"must be one of {', '.join(METHODS)}"
        if close := difflib.get_close_matches(str(method), METHODS, n=1):
            allowed += f" (did you mean {close[0]}?)"
    return Violation("clustering_method", _shown(method), allowed)


def _owners(name: str) -> list[str]:
    built = [method for method, entry in _BUILT.items() if name in entry.specs]
    return built + [method for method, names in _NAMES_ELSEWHERE.items() if name in names]


def _unknown_name(method: str, built: _Method, name: str, value: object) -> Violation:
    close = difflib.get_close_matches(name, built.specs, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Violation(
        name, _shown(value), f"unknown parameter; {hint}{method} takes {', '.join(built.specs)}"
    )


def _shown(value: object, most: int = 80) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= most else text[: most - 1] + "…"
