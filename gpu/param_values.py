"""What a parameter takes: one reader per kind of value, which knows how to say so.

What JSON carries is what is read: 10.0 is the integer 10, true is no number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_SEED = 2**32 - 1


class Refused(Exception):
    """A value is outside what a parameter takes; the message of the violation is elsewhere."""


@dataclass(frozen=True)
class Spec:
    """A kind of value.

    Attributes
    ----------
    allowed : str
        What is taken, in plain words, to follow "must be".
    read : callable
        Gives the value as the methods want it, or raises `Refused`.
    """

    allowed: str
    read: Callable[[Any], object]


def _number(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused
    if not low <= value <= high or math.isinf(value):
        raise Refused  # NaN compares false, so it ends here too.
    return value


def whole(low: int, high: int = 2**31 - 1) -> Spec:
    """Take an integer from `low` to `high`."""

    def read(value: object) -> int:
        number = _number(value, low, high)
        if number != int(number):
            raise Refused
        return int(number)

    return Spec(f"an integer from {low:,} to {high:,}", read)


def seed() -> Spec:
    """Take a seed of a random generator."""
    return whole(0, MAX_SEED)


def real(low: float, *, above: bool = False) -> Spec:
    """Take a finite number of at least `low`, or above it."""

    def read(value: object) -> float:
        number = float(_number(value, low, math.inf))
        if above and number == low:
            raise Refused
        return number

    return Spec(f"a finite number {'above' if above else 'of at least'} {low:g}", read)


def between(low: float, high: float) -> Spec:
    """Take a number from `low` to `high`, both included."""
    return Spec(
        f"a number from {low:g} to {high:g}", lambda value: float(_number(value, low, high))
    )


def below(low: float, high: float) -> Spec:
    """Take a number of at least `low` and less than `high`."""

    def read(value: object) -> float:
        number = float(_number(value, low, high))
        if number == high:
            raise Refused
        return number

    return Spec(f"a number of at least {low:g} and below {high:g}", read)


def one_of(*words: str) -> Spec:
    """Take one of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise Refused
        return value

    return Spec("one of " + ", ".join(json.dumps(word) for word in words), read)


def either(first: Spec, second: Spec) -> Spec:
    """Take what either of two kinds takes."""

    def read(value: object) -> object:
        try:
            return first.read(value)
        except Refused:
            return second.read(value)

    return Spec(f"{first.allowed}, or {second.allowed}", read)


def boolean() -> Spec:
    """Take true or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise Refused
        return value

    return Spec("true or false", read)


def fraction(whole_thing: str = "points") -> Spec:
    """Take a share of something, neither none nor all of it."""

    def read(value: object) -> float:
        number = float(_number(value, 0, 1))
        if number in (0, 1):
            raise Refused
        return number

    return Spec(f"a share of the {whole_thing} between 0 and 1", read)
