"""The steps before a clustering, as a caller lists them: names, defaults and ranges.

Each step is an object with `method` and that step's parameters beside it, such as
``{"method": "pca", "n_components": 50}``. Loads no array library, so a server can check a request
without one; `gpu.preprocess` runs them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gpu.errors import InvalidParametersError, Violation
from gpu.param_values import (
    Refused,
    Spec,
    between,
    boolean,
    either,
    fraction,
    one_of,
    seed,
    whole,
)
from gpu.params import Metric

UmapMetric = Literal["cosine", "euclidean", "manhattan"]

MAX_STEPS = 16
MAX_COMPONENTS = 65_536


@dataclass(frozen=True)
class Normalize:
    """Scale each row to length 1."""


@dataclass(frozen=True)
class Whitening:
    """Soft-ZCA whitening.

    Attributes
    ----------
    epsilon : float
        How soft: added to every eigenvalue of the covariance, as a share of their mean, so that
        it means the same at any scale. Near 0 every direction gets the same spread, noise
        included; 1 halves the variance of a direction of average spread against full whitening;
        large values leave the directions as they were.
    """

    epsilon: float = 1.0


@dataclass(frozen=True)
class Pca:
    """Projection on the directions of most variance.

    Attributes
    ----------
    n_components : int or float
        Number of directions; below 1 the share of the variance that is to be kept.
    whiten : bool
        Whether each direction is scaled to variance 1.
    """

    n_components: float = 50
    whiten: bool = False


@dataclass(frozen=True)
class Umap:
    """Uniform manifold approximation and projection.

    Attributes
    ----------
    n_components : int
        Dimensions of the result.
    n_neighbors : int
        Neighbours that make up a point's surroundings.
    min_dist : float
        How close points of the result may lie; 0 packs groups densely, which clustering likes.
    metric : {"cosine", "euclidean", "manhattan"} or None
        None: the vectors' own.
    random_state : int
        Seed.
    """

    n_components: int = 10
    n_neighbors: int = 15
    min_dist: float = 0.0
    metric: UmapMetric | None = None
    random_state: int = 42


Step = Normalize | Whitening | Pca | Umap


@dataclass(frozen=True)
class _Kind:
    make: Callable[..., Step]
    specs: Mapping[str, Spec]


_KINDS: dict[str, _Kind] = {
    "normalize": _Kind(Normalize, {}),
    "whitening": _Kind(Whitening, {"epsilon": between(1e-6, 1e6)}),
    "pca": _Kind(
        Pca,
        {
            "n_components": either(whole(1, MAX_COMPONENTS), fraction("variance")),
            "whiten": boolean(),
        },
    ),
    "umap": _Kind(
        Umap,
        {
            "n_components": whole(1, 256),
            "n_neighbors": whole(2, 1_000),
            "min_dist": between(0, 1),
            "metric": one_of(*get_args(UmapMetric)),
            "random_state": seed(),
        },
    ),
}

STEP_METHODS: tuple[str, ...] = tuple(_KINDS)


def metric_after(steps: Sequence[Step], metric: Metric) -> Metric:
    """Give the metric that vectors of one metric are to be compared by after the steps."""
    if any(isinstance(step, Pca | Umap) for step in steps):
        return "euclidean"
    return "cosine" if steps and metric == "dot" else metric


def parse_steps(raw: Sequence[Mapping[str, object]]) -> tuple[Step, ...]:
    """Check the steps as a caller sent them.

    Parameters
    ----------
    raw : sequence of mappings
        JSON values; null and absent parameters take their default.

    Returns
    -------
    tuple of Step
        In the order given.

    Raises
    ------
    InvalidParametersError
        With every fault of every step; paths are relative to the list, such as
        ``[1].n_components``.
    """
    if len(raw) > MAX_STEPS:
        raise InvalidParametersError(
            [Violation("", f"{len(raw):,} steps", f"must be at most {MAX_STEPS} steps")]
        )
    steps: list[Step] = []
    violations: list[Violation] = []
    for position, sent in enumerate(raw):
        try:
            steps.append(_parse_step(sent, f"[{position}]"))
        except InvalidParametersError as error:
            violations += error.violations
    if violations:
        raise InvalidParametersError(violations)
    return tuple(steps)


def _parse_step(sent: object, path: str) -> Step:
    if not isinstance(sent, Mapping):
        allowed = f"must be an object with method, one of {', '.join(STEP_METHODS)}"
        raise InvalidParametersError([Violation(path, _shown(sent), allowed)])
    method = sent.get("method")
    kind = _KINDS.get(method) if isinstance(method, str) else None
    if kind is None:
        allowed = f"must be one of {', '.join(STEP_METHODS)}{_hint(method, STEP_METHODS)}"
        raise InvalidParametersError([Violation(f"{path}.method", _shown(method), allowed)])

    values: dict[str, object] = {}
    violations: list[Violation] = []
    for name, value in sent.items():
        spec = kind.specs.get(name)
        if name == "method" or (spec is not None and value is None):
            continue
        if spec is None:
            takes = ", ".join(kind.specs) or "no parameters"
            allowed = f"unknown parameter; {method} takes {takes}{_hint(name, kind.specs)}"
            violations.append(Violation(f"{path}.{name}", _shown(value), allowed))
            continue
        try:
            values[name] = spec.read(value)
        except Refused:
            allowed = f"must be {spec.allowed}"
            violations.append(Violation(f"{path}.{name}", _shown(value), allowed))
    if violations:
        raise InvalidParametersError(violations)
    return kind.make(**values)


def _hint(word: object, known: Sequence[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: object, most: int = 80) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= most else text[: most - 1] + "…"
