"""Single words of the command line, read: NAME=VALUE, JSON, numbers.

Each reader adds what it cannot read to `violations`, so that all faults are told at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from server.errors import Violation


def read_pairs(
    flag: str, texts: Iterable[str], form: str, violations: list[Violation]
) -> list[tuple[str, str]]:
    """Split words of a form such as ``SOURCE=TARGET``; neither side may be empty."""
    pairs = []
    for text in texts:
        left, equals, right = text.partition("=")
        if left and equals and right:
            pairs.append((left, right))
        else:
            violations.append(Violation(flag, f"{text!r} is not {form}"))
    return pairs


def read_params(texts: Iterable[str], violations: list[Violation]) -> dict[str, Any]:
    """Read ``NAME=VALUE``, each name once; values are JSON or words."""
    params: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            violations.append(Violation("--param", f"{text!r} is not NAME=VALUE"))
        elif name in params:
            violations.append(Violation("--param", f"{name!r} is given twice"))
        else:
            params[name] = _value(value)
    return params


def read_weights(texts: Iterable[str], violations: list[Violation]) -> dict[str, float]:
    """Read ``URI=NUMBER``, each URI once; a URI may hold an equals sign itself."""
    weights: dict[str, float] = {}
    for text in texts:
        feature, _, number = text.rpartition("=")
        weight = _value(number)
        if not feature or isinstance(weight, bool) or not isinstance(weight, int | float):
            violations.append(Violation("--weight", f"{text!r} is not URI=NUMBER"))
        elif feature in weights:
            violations.append(Violation("--weight", f"{feature!r} is given twice"))
        else:
            weights[feature] = weight
    return weights


def read_steps(texts: Iterable[str], violations: list[Violation]) -> list[dict[str, Any]]:
    """Read preprocessing steps: a JSON object each, or only the step's name."""
    steps = []
    for text in texts:
        if text.isidentifier():
            steps.append({"method": text})
            continue
        example = '{"method": "pca", "n_components": 50}'
        step = _json_object("--step", text, text, example, violations)
        if step is not None:
            steps.append(step)
    return steps


def read_filter(text: str, violations: list[Violation]) -> dict[str, Any] | None:
    """Read a filter: a JSON object, or ``@FILE`` that holds one."""
    source = "--filter"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            violations.append(Violation("--filter", f"{source!r} cannot be read: {error}"))
            return None
    return _json_object("--filter", source, text, '{"section": "python"}', violations)


def _json_object(
    flag: str, source: str, text: str, example: str, violations: list[Violation]
) -> dict[str, Any] | None:
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        violations.append(Violation(flag, f"{source} is not JSON: {error}"))
        return None
    if not isinstance(found, dict):
        violations.append(Violation(flag, f"{source} is no JSON object, such as {example}"))
        return None
    return found


def _value(text: str) -> Any:
    """Read JSON, so that 8 is a number and true a boolean; anything else is a word."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
