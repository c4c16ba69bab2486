"""How time and memory grow with the sizes: the slope of log time over log size, which for a cost in
proportion is 1.

Sizes double, four times in the full set and twice in the quick one, all else fixed; recurrent J
rises in smaller steps. They begin where the part that grows is most of a call: what does not grow
with an axis (of I the scan of neurons, of T the states, of all the call itself) is some
milliseconds. The values of one axis take turns, and the slope is fitted to all. Which slope is
in proportion is said here for all reports (`wanted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import linregress

from bench import cpu_rows, registry
from bench.timing import interleaved

BASE, AXES, RECURRENT = registry.BASE, registry.AXES, registry.RECURRENT
WITHIN = 0.1
"""How far the slope of time may be from that in proportion."""
NEURONS = registry.SQUARE
"""Inputs and neurons of the layers whose memory per step is compared."""


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


def time_axis(
    axis: str, sizes: Sequence[int], recurrent: bool, seconds: float, base: dict[str, int] = BASE
) -> dict[str, Any]:
    """Forward and all gradients of a layer over the sizes of one axis; recurrent: one input."""
    runs = {}
    for size in sizes:
        at = base | {axis: size}
        inputs = 1 if recurrent else at["I"]
        runs[str(size)] = cpu_rows.our_layer(at["T"], at["B"], inputs, at["J"], recurrent)
    timings = interleaved(runs, seconds)
    ms = [timings[str(size)].ms for size in sizes]
    found, aim = slope(sizes, ms), wanted(axis, recurrent)
    return {
        "axis": axis,
        "layer": "recurrent" if recurrent else "feedforward",
        "sizes": list(sizes),
        "ms": ms,
        "exponent": found,
        "standard_error": standard_error(sizes, ms),
        "wanted": aim,
        "met": met(found, aim),
    }


def memory(neurons: Sequence[int], B: int, taken: dict[str, Any]) -> dict[str, Any]:
    """`taken` has the bytes that layers N -> N take for each further step, None where the system
    does not tell. A term T I J would give exponent 2."""
    found = {"neurons": list(neurons), "B": B, **taken}
    per_step = taken.get("bytes_per_step") or []
    if not per_step or min(per_step) <= 0:
        return found | {"exponent": None, "of_z_v_and_g": None}
    return found | {
        "exponent": exponent(neurons, per_step),
        "of_z_v_and_g": [b / (4 * B * 3 * n) for n, b in zip(neurons, per_step, strict=True)],
    }
