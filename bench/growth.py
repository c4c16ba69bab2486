"""How time and memory grow with the sizes: the slope of log time over log size, which for a cost in
proportion is 1.

Sizes double four times, all else fixed, from where the part that grows is most of a call: what does
not grow with an axis (of I the scan of neurons, of T the states, of all the call itself) is some
milliseconds. The values of one axis take turns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench import cpu_rows, registry
from bench.timing import interleaved

BASE, AXES, RECURRENT = registry.BASE, registry.AXES, registry.RECURRENT
NEURONS = (128, 256, 512, 1024)
"""Inputs and neurons of the layers whose memory per step is compared."""


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log value over log size, least squares."""
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return above / sum((a - mx) ** 2 for a in x)


def time_axis(
    axis: str, sizes: Sequence[int], recurrent: bool, seconds: float, base: dict[str, int] = BASE
) -> dict[str, Any]:
    """Forward and all gradients of a layer over the sizes of one axis. Recurrent: few inputs, and J
    neurons have J^2 synapses, so the cost in proportion has exponent 2."""
    runs = {}
    for size in sizes:
        at = base | {axis: size}
        inputs = 1 if recurrent else at["I"]
        runs[str(size)] = cpu_rows.our_layer(at["T"], at["B"], inputs, at["J"], recurrent)
    timings = interleaved(runs, seconds)
    ms = [timings[str(size)].ms for size in sizes]
    return {
        "axis": axis,
        "layer": "recurrent" if recurrent else "feedforward",
        "sizes": list(sizes),
        "ms": ms,
        "exponent": exponent(sizes, ms),
        "wanted": 2.0 if recurrent and axis == "J" else 1.0,
    }


def memory(neurons: Sequence[int], B: int, slope: dict[str, Any]) -> dict[str, Any]:
    """`slope` has the bytes that layers N -> N take for each further step. A term T I J would give
    exponent 2."""
    found = {"neurons": list(neurons), "B": B, **slope}
    per_step = slope.get("bytes_per_step", [])
    if not per_step or min(per_step) <= 0:
        return found | {"exponent": None, "of_z_v_and_g": None}
    return found | {
        "exponent": exponent(neurons, per_step),
        "of_z_v_and_g": [b / (4 * B * 3 * n) for n, b in zip(neurons, per_step, strict=True)],
    }
