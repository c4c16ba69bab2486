"""The options of a study: small default, full default and allowed values."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hetsyn_triton.experiments.tasks.options import is_real
from hetsyn_triton.experiments.training.distributions import is_distribution


class StudyOption(NamedTuple):
    """Defaults at the small size and at the paper's size, `full`; `expected` is for errors."""

    small: Any
    full: Any
    allows: Callable[[Any], bool]
    expected: str


def integers(small: Sequence[int], full: Sequence[int], low: int, high: int) -> StudyOption:
    """Allow a list of different integers from `low` to `high`, both included."""
    return StudyOption(
        list(small),
        list(full),
        lambda v: _different(v) and all(type(n) is int and low <= n <= high for n in v),
        f"different integers from {low} to {high} such as {list(small)}",
    )


def numbers(small: Sequence[float], full: Sequence[float], low: float, high: float) -> StudyOption:
    """Allow a list of different numbers from `low` to `high`, both included."""
    return StudyOption(
        list(small),
        list(full),
        lambda v: _different(v) and all(is_real(n) and low <= n <= high for n in v),
        f"different numbers from {low:g} to {high:g} such as {list(small)}",
    )


def names(small: Sequence[str], allowed: Sequence[str]) -> StudyOption:
    """Allow a list of different names among `allowed`, with one default for both sizes."""
    return StudyOption(
        list(small),
        list(small),
        lambda v: _different(v) and all(isinstance(n, str) and n in allowed for n in v),
        f"different names among {', '.join(allowed)}",
    )


def or_empty(option: StudyOption) -> StudyOption:
    """Allow what `option` allows, or an empty list, which is the default."""
    return StudyOption([], [], lambda v: v == [] or option.allows(v), f"{option.expected}, or []")


def distributions() -> StudyOption:
    """Allow a list of different distributions of time constants; empty for the defaults."""
    return StudyOption(
        [],
        [],
        lambda v: v == [] or (_different(v) and all(map(is_distribution, v))),
        'different distributions such as ["normal(20,2)", "normal(50,5)"], or [] for the default',
    )


def integer(small: int, full: int, low: int, high: int) -> StudyOption:
    """Allow an integer from `low` to `high`, both included."""
    return StudyOption(
        small,
        full,
        lambda v: type(v) is int and low <= v <= high,
        f"an integer from {low} to {high}",
    )


def flag(small: bool, full: bool) -> StudyOption:
    """Allow true or false."""
    return StudyOption(small, full, lambda v: isinstance(v, bool), "true or false")


def _different(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(value.count(item) == 1 for item in value)
