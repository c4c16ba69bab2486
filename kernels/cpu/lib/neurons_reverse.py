"""Threshold and feedback currents backward in time, and the gradients of the feedback's parameters.

With g_s, g_V what arrives from outside, sigma' the derivative ds/dV, at step t:

    d_s = g_s(t) + what s(t) does in the steps after it,   e = sigma'(t) d_s,   g = e + g_V(t)
    dF_k(t) = dF_k - g,   dF_k <- decay_k dF_k(t),   d_s(t-1) <- sum_k strength_k dF_k(t)
    d_threshold = -sum_t e

`reverse_step` does that for one block of neurons of one sample. The parameters follow in a sweep
forward in time, as a feedback current is a synaptic current of s(t-1) with weight -strength:

    y(t) = decay y(t-1) + F(t-1),   x(t) = decay x(t-1) + s(t-1),   x(0) = y(0) = 0
    d_decay = -sum_bt g y + sum_b g_F y(T),   d_strength = -sum_bt g x + sum_b g_F x(T)

There a task is up to SPAN blocks of one sample. Order of a sum: all steps of a sample
ascending make a partial sum, samples are added ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import blocks_of, flat, optional, padded
from .compiling import borrowing, kernel
from .neurons import load_feedback, load_neurons
from .rows import SPAN, aligned, load_row, prefetch_row, store_row
from .sums import sum_in_order
from .threads import run
from .vectors import add, filled, fma, lanes, load, mul, store, sub


@borrowing
def prefetch_step(
    derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, d_current, place, count
):
    """Prefetch what `reverse_step` reads at `place`, and where it writes g."""
    prefetch_row(derivative, place, count)
    prefetch_row(d_current, place, count)
    if has_g_spikes:
        prefetch_row(g_spikes, place, count)
    if has_g_potential:
        prefetch_row(g_potential, place, count)


@borrowing
def reverse_step(
    derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, place, used, d_spike,
    d_feedback, state, d_threshold, lane, decay, strength, first, stride, K, detach_reset,
):  # fmt: skip
    """One step of one block -> g, and what the feedback sends to s(t-1): a vector each.

    derivative, g_spikes and g_potential at `place`, `used` lanes of them; `d_spike`: the vector of
    what the later steps sent to s(t). d_feedback [K, L] at `state` and d_threshold [L] at `lane` go
    on. decay and strength of k at [first + k stride].
    """
    L = lanes(derivative)
    if has_g_spikes:
        d_spike = add(d_spike, load_row(g_spikes, place, used))
    g = mul(load_row(derivative, place, used), d_spike)
    store(d_threshold, lane, sub(load(d_threshold, lane), g))
    if has_g_potential:
        g = add(g, load_row(g_potential, place, used))
    back = filled(derivative, 0)
    for k in range(K):
        p = first + k * stride
        at_step = sub(load(d_feedback, state + k * L), g)
        store(d_feedback, state + k * L, mul(load(decay, p), at_step))
        if not detach_reset:
            back = fma(load(strength, p), at_step, back)
    return g, back


@kernel
def _feedback_gradients(
    begin, end, g, g_feedback, spikes, decay, strength, feedback, spike, d_decay, d_strength, T, B,
    J, K,
):  # fmt: skip
    """Tasks (replica, sample, span). d_decay and d_strength [R, B, K, J], of each sample alone."""
    L = lanes(g)
    blocks = (J + L - 1) // L
    spans = (blocks + SPAN - 1) // SPAN
    s = aligned(SPAN * L, g)
    f = aligned(SPAN * K * L, g)  # [block, K, L], as all that follow
    x = aligned(SPAN * K * L, g)
    y = aligned(SPAN * K * L, g)
    gx = aligned(SPAN * K * L, g)
    gy = aligned(SPAN * K * L, g)
    last = aligned(SPAN * K * L, g)
    for task in range(begin, end):
        b, span = divmod(task, spans)
        replica, sample = divmod(b, B)
        first = span * SPAN
        here = min(SPAN, blocks - first)
        x[:] = y[:] = gx[:] = gy[:] = 0
        for h in range(here):
            load_neurons(feedback, spike, f[h * K * L :], s[h * L :], b, first + h, B, J, K)
            load_feedback(g_feedback, last[h * K * L :], b, first + h, B, J, K)
        for t in range(T):
            row = ((replica * T + t) * B + sample) * J
            prefetch_row(g, row + first * L + B * J, here * L)
            prefetch_row(spikes, row + first * L + B * J, here * L)
            for h in range(here):
                block = first + h
                place, used = row + block * L, min(L, J - block * L)
                g_t, s_t = load_row(g, place, used), load(s, h * L)
                for k in range(K):
                    p, o = ((replica * K + k) * blocks + block) * L, (h * K + k) * L
                    r, before = load(decay, p), load(f, o)
                    y_k = fma(r, load(y, o), before)
                    x_k = fma(r, load(x, o), s_t)
                    store(f, o, fma(r, before, mul(load(strength, p), s_t)))
                    store(y, o, y_k)
                    store(x, o, x_k)
                    store(gy, o, fma(g_t, y_k, load(gy, o)))
                    store(gx, o, fma(g_t, x_k, load(gx, o)))
                store(s, h * L, load_row(spikes, place, used))
        for h in range(here):
            lane = (first + h) * L
            used = min(L, J - lane)
            for k in range(K):
                o, place = (h * K + k) * L, (b * K + k) * J + lane
                g_f = load(last, o)
                store_row(d_decay, place, used, sub(mul(g_f, load(y, o)), load(gy, o)))
                store_row(d_strength, place, used, sub(mul(g_f, load(x, o)), load(gx, o)))


def feedback_gradients(
    g: Tensor,
    g_feedback: Tensor | None,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor]:
    """g = dL/dV and spikes [R, T, B, J], g_feedback of the final and `feedback` the initial one [R,
    K, B, J], spike s(0) [R, B, J] -> d_decay, d_strength [R, K, J]."""
    R, T, B, J = g.shape
    K = feedback_decay.shape[1]
    decays = torch.empty((R, B, K * J), dtype=g.dtype)
    strengths = torch.empty((R, B, K * J), dtype=g.dtype)
    run(
        _feedback_gradients, R * B * -(-blocks_of(J, g) // SPAN), 16 * R * T * B * J * K,
        flat(g), optional(g_feedback, g), flat(spikes), padded(feedback_decay),
        padded(feedback_strength), flat(feedback), flat(spike), flat(decays), flat(strengths),
        T, B, J, K,
    )  # fmt: skip
    return sum_in_order(decays).view(R, K, J), sum_in_order(strengths).view(R, K, J)
