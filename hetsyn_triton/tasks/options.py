"""A task's own settings: each with its default and what it may hold."""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple


class Option(NamedTuple):
    """`allows(value)` says whether a value may stand; `expected` says so in words, for errors."""

    default: Any
    allows: Callable[[Any], bool]
    expected: str


def integer(default: int, low: int, high: int) -> Option:
    """A whole number from `low` to `high`, both included."""
    return Option(
        default, lambda v: type(v) is int and low <= v <= high, f"an integer from {low} to {high}"
    )


def number(default: float, low: float, high: float) -> Option:
    """A number from `low` to `high`, both included."""
    return Option(
        default, lambda v: is_real(v) and low <= v <= high, f"a number from {low:g} to {high:g}"
    )


def choice(default: str, allowed: Collection[str]) -> Option:
    """One of the words `allowed`."""
    return Option(
        default, lambda v: isinstance(v, str) and v in allowed, f"one of {', '.join(allowed)}"
    )


def is_real(value: Any) -> bool:
    """Whether `value` is a finite int or float, and no bool."""
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False
