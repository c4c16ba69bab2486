"""The synaptic current of all neurons, forward in time and, transposed, backward (dL/dz).

    x_os(t) = r_os x_os(t-1) + z_s(t),   c_o(t) = sum_s w_os x_os(t)

Summed features s (inputs; backward: neurons), outputs o (neurons; backward: inputs) in lanes.
Backward, with lambda for x, g for z and time reversed: dz_i(t) = sum_j w_ji lambda_ji(t).

A task is some blocks of outputs of one sample. It goes over CHUNK summed features at a time,
whose steps are copied together once; traces, weights and decays of a chunk and of one block, or
where there are AVX-512's registers of two, stay in the first cache through the whole sequence, and
several steps are one pass (`lib/passes.py`). 2 fused multiply-adds per synapse, sample and step.

A chunk that is silent up to some step, its initial traces zero, begins there: before, all it adds
is 0 (for finite weights). Order of a sum: CHUNK features ascending make a partial sum, partial sums
are added ascending.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .lib.arrays import array, blocks_of, flat, optional, packed, steps_like
from .lib.compiling import inlined, kernel
from .lib.parameter_gradient import synaptic_parameter_gradient as synaptic_parameter_gradient
from .lib.passes import passes
from .lib.rows import AHEAD, aligned, prefetch_row, store_row
from .lib.sums import sum_in_order
from .lib.threads import grouped, run
from .lib.vectors import WIDE, filled, lanes, load, mul, store, transpose

CHUNK = 64


@inlined
def _copy_chunk(z, first, step, n, tile, T):
    """z[first + t step + s], s < n -> tile [T, n]; returns the first step that is not all zero."""
    L = lanes(z)
    whole = n - n % L
    begin = T
    for t in range(T):
        source, target = first + t * step, t * n
        prefetch_row(z, source + AHEAD * step, n)
        for s in range(0, whole, L):
            store(tile, target + s, load(z, source + s))
        for s in range(whole, n):
            tile[target + s] = z[source + s]
        if begin == T:
            for s in range(n):
                if tile[target + s] != 0:
                    begin = t
                    break
    return begin


_one_four, _one_one = passes(1, 4), passes(1, 1)
_two_eight, _two_four, _two_one = passes(2, 8), passes(2, 4), passes(2, 1)


@inlined
def _current_tiles(two, z, weight, decay, rows, apart, x, c, place, begin, T, n):
    """Steps [begin, T) of a chunk, of one block or `two`: z [T, n], traces x [block, CHUNK, L] go
    on, c [block, T, L] at `place` grows.

    `rows` is where the chunk's rows of `weight` and `decay` begin, of the next block `apart`
    behind.
    """
    L = lanes(z)
    given = z, weight, decay, rows, apart, x, CHUNK * L, c, place, T * L
    if WIDE and two:
        t = _two_eight(*given, begin, T, n)
        t = _two_four(*given, t, T, n)
        _two_one(*given, t, T, n)
    else:
        t = _one_four(*given, begin, T, n)
        _one_one(*given, t, T, n)


@inlined
def _prefetch_traces(last, corner, to_output, to_summed, used, n):
    """Prefetch what `_store_traces` will write once and nobody reads soon."""
    if to_output == 1:
        for s in range(n):
            prefetch_row(last, corner + s * to_summed, used)
    else:
        for l in range(used):
            prefetch_row(last, corner + l * to_output, n)


@inlined
def _store_traces(x, last, corner, to_output, to_summed, used, n, square):
    """x [n, L], of `used` lanes, to `last`; `square` holds CHUNK vectors."""
    L = lanes(x)
    if to_output == 1:
        for s in range(n):
            store_row(last, corner + s * to_summed, used, load(x, s * L))
        return
    for s in range(0, n, L):
        transpose(x, s * L, square[s * L :])
    for l in range(used):
        for s in range(0, n, L):
            place = corner + l * to_output + s
            store_row(last, place, min(L, n - s), load(square, (s + l) * L))


@inlined
def currents(
    z, first, step, weight, decay, trace, given, last, adjoint, c, x, square, tile, b, replica,
    block, here, T, S, O,
):  # fmt: skip
    """c [here, T, L] of `here` blocks of sample b (of R B), and `last` from `trace` if `given`.

    Step t of the sample is z[first + t step :]. Traces are [B, O, S]; adjoint: [B, S, O], and
    `last` is w r times the trace, the gradient of an initial one.
    """
    L = lanes(z)
    blocks = (O + L - 1) // L
    to_output, to_summed = (1, O) if adjoint else (S, 1)
    for k in range(here * T):
        store(c, k * L, filled(z, 0))
    for chunk in range(0, S, CHUNK):
        n = min(CHUNK, S - chunk)
        begin = _copy_chunk(z, first + chunk, step, n, tile, T)
        if given:
            begin = 0
        h = 0
        while h < here:
            two = WIDE and h + 1 < here
            rows = ((replica * blocks + block + h) * S + chunk) * L
            corner = b * S * O + (block + h) * L * to_output + chunk * to_summed
            together = 2 if two else 1
            for s in range(0, CHUNK * together * L, L):
                store(x, s, filled(z, 0))
            if given:
                for k in range(together):
                    for l in range(min(L, O - (block + h + k) * L)):
                        for s in range(n):
                            place = corner + (k * L + l) * to_output + s * to_summed
                            x[(k * CHUNK + s) * L + l] = trace[place]
            for k in range(together):
                used = min(L, O - (block + h + k) * L)
                _prefetch_traces(last, corner + k * L * to_output, to_output, to_summed, used, n)
            _current_tiles(two, tile, weight, decay, rows, S * L, x, c, h * T * L, begin, T, n)
            for k in range(together):
                mine = x[k * CHUNK * L :]
                if adjoint:
                    for s in range(n):
                        p = rows + (k * S + s) * L
                        wr = mul(load(weight, p), load(decay, p))
                        store(mine, s * L, mul(wr, load(mine, s * L)))
                used = min(L, O - (block + h + k) * L)
                _store_traces(
                    mine, last, corner + k * L * to_output, to_output, to_summed, used, n, square
                )
            h += together


@kernel
def _current(begin, end, z, weight, decay, trace, given, last, adjoint, out, T, B, S, O, group):
    """Tasks (replica, sample, `group` blocks): out [R, T, B, O]. Adjoint: backwards in time."""
    L = lanes(z)
    blocks = (O + L - 1) // L
    groups = (blocks + group - 1) // group
    x = aligned(2 * CHUNK * L, z)
    square = aligned(CHUNK * L, z)
    tile = aligned(CHUNK * T, z)
    c = aligned(group * T * L, z)
    for task in range(begin, end):
        b, block = task // groups, task % groups * group
        replica, sample = divmod(b, B)
        here = min(group, blocks - block)
        t0, step = (T - 1, -1) if adjoint else (0, 1)
        row = (replica * T + t0) * B + sample
        currents(
            z, row * S, step * B * S, weight, decay, trace, given, last, adjoint, c, x, square,
            tile, b, replica, block, here, T, S, O,
        )  # fmt: skip
        for t in range(T):  # row by row: what lies together is written together
            place = (row + t * step * B) * O
            prefetch_row(out, place + block * L + AHEAD * step * B * O, here * L)
            for h in range(here):
                lane = (block + h) * L
                store_row(out, place + lane, min(L, O - lane), load(c, (h * T + t) * L))


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I] -> c [R, T, B, J], final trace [R, B, J, I]."""
    R, T, B, I = z.shape
    J = weight.shape[1]
    c = steps_like(z, J)
    last = torch.empty((R, B, J, I), dtype=z.dtype)
    matrices = packed(weight.mT), packed(decay.mT)
    group, tasks = grouped(R * B, blocks_of(J, z))
    run(
        _current, tasks, 2 * R * T * B * I * J,
        flat(z), *matrices, optional(trace, z), trace is not None, flat(last), False, flat(c),
        T, B, I, J, group,
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
    group, tasks = grouped(R * B, blocks_of(I, g))
    run(
        _current, tasks, 2 * R * T * B * I * J,
        flat(g), packed(weight), packed(decay), optional(None, g), False, flat(d_trace), True,
        flat(dz), T, B, J, I, group,
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
    group, tasks = grouped(R * B, blocks_of(I, dz))
    nothing = np.zeros(R * steps * B * J, flat(dz).dtype)
    ones = torch.from_numpy(np.ones(tuple(decay.shape), nothing.dtype))
    run(
        _current, tasks, 2 * R * T * B * I * J,
        nothing, packed(ones), packed(decay), flat(g_trace), True, flat(carried), True,
        flat(earlier), steps, B, J, I, group,
    )  # fmt: skip
    to_dz, to_trace = array(dz), array(d_trace)  # added by this thread
    if T:
        of_last = torch.from_numpy(flat(g_trace)).view(R * B, J, I)
        to_dz[:, -1] += array(sum_in_order(of_last).view(R, B, I))
        to_dz[:, :-1] += array(earlier)
    to_trace += array(carried if T else g_trace)
