"""The gradients of weights and decays, in one forward sweep without stored traces.

    y_ji(t) = r_ji y_ji(t-1) + x_ji(t-1),   x_ji(t) = r_ji x_ji(t-1) + z_i(t),   y_ji(0) = 0
    dw_ji = sum_bt g_j(t) x_ji(t),   dr_ji = w_ji sum_bt g_j(t) y_ji(t) + sum_b g_trace_ji y_ji(T)

Lanes along inputs or along neurons, whichever fills its blocks better: the numbers are the same.
The other feature is called `other`. 4 fused multiply-adds per synapse, sample and step; a synapse's
x, y and both sums stay in registers for SPAN steps, with one vector load and one broadcast a step.
With AVX-512's registers four vectors go together: one alone waits for itself.

A task is some blocks of lanes and up to OTHERS others, over all samples. Order of a sum: all steps
of a sample ascending make a partial sum, samples are added ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import blocks_of, flat, optional, packed
from .compiling import borrowing, inlined, kernel
from .rows import aligned, load_row
from .threads import grouped, run
from .vectors import WIDE, add, filled, fma, lanes, load, spread, store

SPAN = 128
"""Steps that are copied at once: a block of lanes and one of others lie in the first cache."""
OTHERS = 64


@borrowing
def _copy_steps(source, first, step, count, tiles, T):
    """source[first + t step + n], n < count -> [block, SPAN, L] of tiles, zeros in lanes from
    `count` on. Row by row: what lies together is read together."""
    L = lanes(source)
    for t in range(T):
        for n in range(0, count, L):
            row = load_row(source, first + t * step + n, min(L, count - n))
            store(tiles, n * SPAN + t * L, row)


@inlined
def _sweep(along, place, other, lane, r, states, state, T, along_inputs):
    """A vector of synapses through T steps: the feature in lanes [T, L] at `place` of `along`, the
    other one `lane` of `other` [T, L]; at `state` of `states` [4, L]: x, y, sums of g x and g y."""
    L = lanes(along)
    x, y = load(states, state), load(states, state + L)
    dw, dr = load(states, state + 2 * L), load(states, state + 3 * L)
    if along_inputs:
        for t in range(T):
            g = spread(other, t * L + lane)
            y = fma(r, y, x)
            x = fma(r, x, load(along, place + t * L))
            dr = fma(g, y, dr)
            dw = fma(g, x, dw)
    else:
        for t in range(T):
            g = load(along, place + t * L)
            y = fma(r, y, x)
            x = fma(r, x, spread(other, t * L + lane))
            dr = fma(g, y, dr)
            dw = fma(g, x, dw)
    store(states, state, x)
    store(states, state + L, y)
    store(states, state + 2 * L, dw)
    store(states, state + 3 * L, dr)


@inlined
def _sweep_four(along, place, other, lane, decay, rows, states, state, T, along_inputs):
    """`_sweep` of `lane` and the next three, whose decays at `rows` and states follow each other:
    four chains of operations that do not wait for each other. Needs more registers than AVX2
    has."""
    L = lanes(along)
    r0, r1 = load(decay, rows), load(decay, rows + L)
    r2, r3 = load(decay, rows + 2 * L), load(decay, rows + 3 * L)
    x0, y0 = load(states, state), load(states, state + L)
    x1, y1 = load(states, state + 4 * L), load(states, state + 5 * L)
    x2, y2 = load(states, state + 8 * L), load(states, state + 9 * L)
    x3, y3 = load(states, state + 12 * L), load(states, state + 13 * L)
    dw0, dr0 = load(states, state + 2 * L), load(states, state + 3 * L)
    dw1, dr1 = load(states, state + 6 * L), load(states, state + 7 * L)
    dw2, dr2 = load(states, state + 10 * L), load(states, state + 11 * L)
    dw3, dr3 = load(states, state + 14 * L), load(states, state + 15 * L)
    for t in range(T):
        a, p = load(along, place + t * L), t * L + lane
        b0, b1 = spread(other, p), spread(other, p + 1)
        b2, b3 = spread(other, p + 2), spread(other, p + 3)
        y0, y1, y2, y3 = fma(r0, y0, x0), fma(r1, y1, x1), fma(r2, y2, x2), fma(r3, y3, x3)
        if along_inputs:
            x0, x1, x2, x3 = fma(r0, x0, a), fma(r1, x1, a), fma(r2, x2, a), fma(r3, x3, a)
            dr0, dr1 = fma(b0, y0, dr0), fma(b1, y1, dr1)
            dr2, dr3 = fma(b2, y2, dr2), fma(b3, y3, dr3)
            dw0, dw1 = fma(b0, x0, dw0), fma(b1, x1, dw1)
            dw2, dw3 = fma(b2, x2, dw2), fma(b3, x3, dw3)
        else:
            x0, x1, x2, x3 = fma(r0, x0, b0), fma(r1, x1, b1), fma(r2, x2, b2), fma(r3, x3, b3)
            dr0, dr1, dr2, dr3 = fma(a, y0, dr0), fma(a, y1, dr1), fma(a, y2, dr2), fma(a, y3, dr3)
            dw0, dw1, dw2, dw3 = fma(a, x0, dw0), fma(a, x1, dw1), fma(a, x2, dw2), fma(a, x3, dw3)
    store(states, state, x0)
    store(states, state + L, y0)
    store(states, state + 2 * L, dw0)
    store(states, state + 3 * L, dr0)
    store(states, state + 4 * L, x1)
    store(states, state + 5 * L, y1)
    store(states, state + 6 * L, dw1)
    store(states, state + 7 * L, dr1)
    store(states, state + 8 * L, x2)
    store(states, state + 9 * L, y2)
    store(states, state + 10 * L, dw2)
    store(states, state + 11 * L, dr2)
    store(states, state + 12 * L, x3)
    store(states, state + 13 * L, y3)
    store(states, state + 14 * L, dw3)
    store(states, state + 15 * L, dr3)


@kernel
def _gradient(
    begin, end, z, g, g_trace, has_g_trace, weight, decay, trace, has_trace, d_weight, d_decay, T,
    B, I, J, group, along_inputs,
):  # fmt: skip
    """Tasks (replica, `group` blocks of lanes, part of others). decay [R, blocks, others, L], the
    other matrices and their gradients [R, J, I]."""
    L = lanes(z)
    N, M = (I, J) if along_inputs else (J, I)  # lanes, others
    to_lane, to_other = (1, I) if along_inputs else (I, 1)  # in [J, I]
    blocks, parts = (N + L - 1) // L, (M + OTHERS - 1) // OTHERS
    groups = (blocks + group - 1) // group
    steps_of_lanes, steps_of_others = (z, g) if along_inputs else (g, z)
    lane_tiles = aligned(group * SPAN * L, z)
    other_tiles = aligned(OTHERS * SPAN, z)
    states = aligned(group * OTHERS * 4 * L, z)
    sums = aligned(group * OTHERS * 3 * L, z)  # of g x, g y and g_trace y
    for task in range(begin, end):
        row, part = divmod(task, parts)
        replica, first_block = row // groups, row % groups * group
        here = min(group, blocks - first_block)
        first = part * OTHERS
        n = min(OTHERS, M - first)
        for k in range(here * OTHERS * 3 * L):
            sums[k] = 0
        for b in range(B):
            corner = (replica * B + b) * I * J + first * to_other
            for h in range(here):
                for k in range(h * OTHERS * 4 * L, (h * OTHERS + n) * 4 * L, L):
                    store(states, k, filled(states, 0))
            if has_trace:
                for h in range(here):
                    lane = (first_block + h) * L
                    for m in range(n):
                        for l in range(min(L, N - lane)):
                            place = corner + (lane + l) * to_lane + m * to_other
                            states[(h * OTHERS + m) * 4 * L + l] = trace[place]
            for t0 in range(0, T, SPAN):
                steps = min(SPAN, T - t0)
                at = (replica * T + t0) * B + b
                lane = first_block * L
                _copy_steps(
                    steps_of_lanes, at * N + lane, B * N, min(here * L, N - lane),
                    lane_tiles, steps,
                )  # fmt: skip
                _copy_steps(steps_of_others, at * M + first, B * M, n, other_tiles, steps)
                for m0 in range(0, n, L):
                    end = min(m0 + L, n)
                    other = m0 * SPAN - m0  # of the tile, whose first lane is m0
                    for h in range(here):
                        out = ((replica * blocks + first_block + h) * M + first) * L
                        alone = m0 + (end - m0) // 4 * 4 if WIDE else m0
                        for m in range(m0, alone, 4):
                            _sweep_four(
                                lane_tiles, h * SPAN * L, other_tiles, other + m, decay,
                                out + m * L, states, (h * OTHERS + m) * 4 * L, steps, along_inputs,
                            )  # fmt: skip
                        for m in range(alone, end):
                            _sweep(
                                lane_tiles, h * SPAN * L, other_tiles, other + m,
                                load(decay, out + m * L), states, (h * OTHERS + m) * 4 * L, steps,
                                along_inputs,
                            )  # fmt: skip
            for h in range(here):
                lane = (first_block + h) * L
                for m in range(n):
                    k, s = (h * OTHERS + m) * 3 * L, (h * OTHERS + m) * 4 * L
                    store(sums, k, add(load(sums, k), load(states, s + 2 * L)))
                    store(sums, k + L, add(load(sums, k + L), load(states, s + 3 * L)))
                    if has_g_trace:
                        for l in range(min(L, N - lane)):
                            place = corner + (lane + l) * to_lane + m * to_other
                            sums[k + 2 * L + l] += g_trace[place] * states[s + L + l]
        for h in range(here):
            lane = (first_block + h) * L
            for m in range(n):
                k = (h * OTHERS + m) * 3 * L
                for l in range(min(L, N - lane)):
                    place = replica * I * J + (lane + l) * to_lane + (first + m) * to_other
                    d_weight[place] = sums[k + l]
                    d_decay[place] = weight[place] * sums[k + L + l] + sums[k + 2 * L + l]


def synaptic_parameter_gradient(
    z: Tensor,
    g: Tensor,
    g_trace: Tensor | None,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], g [R, T, B, J], g_trace and initial trace [R, B, J, I] -> dw, dr [R, J,
    I]."""
    R, T, B, I = z.shape
    J = weight.shape[1]
    # The work is that of all blocks filled up.
    along_inputs = blocks_of(I, z) * J <= blocks_of(J, z) * I
    N, M = (I, J) if along_inputs else (J, I)
    parts, blocks = -(-M // OTHERS), blocks_of(N, z)
    group, tasks = grouped(R * parts, blocks)
    dw = torch.empty((R, J, I), dtype=z.dtype)
    dr = torch.empty((R, J, I), dtype=z.dtype)
    run(
        _gradient, tasks, 4 * R * T * B * I * J,
        flat(z), flat(g), optional(g_trace, z), g_trace is not None, flat(weight),
        packed(decay if along_inputs else decay.mT), optional(trace, z), trace is not None,
        flat(dw), flat(dr), T, B, I, J, group, along_inputs,
    )  # fmt: skip
    return dw, dr
