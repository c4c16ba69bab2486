"""The gradient of weights without decays: dw_ji = sum_bt du_j(t) s_i(t-1).

Neurons i in lanes. A task is PART neurons j and up to SHARED blocks of neurons i, over all samples.
SPAN steps of both are copied to where they lie together, and 4 sums of a block stay in registers
through them: 8 multiply-adds with 6 loads.

Order of a sum: all steps of a sample ascending make a partial sum, samples are added ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import blocks_of, flat
from .compiling import borrowing, kernel
from .rows import aligned, load_row, store_row
from .threads import run
from .vectors import add, fma, lanes, load, spread, store

PART = 64
SHARED = 4
SPAN = 32


@borrowing
def _add_products(sums, m, o, width, du, s, steps):
    """Adds du_j s of `steps` steps to 4 rows j of sums [PART, width], from row m on, one vector at
    o of each. du [SPAN, PART], s [SPAN, width]."""
    p = m * width + o
    a, b = load(sums, p), load(sums, p + width)
    c, d = load(sums, p + 2 * width), load(sums, p + 3 * width)
    for t in range(steps):
        v, q = load(s, t * width + o), t * PART + m
        a = fma(spread(du, q), v, a)
        b = fma(spread(du, q + 1), v, b)
        c = fma(spread(du, q + 2), v, c)
        d = fma(spread(du, q + 3), v, d)
    store(sums, p, a)
    store(sums, p + width, b)
    store(sums, p + 2 * width, c)
    store(sums, p + 3 * width, d)


@borrowing
def _add_span(sums, width, du, s, n, steps):
    """`_add_products` for rows up to n, the last ones filled up to 4, and all of `width`."""
    for o in range(0, width, lanes(s)):
        for m in range(0, n, 4):
            _add_products(sums, m, o, width, du, s, steps)


@kernel
def _weight_gradient(begin, end, d_drive, spikes, spike, dw, T, B, J, shared):
    """Tasks (replica, part of neurons j, `shared` blocks of neurons i)."""
    L = lanes(d_drive)
    parts = (J + PART - 1) // PART
    groups = (J + shared * L - 1) // (shared * L)
    du = aligned(SPAN * PART, d_drive)
    s = aligned(SPAN * shared * L, d_drive)
    of_sample = aligned(PART * shared * L, d_drive)
    total = aligned(PART * shared * L, d_drive)
    for task in range(begin, end):
        row, number = divmod(task, groups)
        replica, part = divmod(row, parts)
        first_j, first_i = part * PART, number * shared * L
        n = min(PART, J - first_j)
        width = min(shared * L, -(-(J - first_i) // L) * L)
        total[:] = 0
        for sample in range(B):
            b = replica * B + sample
            of_sample[:] = 0
            for t0 in range(0, T, SPAN):
                steps = min(SPAN, T - t0)
                for t in range(t0, t0 + steps):
                    place = ((replica * T + t) * B + sample) * J
                    for o in range(0, n, L):
                        j = first_j + o
                        vector = load_row(d_drive, place + j, min(L, J - j))
                        store(du, (t - t0) * PART + o, vector)
                    for o in range(0, width, L):
                        i = first_i + o
                        if t > 0:
                            vector = load_row(spikes, place - B * J + i, min(L, J - i))
                        else:
                            vector = load_row(spike, b * J + i, min(L, J - i))
                        store(s, (t - t0) * width + o, vector)
                _add_span(of_sample, width, du, s, n, steps)
            for o in range(0, n * width, L):
                store(total, o, add(load(total, o), load(of_sample, o)))
        for j in range(n):
            for o in range(0, width, L):
                place = (replica * J + first_j + j) * J + first_i + o
                vector = load(total, j * width + o)
                store_row(dw, place, min(L, J - first_i - o), vector)


def weight_gradient(du: Tensor, spikes: Tensor, spike: Tensor) -> Tensor:
    """du and spikes [R, T, B, J], spike s(0) [R, B, J] -> dw [R, J, J]."""
    R, T, B, J = du.shape
    dw = torch.empty((R, J, J), dtype=du.dtype)
    parts, blocks = -(-J // PART), blocks_of(J, du)
    # Blocks that share what they read, but not so many that threads are left without work.
    shared = max(1, min(SHARED, R * parts * blocks // torch.get_num_threads()))
    run(
        _weight_gradient, R * parts * -(-blocks // shared), R * T * B * J * J,
        flat(du), flat(spikes), flat(spike), flat(dw), T, B, J, shared,
    )  # fmt: skip
    return dw
