"""The options of a task: default, allowed values and meaning."""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

__all__ = ["Option", "choice", "integer", "is_real", "number"]


class Option(NamedTuple):
    """A setting of a task.

    Attributes:
        default: Default value.
        allows: Returns whether a value is allowed.
        expected: Describes the allowed values in an error.
        meaning: What the setting does, for `hetsyn settings`.
    """

    default: Any
    allows: Callable[[Any], bool]
    expected: str
    meaning: str = ""


def integer(default: int, low: int, high: int, meaning: str = "") -> Option:
    """Allow an integer from `low` to `high`, both included."""
    return Option(
        default,
        lambda v: type(v) is int and low <= v <= high,
        f"an integer from {low} to {high}",
        meaning,
    )


def number(default: float, low: float, high: float, meaning: str = "") -> Option:
    """Allow a number from `low` to `high`, both included."""
    return Option(
        default,
        lambda v: is_real(v) and low <= v <= high,
        f"a number from {low:g} to {high:g}",
        meaning,
    )


def choice(default: str, allowed: Collection[str], meaning: str = "") -> Option:
    """Allow one of the names `allowed`."""
    return Option(
        default,
        lambda v: isinstance(v, str) and v in allowed,
        f"one of {', '.join(allowed)}",
        meaning,
    )


def is_real(value: Any) -> bool:
    """Return whether `value` is a finite int or float, but not a bool."""
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that is too large for a float
        return False
