"""Threshold and feedback currents backward in time, and the gradients of the feedback's parameters.

With g_s, g_V what arrives from outside, sigma' the derivative ds/dV, at step t:

    d_s = g_s(t) + what s(t) does in the steps after it,   e = sigma'(t) d_s,   g = e + g_V(t)
    dF_k(t) = dF_k - g,   dF_k <- decay_k dF_k(t),   d_s(t-1) <- sum_k strength_k dF_k(t)
    d_threshold = -sum_t e

`reverse_step` does that for one block of neurons of one sample. The parameters follow in a sweep
forward in time, as a feedback current is a synaptic current of s(t-1) with weight -strength:

    y(t) = decay y(t-1) + F(t-1),   x(t) = decay x(t-1) + s(t-1),   x(0) = y(0) = 0
    d_decay = -sum_bt g y + sum_b g_F y(T),   d_strength = -sum_bt g x + sum_b g_F x(T)

There a task is a block of neurons, over all samples. Order of a sum: all steps of a sample
ascending make a partial sum, samples are added ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import blocks_of, flat, optional, padded
from .compiling import borrowing, kernel
from .neurons import load_feedback, load_neurons
from .rows import aligned, load_row
from .threads import run
from .vectors import add, filled, fma, lanes, load, mul, store, sub


@borrowing
def reverse_step(
    derivative, g_spikes, has_g_spikes, g_potential, has_g_potential, place, used, room, d_spike,
    d_feedback, state, d_threshold, lane, decay, strength, first, stride, K, detach_reset,
):  # fmt: skip
    """One step of one block -> g, and what the feedback sends to s(t-1): a vector each.

    derivative, g_spikes and g_potential at `place`, `used` lanes of them; `d_spike`: the vector of
    what the later steps sent to s(t). d_feedback [K, L] at `state` and d_threshold [L] at `lane` go
    on. decay and strength of k at [first + k stride].
    """
    L = lanes(room)
    if has_g_spikes:
        d_spike = add(d_spike, load_row(g_spikes, place, used, room))
    g = mul(load_row(derivative, place, used, room), d_spike)
    store(d_threshold, lane, sub(load(d_threshold, lane), g))
    if has_g_potential:
        g = add(g, load_row(g_potential, place, used, room))
    back = filled(room, 0)
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
    """Tasks (replica, block)."""
    L = lanes(g)
    blocks = (J + L - 1) // L
    room = aligned(L, g)
    f = aligned(K * L, g)
    x = aligned(K * L, g)
    y = aligned(K * L, g)
    gx = aligned(K * L, g)
    gy = aligned(K * L, g)
    last = aligned(K * L, g)
    to_decay = aligned(K * L, g)
    to_strength = aligned(K * L, g)
    for task in range(begin, end):
        replica, block = divmod(task, blocks)
        used = min(L, J - block * L)
        first, stride = (replica * K * blocks + block) * L, blocks * L
        to_decay[:] = to_strength[:] = 0
        for sample in range(B):
            b = replica * B + sample
            load_neurons(feedback, spike, f, room, b, block, B, J, K)
            s = load(room, 0)
            x[:] = y[:] = gx[:] = gy[:] = 0
            place = (replica * T * B + sample) * J + block * L
            for _ in range(T):
                g_t = load_row(g, place, used, room)
                for k in range(K):
                    p, o = first + k * stride, k * L
                    r, before = load(decay, p), load(f, o)
                    y_k = fma(r, load(y, o), before)
                    x_k = fma(r, load(x, o), s)
                    store(f, o, fma(r, before, mul(load(strength, p), s)))
                    store(y, o, y_k)
                    store(x, o, x_k)
                    store(gy, o, fma(g_t, y_k, load(gy, o)))
                    store(gx, o, fma(g_t, x_k, load(gx, o)))
                s = load_row(spikes, place, used, room)
                place += B * J
            load_feedback(g_feedback, last, b, block, B, J, K)
            for o in range(0, K * L, L):
                g_f = load(last, o)
                y_part = sub(mul(g_f, load(y, o)), load(gy, o))
                x_part = sub(mul(g_f, load(x, o)), load(gx, o))
                store(to_decay, o, add(load(to_decay, o), y_part))
                store(to_strength, o, add(load(to_strength, o), x_part))
        for k in range(K):
            place = (replica * K + k) * J + block * L
            for l in range(used):
                d_decay[place + l] = to_decay[k * L + l]
                d_strength[place + l] = to_strength[k * L + l]


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
    d_decay, d_strength = (torch.empty((R, K, J), dtype=g.dtype) for _ in range(2))
    run(
        _feedback_gradients, R * blocks_of(J, g), 16 * R * T * B * J * K,
        flat(g), optional(g_feedback, g), flat(spikes), padded(feedback_decay),
        padded(feedback_strength), flat(feedback), flat(spike), flat(d_decay), flat(d_strength),
        T, B, J, K,
    )  # fmt: skip
    return d_decay, d_strength
