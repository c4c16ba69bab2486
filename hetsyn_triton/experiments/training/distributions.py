"""Distributions of time constants as text, such as "20", "uniform(5,20)" or "normal(20,5)"."""

import re
from typing import Any

from hetsyn_triton.initializers import Constant, LogUniform, Normal, Uniform

Distribution = Constant | Uniform | Normal | LogUniform

_KINDS: dict[str, type[Uniform] | type[Normal] | type[LogUniform]] = {
    "uniform": Uniform,
    "normal": Normal,
    "log-uniform": LogUniform,
}
EXPECTED = (
    'a number, "uniform(LOW,HIGH)", "log-uniform(LOW,HIGH)" or "normal(MEAN,DEVIATION)" '
    "where LOW <= HIGH"
)


def parse_distribution(text: str | float) -> Distribution:
    """Return the initializer that `text` describes; the ValueError lists the forms."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return Constant(float(text))
    number = r"\s*([-+.\deE]+)\s*"
    match = re.fullmatch(rf"([a-z-]+)\({number},{number}\)", str(text).strip())
    try:
        if match is None:
            return Constant(float(text))
        first, second = float(match[2]), float(match[3])
    except ValueError:
        raise ValueError(f"expected {EXPECTED}, got {text!r}") from None
    if match[1] not in _KINDS:
        raise ValueError(f"expected {EXPECTED}, got {text!r}")
    return _KINDS[match[1]](first, second)


def smallest(distribution: Distribution) -> float:
    """Return the smallest time constant of a distribution, or the mean of a normal one."""
    if isinstance(distribution, Constant):
        return distribution.value
    return distribution.mean if isinstance(distribution, Normal) else distribution.low


def is_distribution(value: Any) -> bool:
    """Return whether `value` describes a distribution of positive time constants."""
    try:
        return smallest(parse_distribution(value)) > 0
    except (ValueError, TypeError):
        return False
