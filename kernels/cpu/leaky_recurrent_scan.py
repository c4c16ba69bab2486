"""A recurrent layer with one decay per neuron, and its reverse.

    c_j(t) = rho_j c_j(t-1) + u_j(t) + sum_i w_ji s_i(t-1)

then threshold and feedback currents as in `lib/neurons.py`. In reverse, with g = dL/dV:

    du(t) = g(t) + g_c(t) + rho du(t+1),   d_s_i(t-1) += sum_j du_j(t) w_ji
    drho = sum_bt du(t) c(t-1),   dc(0) = rho du(1)

and the weights' gradient as in `lib/weight_gradient.py`.

A task of the scan is a sample, all of its neurons in lanes. Few neurons spike in one step: rows of
weights are added for those alone. What is left out is exactly 0 times a weight, so for finite
weights nothing changes. A task of the reverse is a group of up to 4 samples, for which a vector of
weights is loaded once.

Order of a sum: over neurons ascending, from what is given on; for drho all steps of a sample
descending, then samples ascending.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .lib.arrays import flat, optional, packed, padded
from .lib.compiling import borrowing, kernel
from .lib.neurons import load_feedback, load_neurons, next_feedback, store_feedback
from .lib.neurons_reverse import feedback_gradients, prefetch_step, reverse_step
from .lib.rows import aligned, load_row, prefetch_row, store_row
from .lib.sums import sum_in_order
from .lib.threads import run
from .lib.vectors import above, add, fma, lanes, load, mul, spread, store, sub
from .lib.weight_gradient import weight_gradient
from .recurrent_scan import group, group_size, groups_of


@borrowing
def _nonzero(values, count, found):
    """Which of the first `count` values are not 0, ascending in `found`; returns how many."""
    n = 0
    for i in range(count):
        found[n] = i
        n += 1 if values[i] != 0 else 0
    return n


@borrowing
def _add_rows(total, first, W, weight, rows, to_row, to_block, factors, chosen, n):
    """total [W] += sum of factors[i] times row i of `weight` over the n chosen i; total and factors
    at `first`, the rows' vectors at rows + i to_row + block to_block."""
    L = lanes(total)
    o, q = first, rows
    while o + 4 * L <= first + W:
        a, b = load(total, o), load(total, o + L)
        c, d = load(total, o + 2 * L), load(total, o + 3 * L)
        for m in range(n):
            i = chosen[m]
            factor, p = spread(factors, first + i), q + i * to_row
            a = fma(factor, load(weight, p), a)
            b = fma(factor, load(weight, p + to_block), b)
            c = fma(factor, load(weight, p + 2 * to_block), c)
            d = fma(factor, load(weight, p + 3 * to_block), d)
        store(total, o, a)
        store(total, o + L, b)
        store(total, o + 2 * L, c)
        store(total, o + 3 * L, d)
        o += 4 * L
        q += 4 * to_block
    while o < first + W:
        a = load(total, o)
        for m in range(n):
            i = chosen[m]
            a = fma(spread(factors, first + i), load(weight, q + i * to_row), a)
        store(total, o, a)
        o += L
        q += to_block


@borrowing
def _send_back(s, W, weight, rows, du, every, J, n):
    """s [n, W] += du [n, W] @ weight, that lies in [blocks, J, L] at `rows`."""
    L = lanes(s)
    if n < 4:
        for k in range(n):
            _add_rows(s, k * W, W, weight, rows, L, J * L, du, every, J)
        return
    for o in range(0, W, L):
        a, b = load(s, o), load(s, W + o)
        c, d = load(s, 2 * W + o), load(s, 3 * W + o)
        for j in range(J):
            w = load(weight, rows + o * J + j * L)
            a = fma(spread(du, j), w, a)
            b = fma(spread(du, W + j), w, b)
            c = fma(spread(du, 2 * W + j), w, c)
            d = fma(spread(du, 3 * W + j), w, d)
        store(s, o, a)
        store(s, W + o, b)
        store(s, 2 * W + o, c)
        store(s, 3 * W + o, d)


@borrowing
def _fire(
    drive, rho, theta, decay, strength, c, f, s, replica, row, spikes, potential, currents, J, K,
):  # fmt: skip
    """One step of a sample: `drive` [W] has all that joins c; outputs at `row`."""
    L = lanes(c)
    blocks = (J + L - 1) // L
    W = blocks * L
    for block in range(blocks):
        o, used = block * L, min(L, J - block * L)
        p = replica * W + o
        c_t = fma(load(rho, p), load(c, o), load(drive, o))
        first = replica * K * W + o
        v = sub(c_t, next_feedback(f[o * K :], load(s, o), decay, strength, first, W, K))
        fired = above(v, load(theta, p))
        store(c, o, c_t)
        store(s, o, fired)
        store_row(currents, row + o, used, c_t)
        store_row(potential, row + o, used, v)
        store_row(spikes, row + o, used, fired)


@kernel
def _scan(
    begin, end, drive, weight, rho, current, theta, decay, strength, feedback, spike, spikes,
    potential, last_feedback, currents, T, B, J, K,
):  # fmt: skip
    """Tasks (replica, sample). weight [R, i, W], with zeros where there is no neuron j."""
    L = lanes(drive)
    blocks = (J + L - 1) // L
    W = blocks * L
    u = aligned(W, drive)
    c = aligned(W, drive)
    s = aligned(W, drive)
    f = aligned(W * K, drive)
    chosen = np.empty(J + 1, np.int64)
    for b in range(begin, end):
        replica, sample = divmod(b, B)
        for block in range(blocks):
            o, used = block * L, min(L, J - block * L)
            load_neurons(feedback, spike, f[o * K :], s[o:], b, block, B, J, K)
            store(c, o, load_row(current, b * J + o, used))
        for t in range(T):
            row = ((replica * T + t) * B + sample) * J
            prefetch_row(drive, row + B * J, J)
            prefetch_row(currents, row + B * J, J)
            prefetch_row(potential, row + B * J, J)
            prefetch_row(spikes, row + B * J, J)
            for o in range(0, W, L):
                store(u, o, load_row(drive, row + o, min(L, J - o)))
            n = _nonzero(s, J, chosen)
            _add_rows(u, 0, W, weight, replica * J * W, W, L, s, chosen, n)
            _fire(
                u, rho, theta, decay, strength, c, f, s, replica, row, spikes, potential, currents,
                J, K,
            )  # fmt: skip
        for block in range(blocks):
            store_feedback(f[block * K * L :], last_feedback, b, block, B, J, K)


@borrowing
def _reverse_row(
    g_spikes, has_g_spikes, g_potential, has_g_potential, g_currents, has_g_currents, derivative,
    before, earlier, rho, decay, strength, detach_reset, row, replica, s, f, theta, du, to_rho,
    state, g, d_drive, J, K,
):  # fmt: skip
    """One step of a sample, but for the weights: s, theta, du and to_rho [W] at `state` and f [W,
    K] go on. c(t-1) at before[earlier]."""
    L = lanes(s)
    blocks = (J + L - 1) // L
    W = blocks * L
    for block in range(blocks):
        o, used = block * L, min(L, J - block * L)
        p = state + o
        g_t, back = reverse_step(
            derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, row + o, used,
            load(s, p), f, p * K, theta, p, decay, strength, replica * K * W + o, W, K,
            detach_reset,
        )  # fmt: skip
        store(s, p, back)
        store_row(g, row + o, used, g_t)
        du_t = fma(load(rho, replica * W + o), load(du, p), g_t)
        if has_g_currents:
            du_t = add(du_t, load_row(g_currents, row + o, used))
        store(du, p, du_t)
        store_row(d_drive, row + o, used, du_t)
        c = load_row(before, earlier + o, used)
        store(to_rho, p, fma(du_t, c, load(to_rho, p)))


@kernel
def _reverse(
    begin, end, g_spikes, has_g_spikes, g_potential, has_g_potential, g_feedback, g_currents,
    has_g_currents, derivative, currents, current, weight, rho, decay, strength, detach_reset, g,
    d_drive, d_rho, d_current, d_threshold, d_feedback, d_spike, T, B, J, K, size, groups,
):  # fmt: skip
    """Tasks (replica, group). d_rho and d_threshold [R, B, J], of each sample alone."""
    L = lanes(derivative)
    blocks = (J + L - 1) // L
    W = blocks * L
    s = aligned(size * W, derivative)
    theta = aligned(size * W, derivative)
    du = aligned(size * W, derivative)
    to_rho = aligned(size * W, derivative)
    f = aligned(size * W * K, derivative)
    every = np.arange(J)
    for task in range(begin, end):
        replica, number = divmod(task, groups)
        first, n = group(number, B, size)
        s[:] = theta[:] = du[:] = to_rho[:] = 0
        for k in range(n):
            for block in range(blocks):
                p = k * W + block * L
                load_feedback(g_feedback, f[p * K :], replica * B + first + k, block, B, J, K)
        for t in range(T - 1, -1, -1):
            after, count = ((replica * T + t - 1) * B + first) * J, n * J
            prefetch_step(
                derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, g, after, count
            )
            prefetch_row(currents, after - B * J, count)
            prefetch_row(d_drive, after, count)
            if has_g_currents:
                prefetch_row(g_currents, after, count)
            for k in range(n):
                row = ((replica * T + t) * B + first + k) * J
                before, earlier = currents, row - B * J
                if t == 0:
                    before, earlier = current, (replica * B + first + k) * J
                _reverse_row(
                    g_spikes, has_g_spikes, g_potential, has_g_potential, g_currents,
                    has_g_currents, derivative, before, earlier, rho, decay, strength,
                    detach_reset, row, replica, s, f, theta, du, to_rho, k * W, g, d_drive,
                    J, K,
                )  # fmt: skip
            _send_back(s, W, weight, replica * W * J, du, every, J, n)
        for k in range(n):
            b = replica * B + first + k
            for block in range(blocks):
                o, used = block * L, min(L, J - block * L)
                p, place = k * W + o, b * J + o
                store_row(d_spike, place, used, load(s, p))
                store_row(d_threshold, place, used, load(theta, p))
                store_row(d_rho, place, used, load(to_rho, p))
                dc = mul(load(rho, replica * W + o), load(du, p))
                store_row(d_current, place, used, dc)
                store_feedback(f[p * K :], d_feedback, b, block, B, J, K)


def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """drive [R, T, B, J], weight [R, J, J], decay [R, J], current [R, B, J] -> spikes, V [R, T, B,
    J], final feedback [R, K, B, J], c [R, T, B, J]."""
    R, T, B, J = drive.shape
    K = feedback_decay.shape[1]
    spikes, potential, currents = (torch.empty(drive.shape, dtype=drive.dtype) for _ in range(3))
    last_feedback = torch.empty(feedback.shape, dtype=drive.dtype)
    run(
        _scan, R * B, R * T * B * J * (8 * (1 + K) + J // 4),
        flat(drive), padded(weight.mT), padded(decay), flat(current), padded(threshold),
        padded(feedback_decay), padded(feedback_strength), flat(feedback), flat(spike),
        flat(spikes), flat(potential), flat(last_feedback), flat(currents), T, B, J, K,
    )  # fmt: skip
    return spikes, potential, last_feedback, currents


def leaky_recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_currents: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    currents: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of spikes, V and c [R, T, B, J] and of the final feedback, ds/dV -> d_drive [R, T,
    B, J], d_weight [R, J, J], d_decay [R, J], d_current [R, B, J], d_threshold [R, J],
    d_feedback_decay and d_feedback_strength [R, K, J], d_feedback [R, K, B, J], d_spike [R, B,
    J]."""
    R, T, B, J = derivative.shape
    K = feedback_decay.shape[1]
    like = derivative
    g = torch.empty(like.shape, dtype=like.dtype)
    d_drive = torch.empty(like.shape, dtype=like.dtype)
    d_decay, d_current, d_threshold, d_spike = (
        torch.empty(spike.shape, dtype=like.dtype) for _ in range(4)
    )
    d_feedback = torch.empty(feedback.shape, dtype=like.dtype)
    size = group_size(R, B)
    groups = groups_of(B, size)
    run(
        _reverse, R * groups, R * T * B * J * (8 * (1 + K) + J),
        optional(g_spikes, like), g_spikes is not None, optional(g_potential, like),
        g_potential is not None, optional(g_feedback, like), optional(g_currents, like),
        g_currents is not None, flat(derivative), flat(currents), flat(current), packed(weight),
        padded(decay), padded(feedback_decay), padded(feedback_strength), detach_reset, flat(g),
        flat(d_drive), flat(d_decay), flat(d_current), flat(d_threshold), flat(d_feedback),
        flat(d_spike), T, B, J, K, size, groups,
    )  # fmt: skip
    d_feedback_decay, d_feedback_strength = feedback_gradients(
        g, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike
    )
    return (
        d_drive,
        weight_gradient(d_drive, spikes, spike),
        sum_in_order(d_decay),
        d_current,
        sum_in_order(d_threshold),
        d_feedback_decay,
        d_feedback_strength,
        d_feedback,
        d_spike,
    )
