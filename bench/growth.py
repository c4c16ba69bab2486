"""Growth of time and memory with the sizes: the slope of log time over log size, which is 1 for a
cost in proportion.

Sizes double, four times in the full set and twice in the quick one, all else fixed; recurrent J
rises in smaller steps. They begin where the part that grows is most of a call. The values of one
axis are interleaved, and the slope is fitted to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import linregress

WITHIN = 0.1
"""How far the slope of time may be from that in proportion."""


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log value over log size, least squares."""
    return float(linregress(np.log(sizes), np.log(values)).slope)


def slope(sizes: Sequence[float], values: Sequence[Any]) -> float | None:
    """The `exponent`; None where a value is missing or nothing, or there are no two."""
    if len(sizes) < 2 or any(not value or value <= 0 for value in values):
        return None
    return exponent(sizes, values)


def standard_error(sizes: Sequence[float], values: Sequence[Any]) -> float | None:
    """Of the `slope`, from how far the points lie from the line; None where that has no slope or
    there are no three points."""
    if slope(sizes, values) is None or len(sizes) < 3:
        return None
    return float(linregress(np.log(sizes), np.log(values)).stderr)


def met(found: float | None, wanted: float) -> bool | None:
    """Whether a slope of time is in proportion to within `WITHIN`; None without a slope."""
    return None if found is None else abs(found - wanted) <= WITHIN


def wanted(axis: str, recurrent: bool) -> int:
    """The exponent of a cost in proportion: J recurrent neurons have J^2 synapses."""
    return 2 if recurrent and axis == "J" else 1
