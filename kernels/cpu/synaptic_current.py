"""The synaptic current of all neurons, forward in time and, transposed, backward (dL/dz).

    x_os(t) = r_os x_os(t-1) + z_s(t),   c_o(t) = sum_s w_os x_os(t)

Summed features s (inputs; backward: neurons), outputs o (neurons; backward: inputs) in lanes.
Backward, with lambda for x, g for z and time reversed: dz_i(t) = sum_j w_ji lambda_ji(t).

A task is a block of outputs of one sample. It goes over CHUNK summed features at a time, whose
traces, weights and decays stay in the first cache, through the whole sequence, STEPS steps in one
pass: a trace is loaded and stored once for STEPS steps. 2 fused multiply-adds per synapse, sample
and step, with 7 vector loads and a store for 8 of them.

Order of a sum: CHUNK features ascending make a partial sum, partial sums are added ascending.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .arrays import blocks_of, flat, optional, packed, steps_like
from .compiling import inlined, kernel
from .threads import run
from .vectors import add, filled, fma, lanes, load, spread, store

CHUNK = 64


@inlined
def current_tile(z, first, step, weight, decay, base, x, c, T, n):
    """Adds CHUNK features to c [T, L]: z[first + t step + s], s < n; their traces x [n, L] go on.

    `base` is where the block's rows of `weight` and `decay` begin.
    """
    L = lanes(z)
    t = 0
    while t + 4 <= T:
        z0 = first + t * step
        z1 = z0 + step
        z2 = z1 + step
        z3 = z2 + step
        c0 = c1 = c2 = c3 = filled(z, 0)
        for s in range(n):
            w, r, a = load(weight, base + s * L), load(decay, base + s * L), load(x, s * L)
            a = fma(r, a, spread(z, z0 + s))
            c0 = fma(w, a, c0)
            a = fma(r, a, spread(z, z1 + s))
            c1 = fma(w, a, c1)
            a = fma(r, a, spread(z, z2 + s))
            c2 = fma(w, a, c2)
            a = fma(r, a, spread(z, z3 + s))
            c3 = fma(w, a, c3)
            store(x, s * L, a)
        o = t * L
        store(c, o, add(load(c, o), c0))
        store(c, o + L, add(load(c, o + L), c1))
        store(c, o + 2 * L, add(load(c, o + 2 * L), c2))
        store(c, o + 3 * L, add(load(c, o + 3 * L), c3))
        t += 4
    while t < T:
        z0 = first + t * step
        c0 = filled(z, 0)
        for s in range(n):
            a = fma(load(decay, base + s * L), load(x, s * L), spread(z, z0 + s))
            c0 = fma(load(weight, base + s * L), a, c0)
            store(x, s * L, a)
        store(c, t * L, add(load(c, t * L), c0))
        t += 1


@inlined
def block_current(
    z, first, step, weight, decay, base, trace, given, last, place, to_output, to_summed, adjoint,
    used, x, c, T, S,
):  # fmt: skip
    """All S features of one block of one sample: c [T, L] from zero, `last` from `trace` if
    `given`, both at [place + l to_output + s to_summed] for the first `used` lanes l.

    `adjoint`: `last` is w r times the trace, the gradient of an initial trace.
    """
    L = lanes(z)
    for t in range(T):
        store(c, t * L, filled(z, 0))
    for chunk in range(0, S, CHUNK):
        n = min(CHUNK, S - chunk)
        for s in range(n):
            store(x, s * L, filled(z, 0))
        if given:
            for l in range(used):
                for s in range(n):
                    x[s * L + l] = trace[place + l * to_output + (chunk + s) * to_summed]
        rows = base + chunk * L
        current_tile(z, first + chunk, step, weight, decay, rows, x, c, T, n)
        for l in range(used):
            for s in range(n):
                k = s * L + l
                value = x[k]
                if adjoint:
                    value *= weight[rows + k] * decay[rows + k]
                last[place + l * to_output + (chunk + s) * to_summed] = value


@kernel
def _current(begin, end, z, weight, decay, trace, given, last, adjoint, out, T, B, S, O):
    """Tasks (replica, sample, block): out [R, T, B, O]. Adjoint: backwards in time, traces [B, S,
    O]; else [B, O, S]."""
    L = lanes(z)
    blocks = (O + L - 1) // L
    x = np.empty(CHUNK * L, z.dtype)
    c = np.empty(T * L, z.dtype)
    to_output, to_summed = (1, O) if adjoint else (S, 1)
    for task in range(begin, end):
        b, block = divmod(task, blocks)
        replica, sample = divmod(b, B)
        used = min(L, O - block * L)
        t0, step = (T - 1, -1) if adjoint else (0, 1)
        first = (replica * T + t0) * B + sample
        block_current(
            z, first * S, step * B * S, weight, decay, (replica * blocks + block) * S * L,
            trace, given, last, b * S * O + block * L * to_output, to_output, to_summed, adjoint,
            used, x, c, T, S,
        )  # fmt: skip
        for t in range(T):
            place = (first + t * step * B) * O + block * L
            for l in range(used):
                out[place + l] = c[t * L + l]


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I] -> c [R, T, B, J], final trace [R, B, J, I]."""
    R, T, B, I = z.shape
    J = weight.shape[1]
    c = steps_like(z, J)
    last = torch.empty((R, B, J, I), dtype=z.dtype)
    matrices = packed(weight.mT), packed(decay.mT)
    run(
        _current, R * B * blocks_of(J, z), 2 * R * T * B * I * J,
        flat(z), *matrices, optional(trace, z), trace is not None, flat(last), False, flat(c),
        T, B, I, J,
    )  # fmt: skip
    return c, last


def synaptic_current_backward(
    g: Tensor, g_trace: Tensor | None, weight: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """g [R, T, B, J], g_trace [R, B, J, I] (of the final trace) -> dz [R, T, B, I], d_trace [R, B,
    J, I] (of the initial one)."""
    R, T, B, J = g.shape
    I = weight.shape[2]
    dz = steps_like(g, I)
    d_trace = torch.empty((R, B, J, I), dtype=g.dtype)
    run(
        _current, R * B * blocks_of(I, g), 2 * R * T * B * I * J,
        flat(g), packed(weight), packed(decay), optional(None, g), False, flat(d_trace), True,
        flat(dz), T, B, J, I,
    )  # fmt: skip
    if g_trace is not None:
        _add_carried(dz, d_trace, g_trace, decay)
    return dz, d_trace


def _add_carried(dz: Tensor, d_trace: Tensor, g_trace: Tensor, decay: Tensor) -> None:
    """What a gradient of the final trace adds: it decays on the way back, and no input joins it."""
    R, T, B, I = dz.shape
    J = decay.shape[1]
    steps = max(T - 1, 0)  # the last step has all of it
    earlier = torch.empty((R, steps, B, I), dtype=dz.dtype)
    carried = torch.empty_like(d_trace)
    run(
        _current, R * B * blocks_of(I, dz), 2 * R * T * B * I * J,
        flat(dz.new_zeros(R, steps, B, J)), packed(torch.ones_like(decay)), packed(decay),
        flat(g_trace), True, flat(carried), True, flat(earlier), steps, B, J, I,
    )  # fmt: skip
    if T:
        dz[:, -1] += g_trace.sum(2)
        dz[:, :-1] += earlier
    d_trace += carried if T else g_trace
