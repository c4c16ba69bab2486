"""Derivatives of the built-in surrogates: ds/dV of all potentials in one pass, as
`kernels/surrogate_kinds.py` defines them.

Elements in lanes, in the order of memory: a row of neurons need not fill a vector. Thresholds of a
replica begin anew after the last neuron, so that a vector of them begins anywhere. One below the
normal numbers is 0, as all such numbers here.

Cost: two elements of memory for each potential, and for a vector of them up to 80 operations, 100
in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..surrogate_kinds import all_numbers
from .lib.arrays import flat
from .lib.compiling import borrowing, kernel
from .lib.exponential import exp
from .lib.rows import aligned, load_row, store_row
from .lib.threads import run
from .lib.vectors import add, div, filled, fma, lanes, load, magnitude, mul, no_less, sub

_PART = 1 << 14
"""Elements of a task, a multiple of every vector's lanes."""
_WORK = 20
"""What an element counts, in multiply-adds, when threads are counted."""
_TRIANGULAR, _MULTI_GAUSSIAN, _ATAN, _FAST_SIGMOID, _SIGMOID = range(5)
_CODES = {
    "triangular": _TRIANGULAR,
    "multi_gaussian": _MULTI_GAUSSIAN,
    "atan": _ATAN,
    "fast_sigmoid": _FAST_SIGMOID,
    "sigmoid": _SIGMOID,
}


@borrowing
def _bump(u, mean, height, fall, least):
    moved = sub(u, mean)
    return exp(no_less(sub(height, mul(mul(fall, moved), moved)), least))


@borrowing
def _derivative_of(kind, u, theta, like, a, b, c, d, e, least):
    """ds/dV of a vector u = V - theta; `like`: an array of its dtype."""
    zero, one = filled(like, 0), filled(like, 1)
    first, second, last = filled(like, a), filled(like, b), filled(like, least)
    if kind == _TRIANGULAR:
        return mul(first, no_less(sub(one, div(magnitude(u), mul(second, theta))), zero))
    if kind == _MULTI_GAUSSIAN:
        height, fall = filled(like, c), filled(like, d)
        sides = add(
            _bump(u, filled(like, e), height, fall, last),
            _bump(u, filled(like, -e), height, fall, last),
        )
        return sub(_bump(u, zero, first, second, last), sides)
    if kind == _ATAN:
        scaled = mul(second, u)
        return div(first, fma(scaled, scaled, one))
    if kind == _FAST_SIGMOID:
        below = fma(first, magnitude(u), one)
        return div(one, mul(below, below))
    exponent = no_less(sub(zero, mul(first, magnitude(u))), last)
    sigma = div(one, add(one, exp(sub(zero, exponent))))
    return mul(mul(first, sigma), sub(one, sigma))


@kernel
def _derivative(
    begin, end, kind, potential, threshold, derivative, elements, J, a, b, c, d, e, least
):
    """Tasks (replica, part). potential and derivative [R, elements], elements = T B J."""
    L = lanes(potential)
    parts = (elements + _PART - 1) // _PART
    thetas = aligned(J + L, potential)
    laid = -1  # whose thresholds these are
    for task in range(begin, end):
        replica, part = divmod(task, parts)
        if replica != laid:
            for j in range(J):
                thetas[j] = threshold[replica * J + j]
            for j in range(J, J + L):
                thetas[j] = thetas[j - J]
            laid = replica
        first = part * _PART
        lane, on = first % J, L % J
        for n in range(first, min(first + _PART, elements), L):
            place, used = replica * elements + n, min(L, elements - n)
            theta = load(thetas, lane)
            u = sub(load_row(potential, place, used), theta)
            found = _derivative_of(kind, u, theta, potential, a, b, c, d, e, least)
            store_row(derivative, place, used, found)
            lane += on
            if lane >= J:
                lane -= J


def surrogate(potential: Tensor, threshold: Tensor, kind: str, numbers: Sequence[float]) -> Tensor:
    """V [R, T, B, J] and theta [R, J] -> ds/dV, by a kind of `surrogate_kinds`."""
    R, T, B, J = potential.shape
    found = torch.empty(potential.shape, dtype=potential.dtype)
    elements = T * B * J
    run(
        _derivative, R * -(-elements // _PART), _WORK * R * elements,
        _CODES[kind], flat(potential), flat(threshold), flat(found), elements, J,
        *all_numbers(kind, numbers).values(),
    )  # fmt: skip
    return found
