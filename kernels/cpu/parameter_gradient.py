"""The gradients of weights and decays, in one forward sweep without stored traces.

    y_ji(t) = r_ji y_ji(t-1) + x_ji(t-1),   x_ji(t) = r_ji x_ji(t-1) + z_i(t),   y_ji(0) = 0
    dw_ji = sum_bt g_j(t) x_ji(t),   dr_ji = w_ji sum_bt g_j(t) y_ji(t) + sum_b g_trace_ji y_ji(T)

Lanes along inputs or along neurons, whichever fills its blocks better: the numbers are the same.
The other feature is called `other`. 4 fused multiply-adds per synapse, sample and step; a synapse's
x, y and both sums stay in registers for SPAN steps, with one vector load and one broadcast a step.
With AVX-512's registers two vectors go together: one alone waits for itself a third of the time.

A task is a block of lanes and up to OTHERS others, over all samples. Order of a sum: all steps of a
sample ascending make a partial sum, samples are added ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import blocks_of, flat, optional, packed
from .compiling import borrowing, inlined, kernel
from .rows import aligned, load_row
from .threads import grouped, run
from .vectors import WIDE, add, fma, lanes, load, spread, store

SPAN = 128
"""Steps whose inputs and gradients, a block of each, lie in the first cache together."""
OTHERS = 64


@borrowing
def _copy_steps(source, first, step, used, room, tile, place, T):
    """source[first + t step + l], l < used -> [T, L] at `place` of tile, zeros in lanes from `used`
    on."""
    L = lanes(source)
    for t in range(T):
        store(tile, place + t * L, load_row(source, first + t * step, used, room))


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
def _sweep_two(along, place, other, lane, r0, r1, states, state, T, along_inputs):
    """`_sweep` of `lane` and the next one, whose state is the next: two chains of operations that
    do not wait for each other. Needs more registers than AVX2 has."""
    L = lanes(along)
    second = state + 4 * L
    x0, y0 = load(states, state), load(states, state + L)
    x1, y1 = load(states, second), load(states, second + L)
    dw0, dr0 = load(states, state + 2 * L), load(states, state + 3 * L)
    dw1, dr1 = load(states, second + 2 * L), load(states, second + 3 * L)
    if along_inputs:
        for t in range(T):
            z = load(along, place + t * L)
            g0, g1 = spread(other, t * L + lane), spread(other, t * L + lane + 1)
            y0, y1 = fma(r0, y0, x0), fma(r1, y1, x1)
            x0, x1 = fma(r0, x0, z), fma(r1, x1, z)
            dr0, dr1 = fma(g0, y0, dr0), fma(g1, y1, dr1)
            dw0, dw1 = fma(g0, x0, dw0), fma(g1, x1, dw1)
    else:
        for t in range(T):
            g = load(along, place + t * L)
            y0, y1 = fma(r0, y0, x0), fma(r1, y1, x1)
            x0 = fma(r0, x0, spread(other, t * L + lane))
            x1 = fma(r1, x1, spread(other, t * L + lane + 1))
            dr0, dr1 = fma(g, y0, dr0), fma(g, y1, dr1)
            dw0, dw1 = fma(g, x0, dw0), fma(g, x1, dw1)
    store(states, state, x0)
    store(states, state + L, y0)
    store(states, state + 2 * L, dw0)
    store(states, state + 3 * L, dr0)
    store(states, second, x1)
    store(states, second + L, y1)
    store(states, second + 2 * L, dw1)
    store(states, second + 3 * L, dr1)


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
    room = aligned(L, z)
    lane_tiles = aligned(group * SPAN * L, z)
    other_tile = aligned(SPAN * L, z)
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
            for k in range(here * OTHERS * 4 * L):
                states[k] = 0
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
                for h in range(here):
                    lane = (first_block + h) * L
                    _copy_steps(
                        steps_of_lanes, at * N + lane, B * N, min(L, N - lane), room,
                        lane_tiles, h * SPAN * L, steps,
                    )  # fmt: skip
                for m0 in range(0, n, L):
                    width = min(L, n - m0)
                    _copy_steps(
                        steps_of_others,
                        at * M + first + m0,
                        B * M,
                        width,
                        room,
                        other_tile,
                        0,
                        steps,
                    )
                    for h in range(here):
                        out = ((replica * blocks + first_block + h) * M + first) * L
                        pairs = width // 2 * 2 if WIDE else 0
                        for m in range(m0, m0 + pairs, 2):
                            _sweep_two(
                                lane_tiles, h * SPAN * L, other_tile, m - m0,
                                load(decay, out + m * L), load(decay, out + (m + 1) * L), states,
                                (h * OTHERS + m) * 4 * L, steps, along_inputs,
                            )  # fmt: skip
                        for m in range(m0 + pairs, m0 + width):
                            _sweep(
                                lane_tiles, h * SPAN * L, other_tile, m - m0,
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
    dw, dr = (torch.empty((R, J, I), dtype=z.dtype) for _ in range(2))
    run(
        _gradient, tasks, 4 * R * T * B * I * J,
        flat(z), flat(g), optional(g_trace, z), g_trace is not None, flat(weight),
        packed(decay if along_inputs else decay.mT), optional(trace, z), trace is not None,
        flat(dw), flat(dr), T, B, I, J, group, along_inputs,
    )  # fmt: skip
    return dw, dr
