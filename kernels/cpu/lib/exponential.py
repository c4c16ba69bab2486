"""e^x of a vector, in float32 and float64, within a unit in the last place.

    n = round(x / ln 2),   r = x - n ln 2,   e^x = 2^n e^r

e^r by its Taylor polynomial, |r| <= ln 2 / 2. ln 2 is two numbers, so that r keeps all its
digits. Adding 1.5 * 2^(digits - 1) to x / ln 2 rounds it and leaves n in the low bits of the sum,
from where it is added to the exponent of e^r.

LLVM has no exponential of vectors of its own, and Intel's library of them is an extra of Numba's
that only some machines have.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from .vectors import Code

_KINDS: dict[int, tuple[Any, int]] = {32: (np.float32, 7), 64: (np.float64, 13)}
"""By the bits of a number: its type, and the degree. What is left out is below 6e-9 and 5e-18."""
_LOWEST = 2.3190468138462996e-17
"""ln 2 less its float64."""


def _constants(bits: int) -> dict[str, float]:
    dtype, _ = _KINDS[bits]
    about = np.finfo(dtype)
    high = float(dtype(math.log(2)))
    zero = dtype(0)
    return {
        "high": high,
        "low": math.log(2) - high + _LOWEST,
        "round": 1.5 * 2.0**about.nmant,
        "least": float(np.nextafter(dtype(about.minexp * math.log(2)), zero)),
        "most": float(np.nextafter(dtype(about.maxexp * math.log(2)), zero)),
    }


@intrinsic
def exp(_typing: Any, x: Any) -> Any:
    """e^x: 0 where that is below the normal numbers, infinity above them, NaN of NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (given,) = arguments
        code = Code(context, builder, x.dtype)
        fixed, fma = code.filled, code.fma
        dtype, degree = _KINDS[code.bits]
        whole = ir.VectorType(ir.IntType(code.bits), x.lanes)
        constants = _constants(code.bits)

        rounded = fma(given, fixed(1 / math.log(2)), fixed(constants["round"]))
        n = builder.fsub(rounded, fixed(constants["round"]))
        r = fma(n, fixed(-constants["high"]), given)
        r = fma(n, fixed(-constants["low"]), r)
        found = fixed(1 / math.factorial(degree))
        for power in range(degree - 1, -1, -1):
            found = fma(found, r, fixed(1 / math.factorial(power)))
        place = ir.Constant(whole, [np.finfo(dtype).nmant] * x.lanes)
        exponent = builder.shl(builder.bitcast(rounded, whole), place)
        found = builder.bitcast(builder.add(builder.bitcast(found, whole), exponent), code.kind)
        for there, beyond in (
            (builder.fcmp_ordered("<", given, fixed(constants["least"])), fixed(0.0)),
            (builder.fcmp_ordered(">", given, fixed(constants["most"])), fixed(math.inf)),
            (builder.fcmp_unordered("uno", given, given), given),
        ):
            found = builder.select(there, beyond, found)
        return found

    return x(x), generate
