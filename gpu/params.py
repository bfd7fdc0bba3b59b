"""The parameters of each clustering method: names, defaults and ranges, as data.

Names and defaults are scikit-learn's, but for n_clusters and random_state, which always have a
value. What JSON carries is what is read: null means absent, 10.0 is the integer 10, true is no
number. Loads no array library, so a server can check a request without one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gpu.errors import InvalidParametersError, Violation
from gpu.method_params import (
    APPROXIMATE_FROM,
    AgglomerativeParams,
    AutoParams,
    DbscanParams,
    EvocParams,
    GaussianMixtureParams,
    HdbscanParams,
    KMeansParams,
    MeanShiftParams,
    OpticsParams,
    Params,
    SpectralParams,
)
from gpu.param_specs import METHOD_SPECS, Method
from gpu.param_values import MAX_SEED, Refused

__all__ = [
    "APPROXIMATE_FROM",
    "BUILT_METHODS",
    "MAX_SEED",
    "METHODS",
    "METRICS",
    "NOISE",
    "AgglomerativeParams",
    "AutoParams",
    "DbscanParams",
    "EvocParams",
    "GaussianMixtureParams",
    "HdbscanParams",
    "KMeansParams",
    "MeanShiftParams",
    "Metric",
    "OpticsParams",
    "Params",
    "ParsedParams",
    "SpectralParams",
    "metric_violations",
    "params_class",
    "parse_params",
    "supports_metric",
]

NOISE = -1
"""Label of a point that belongs to no group."""

Metric = Literal["cosine", "euclidean", "dot", "manhattan"]
METRICS: tuple[str, ...] = get_args(Metric)

METHODS: tuple[str, ...] = (
    "hdbscan",
    "kmeans",
    "dbscan",
    "agglomerative",
    "spectral",
    "gaussian_mixture",
    "mean_shift",
    "optics",
    "evoc",
    "auto",
)
BUILT_METHODS: tuple[str, ...] = tuple(METHOD_SPECS)


@dataclass(frozen=True)
class ParsedParams:
    """Checked parameters, and what the caller should be told about those left out."""

    params: Params
    warnings: list[str] = field(default_factory=list)


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
        With every fault at once: an unknown method, a value of the wrong type or out of range, a
        misspelt name (with a suggestion), values that contradict each other.
    """
    known = METHOD_SPECS.get(method)
    if known is None:
        raise InvalidParametersError([_method_violation(method)])

    values: dict[str, Any] = {}
    warnings: list[str] = []
    violations: list[Violation] = []
    for sent_name, value in sent.items():
        name = known.aliases.get(sent_name, sent_name)
        spec = known.specs.get(name)
        if spec is None and name in known.no_effect:
            warnings.append(f"{name} is ignored: {known.no_effect[name]}")
        elif spec is None and (owners := _owners(name)):
            warnings.append(f"{name} is ignored: it belongs to {', '.join(owners)}, not {method}")
        elif spec is None:
            violations.append(_unknown_name(method, known, name, value))
        elif value is not None:
            try:
                read = spec.read(value)
            except Refused:
                violations.append(Violation(sent_name, _shown(value), f"must be {spec.allowed}"))
                continue
            if values.setdefault(name, read) != read:
                allowed = f"is another name of {name}; send one of them"
                violations.append(Violation(sent_name, _shown(value), allowed))
    violations.extend(_contradictions(values))
    if violations:
        raise InvalidParametersError(violations)
    if values.get("distance_threshold") is not None:
        values["n_clusters"] = None  # The default gives way to what was asked for.
    return ParsedParams(known.make(**values), warnings)


def params_class(method: str) -> type[Params]:
    """Give the dataclass of a method's parameters."""
    return METHOD_SPECS[method].make


def supports_metric(method: str, metric: str) -> bool:
    """Tell whether a method can cluster by a metric, with some value of its parameters."""
    return metric in METHOD_SPECS[method].metrics


def metric_violations(method: str, params: Params, metric: str) -> list[Violation]:
    """List what speaks against clustering by a metric with these parameters; empty if nothing."""
    allowed = METHOD_SPECS[method].metrics
    if metric not in allowed:
        words = f"{method} takes vectors with {', '.join(allowed[:-1])} or {allowed[-1]} distance"
        return [Violation("metric", _shown(metric), words)]
    is_ward = isinstance(params, AgglomerativeParams) and params.linkage == "ward"
    if metric == "manhattan" and is_ward:
        words = "ward has no manhattan distance; use complete, average or single"
        return [Violation("linkage", _shown("ward"), words)]
    return []


def _contradictions(values: Mapping[str, object]) -> list[Violation]:
    found = []
    most, least = values.get("max_cluster_size"), values.get("min_cluster_size")
    if isinstance(most, int) and isinstance(least, int) and most < least:
        allowed = f"must be at least min_cluster_size, {least:,}"
        found.append(Violation("max_cluster_size", _shown(most), allowed))
    threshold = values.get("distance_threshold")
    if threshold is not None and values.get("n_clusters") is not None:
        allowed = "cannot go with n_clusters; send one of them"
        found.append(Violation("distance_threshold", _shown(threshold), allowed))
    farthest, cut = values.get("max_eps"), values.get("eps")
    if isinstance(farthest, float) and isinstance(cut, float) and cut > farthest:
        allowed = f"must be at most max_eps, {farthest:g}"
        found.append(Violation("eps", _shown(cut), allowed))
    if values.get("base_n_clusters") is not None and values.get("approx_n_clusters") is not None:
        shown = _shown(values["base_n_clusters"])
        allowed = "cannot go with approx_n_clusters; send one of them"
        found.append(Violation("base_n_clusters", shown, allowed))
    return found


def _method_violation(method: str) -> Violation:
    allowed = f"must be one of {', '.join(METHODS)}"
    if close := difflib.get_close_matches(str(method), METHODS, n=1):
        allowed += f" (did you mean {close[0]}?)"
    return Violation("clustering_method", _shown(method), allowed)


def _owners(name: str) -> list[str]:
    return [method for method, known in METHOD_SPECS.items() if _knows(known, name)]


def _knows(known: Method, name: str) -> bool:
    return name in known.specs or name in known.no_effect or name in known.aliases


def _unknown_name(method: str, known: Method, name: str, value: object) -> Violation:
    close = difflib.get_close_matches(name, known.specs, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Violation(
        name, _shown(value), f"unknown parameter; {hint}{method} takes {', '.join(known.specs)}"
    )


def _shown(value: object, most: int = 80) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= most else text[: most - 1] + "…"
