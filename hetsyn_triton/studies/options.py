"""A study's own settings: each with its small and its full default, and what it may hold."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hetsyn_triton.tasks.options import is_real
from hetsyn_triton.training.distributions import is_distribution


class StudyOption(NamedTuple):
    """`small` holds unless the paper's size, `full`, is asked for; `expected` is for errors."""

    small: Any
    full: Any
    allows: Callable[[Any], bool]
    expected: str


def integers(small: Sequence[int], full: Sequence[int], low: int, high: int) -> StudyOption:
    """A list of different whole numbers from `low` to `high`, both included."""
    return StudyOption(
        list(small),
        list(full),
        lambda v: _different(v) and all(type(n) is int and low <= n <= high for n in v),
        f"different integers from {low} to {high} as in {list(small)}",
    )


def numbers(small: Sequence[float], full: Sequence[float], low: float, high: float) -> StudyOption:
    """A list of different numbers from `low` to `high`, both included."""
    return StudyOption(
        list(small),
        list(full),
        lambda v: _different(v) and all(is_real(n) and low <= n <= high for n in v),
        f"different numbers from {low:g} to {high:g} as in {list(small)}",
    )


def names(small: Sequence[str], allowed: Sequence[str]) -> StudyOption:
    """A list of different names among `allowed`; the same ones at both sizes."""
    return StudyOption(
        list(small),
        list(small),
        lambda v: _different(v) and all(isinstance(n, str) and n in allowed for n in v),
        f"different names among {', '.join(allowed)}",
    )


def or_empty(option: StudyOption) -> StudyOption:
    """A list as `option` allows, or an empty one, the default."""
    return StudyOption([], [], lambda v: v == [] or option.allows(v), f"{option.expected}, or []")


def distributions() -> StudyOption:
    """A list of different distributions of time constants; empty for the usual ones."""
    return StudyOption(
        [],
        [],
        lambda v: v == [] or (_different(v) and all(map(is_distribution, v))),
        'different distributions as in ["normal(20,2)", "normal(50,5)"], or [] for the usual ones',
    )


def integer(small: int, full: int, low: int, high: int) -> StudyOption:
    """A whole number from `low` to `high`, both included."""
    return StudyOption(
        small,
        full,
        lambda v: type(v) is int and low <= v <= high,
        f"an integer from {low} to {high}",
    )


def flag(small: bool, full: bool) -> StudyOption:
    """True or false."""
    return StudyOption(small, full, lambda v: isinstance(v, bool), "true or false")


def _different(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(value.count(item) == 1 for item in value)
