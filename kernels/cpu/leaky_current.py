"""The leaky current, one decay per neuron, and its gradients.

    c_j(t) = rho_j c_j(t-1) + u_j(t)
    du(t) = g(t) + rho du(t+1),   drho = sum_bt du(t) c(t-1),   dc(0) = rho du(1)

A task is up to SPAN blocks of one sample, step by step: rows that lie together are read together.
Order of the sum for drho: all steps of a sample descending, then samples ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .lib.arrays import blocks_of, flat, padded
from .lib.compiling import kernel
from .lib.rows import SPAN, aligned, load_row, prefetch_row, store_row
from .lib.sums import sum_in_order
from .lib.threads import run
from .lib.vectors import fma, lanes, load, mul, store


@kernel
def _current(begin, end, drive, decay, current, result, T, B, J):
    """Tasks (replica, sample, span)."""
    L = lanes(drive)
    blocks = (J + L - 1) // L
    spans = (blocks + SPAN - 1) // SPAN
    state = aligned(SPAN * L, drive)
    for task in range(begin, end):
        b, span = divmod(task, spans)
        replica, sample = divmod(b, B)
        first = span * SPAN
        last = min(first + SPAN, blocks)
        count = (last - first) * L
        for block in range(first, last):
            used = min(L, J - block * L)
            c = load_row(current, b * J + block * L, used)
            store(state, (block - first) * L, c)
        for t in range(T):
            row = ((replica * T + t) * B + sample) * J
            after = row + first * L + B * J
            prefetch_row(drive, after, count)
            prefetch_row(result, after, count)
            for block in range(first, last):
                place, used = row + block * L, min(L, J - block * L)
                own, r = (block - first) * L, load(decay, (replica * blocks + block) * L)
                c = fma(r, load(state, own), load_row(drive, place, used))
                store(state, own, c)
                store_row(result, place, used, c)


@kernel
def _reverse(begin, end, g, result, decay, current, d_drive, d_decay, d_current, T, B, J):
    """Tasks (replica, sample, span). d_decay [R, B, J], of each sample alone."""
    L = lanes(g)
    blocks = (J + L - 1) // L
    spans = (blocks + SPAN - 1) // SPAN
    after = aligned(SPAN * L, g)  # du(t+1)
    to_decay = aligned(SPAN * L, g)
    for task in range(begin, end):
        b, span = divmod(task, spans)
        replica, sample = divmod(b, B)
        first = span * SPAN
        last = min(first + SPAN, blocks)
        count = (last - first) * L
        after[:] = to_decay[:] = 0
        for t in range(T - 1, -1, -1):
            row = ((replica * T + t) * B + sample) * J
            before = row + first * L - B * J
            prefetch_row(g, before, count)
            prefetch_row(result, before - B * J, count)
            prefetch_row(d_drive, before, count)
            for block in range(first, last):
                place, used = row + block * L, min(L, J - block * L)
                own, r = (block - first) * L, load(decay, (replica * blocks + block) * L)
                du = fma(r, load(after, own), load_row(g, place, used))
                if t > 0:
                    c = load_row(result, place - B * J, used)
                else:
                    c = load_row(current, b * J + block * L, used)
                store(to_decay, own, fma(du, c, load(to_decay, own)))
                store(after, own, du)
                store_row(d_drive, place, used, du)
        for block in range(first, last):
            place, used, own = b * J + block * L, min(L, J - block * L), (block - first) * L
            r = load(decay, (replica * blocks + block) * L)
            store_row(d_current, place, used, mul(r, load(after, own)))
            store_row(d_decay, place, used, load(to_decay, own))


def leaky_current(drive: Tensor, decay: Tensor, current: Tensor) -> Tensor:
    """drive [R, T, B, J], decay [R, J], current [R, B, J] -> c [R, T, B, J]."""
    R, T, B, J = drive.shape
    result = torch.empty(drive.shape, dtype=drive.dtype)
    run(
        _current, R * B * -(-blocks_of(J, drive) // SPAN), 8 * R * T * B * J,
        flat(drive), padded(decay), flat(current), flat(result), T, B, J,
    )  # fmt: skip
    return result


def leaky_current_backward(
    g: Tensor, currents: Tensor, decay: Tensor, current: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """g and c [R, T, B, J] -> d_drive [R, T, B, J], d_decay [R, J], d_current [R, B, J]."""
    R, T, B, J = g.shape
    d_drive = torch.empty(g.shape, dtype=g.dtype)
    d_decay = torch.empty(current.shape, dtype=g.dtype)
    d_current = torch.empty(current.shape, dtype=g.dtype)
    run(
        _reverse, R * B * -(-blocks_of(J, g) // SPAN), 8 * R * T * B * J,
        flat(g), flat(currents), padded(decay), flat(current), flat(d_drive), flat(d_decay),
        flat(d_current), T, B, J,
    )  # fmt: skip
    return d_drive, sum_in_order(d_decay), d_current
